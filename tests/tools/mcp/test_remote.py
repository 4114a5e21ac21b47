"""Servers over HTTP that misbehave: what they send has an end, and goes nowhere but where it was meant to."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tools.mcp import old_server
from tests.tools.mcp.help import call, opened
from twofile.tools.mcp.configuration import Remote

pytest.importorskip("mcp", reason="mcp is not installed")

KEY = {"Authorization": "Bearer abc"}


class Bad(old_server.Handler):
    """The address says how it misbehaves when its tool is called: /HOW."""

    server: Web

    def do_POST(self) -> None:  # noqa: N802
        web, how = self.server, self.path.strip("/").replace("-", " ")
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        web.seen.append((how, self.headers.get("Authorization", "")))
        message = json.loads(raw)
        if message.get("method") != "tools/call" or how == "at home":
            said = old_server.answer(message)
            self.give(200 if said else 202, json.dumps(said[0]).encode() if said else b"", "application/json")
            return
        right = json.dumps(old_server.answer(message)[0]).encode()
        match how:
            case "compressed":
                self.send(gzip.compress(right), "application/json", ("Content-Encoding", "gzip"))
            case "gigantic":
                self.send(None, "application/json")
                self.without_end(b" " * (1 << 16))
            case "floods":
                self.send(None, "text/event-stream")
                self.without_end(b'data: {"jsonrpc": "2.0", "method": "notifications/message"}\n\n' * 100)
            case "one line":
                self.send(None, "text/event-stream")
                self.without_end(b"data: " + b"x" * (1 << 16))
            case "remarks":
                self.send(None, "text/event-stream")
                self.without_end(b": no matter\n\n" * 1000)
            case "wrong id":
                self.give(200, json.dumps({**json.loads(right), "id": 4711}).encode(), "application/json")
            case "breaks off":
                self.send(right[:-5], "application/json", ("Content-Length", str(len(right))))
            case "page":
                self.give(200, b"<html>please log in</html>", "text/html")
            case "no json":
                self.give(200, b"{]", "application/json")
            case "fails":
                self.give(500, b"oh no", "text/plain")
            case "hangs":
                web.over.wait(30)
            case "sends away" | "sends around":
                where = web.elsewhere if how == "sends away" else "/at-home"
                self.send(b"", "text/plain", ("Location", where), status=307)
            case _:
                self.give(200, right, "application/json")

    def do_GET(self) -> None:  # noqa: N802
        """A stream that ends at once, and is to be opened again at once."""
        self.server.opened += 1
        if self.path == "/hurries":
            self.send(b"retry: 0\n\n", "text/event-stream")
        else:
            self.give(405, b"", "")

    def send(self, body: bytes | None, kind: str, *headers: tuple[str, str], status: int = 200) -> None:
        """An answer that ends with its connection."""
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Connection", "close"), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if body is not None:
            self.wfile.write(body)

    def without_end(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            while not self.server.over.is_set():
                self.wfile.write(data)
                self.server.sent += len(data)


class Web(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, elsewhere: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Bad)
        self.elsewhere, self.over = elsewhere, threading.Event()
        self.seen: list[tuple[str, str]] = []
        self.opened = self.sent = 0

    def at(self, how: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{how.replace(' ', '-')}"


@contextmanager
def serving(elsewhere: str = "") -> Iterator[Web]:
    web = Web(elsewhere)
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.over.set()
        web.shutdown()
        thread.join()
        web.server_close()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("compressed", "sent something compressed (gzip), which it was asked not to"),
        ("gigantic", "sent a message of more than 16 MiB"),
        ("floods", "floods: it sent more than can be meant"),
        ("one line", "exceeded the 16777216 byte limit"),
        ("remarks", "floods: it sent more than can be meant"),
        ("wrong id", "answered a request that was never made (id 4711)"),
        ("breaks off", "peer closed connection"),
        ("page", "Unexpected content type: text/html"),
        ("no json", "Failed to parse JSON response"),
        ("fails", "refused: Server returned an error response"),
        ("hangs", "gave no answer within 0.9 s"),
        ("sends away", "not followed"),
    ],
)
def test_a_call_is_an_error_that_says_so(tmp_path: Path, how: str, says: str) -> None:
    before = threading.active_count()
    with serving() as other, serving(other.at("at home")) as web:
        with opened(tmp_path, Remote("bad", web.at(how), KEY)) as servers:
            assert servers.problems == {}
            start, seconds = time.monotonic(), 1 if how == "hangs" else 10
            outcome = call(servers, "bad.backwards", {"word": "abc"}, seconds)
            assert outcome.error
            assert says in outcome.text
            assert "the server bad" in outcome.text
            assert len(outcome.text) < 1000
            assert "took longer" not in outcome.text
            assert time.monotonic() - start < seconds
        assert other.seen == []  # nor does it learn the key
        assert web.sent < 400 << 20
    wait_until(lambda: threading.active_count() <= before)


def test_it_is_sent_around_within_its_own_origin(tmp_path: Path) -> None:
    with serving() as web, opened(tmp_path, Remote("kind", web.at("sends around"), KEY)) as servers:
        assert call(servers, "kind.backwards", {"word": "abc"}).text == "cba"
        assert web.seen[-1] == ("at home", "Bearer abc")
        assert {key for _, key in web.seen} == {"Bearer abc"}


def test_no_proxy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy, serving() as web:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        with opened(tmp_path, Remote("kind", web.at("well"))) as servers:
            assert call(servers, "kind.backwards", {"word": "abc"}).text == "cba"
        assert proxy.seen == []


def test_a_stream_that_is_opened_again_and_again(tmp_path: Path) -> None:
    with serving() as web, opened(tmp_path, Remote("bad", web.at("hurries"))) as servers:
        wait_until(lambda: web.opened >= 2)
        time.sleep(0.5)
        assert web.opened <= 3
        assert call(servers, "bad.backwards", {"word": "abc"}).text == "cba"


def wait_until(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
