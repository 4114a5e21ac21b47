"""Web engines that answer well, badly, too much, too late, or not at all: a server on loopback plays them."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from twofile.errors import ToolError
from twofile.kernel.driver import Context, run_driver
from twofile.kernel.label import EVERYBODY, Label
from twofile.tools.search.search import Search
from twofile.tools.search.web import Brave, SearXNG

KEY = "BSA-secret-0123456789"


class Server(ThreadingHTTPServer):
    """Answers each request with `answer`, and keeps what was asked."""

    daemon_threads = True
    answer: Callable[[BaseHTTPRequestHandler], None]

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gives(self, body: bytes | str | Any, status: int = 200, **headers: str) -> None:
        said = body if isinstance(body, bytes | str) else json.dumps(body)
        data = said.encode() if isinstance(said, str) else said

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        self.answer = answer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        with suppress(OSError):
            self.server.answer(self)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield one
    one.ended.set()
    one.shutdown()
    thread.join()
    one.server_close()


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, follow_redirects=True) as one:  # what an engine must not rely on
        yield one


@pytest.fixture(params=["SearXNG", "Brave"])
def engine(request: pytest.FixtureRequest, server: Server, client: httpx2.Client) -> SearXNG | Brave:
    return SearXNG(client, server.address) if request.param == "SearXNG" else Brave(client, KEY, server.address)


def context(seconds: float = 10.0) -> Context:
    return Context(1, time.monotonic() + seconds)


def wrapped(engine: SearXNG | Brave, rows: Any) -> Any:
    return {"results": rows} if isinstance(engine, SearXNG) else {"web": {"results": rows}}


def row(n: int) -> dict[str, str]:
    return {
        "title": f"Page {n}",
        "url": f"https://example.org/{n}",
        "content": f"about {n}",
        "description": f"about {n}",
    }


def test_searxng_is_asked_and_answers(server: Server, client: httpx2.Client) -> None:
    server.gives({"results": [row(n) for n in range(30)]})
    engine = SearXNG(client, server.address + "/")
    found = engine.search("deep sea & <fish>", 3, context())
    assert [(one.title, one.place, one.text) for one in found] == [
        (f"Page {n}", f"https://example.org/{n}", f"about {n}") for n in range(3)
    ]
    path, headers = server.asked[0]
    assert urlsplit(path).path == "/search"
    assert parse_qs(urlsplit(path).query) == {"q": ["deep sea & <fish>"], "format": ["json"]}
    assert headers["accept-encoding"] == "identity"
    assert engine.needs == ("net:127.0.0.1",)
    assert engine.label == Label.of(f"page:{server.address}", EVERYBODY)


def test_brave_is_asked_with_its_key_in_a_header_alone(server: Server, client: httpx2.Client) -> None:
    server.gives({"web": {"results": [row(1)]}})
    engine = Brave(client, KEY, server.address)
    assert [one.place for one in engine.search("fish", 50, context())] == ["https://example.org/1"]
    path, headers = server.asked[0]
    assert urlsplit(path).path == "/res/v1/web/search"
    assert parse_qs(urlsplit(path).query) == {"q": ["fish"], "count": ["20"]}
    assert headers["x-subscription-token"] == KEY
    assert KEY not in path
    assert Brave(client, KEY).needs == ("net:api.search.brave.com",)
    server.gives({"query": {}, "type": "search"})  # it found nothing
    assert engine.search("fish", 5, context()) == []


def test_what_a_page_says_of_itself_is_plain_text(engine: SearXNG | Brave, server: Server) -> None:
    text = "a <strong>bold</strong> claim &amp; <script>more</script>\x1b[31m\n1. Fake\u202e result\x00\ud800"
    server.gives(
        wrapped(engine, [{"title": text, "url": " https://example.org/ ", "content": text, "description": text}])
    )
    (one,) = engine.search("x", 5, context())
    for said in (one.title, one.text):
        assert said.startswith("a bold claim & more")
        assert said.isprintable()
        assert "<" not in said
    assert one.place == "https://example.org/"


def test_rows_that_are_none_are_left_out(engine: SearXNG | Brave, server: Server) -> None:
    bad: list[Any] = [None, 3, "x", [], {}, {"url": None}, {"url": 3, "title": "x"}, {"title": "x"}]
    for address in (
        "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "ftp://example.org/", "//example.org",
        "https://example.org/a b", "https://example.org/\n2. fake", "https://example.org/\ud800", "https://e.org/\u202e",
        "https://example.org/" + "x" * 3000, "",
    ):  # fmt: skip
        bad.append({"title": "x", "url": address, "content": "x", "description": "x"})
    odd = {"title": 3, "url": "https://example.org/odd", "content": ["x"], "description": {"x": 1}}
    server.gives(wrapped(engine, [*bad, odd, row(1)]))
    found = engine.search("x", 5, context())
    assert [(one.title, one.place, one.text) for one in found] == [
        ("https://example.org/odd", "https://example.org/odd", ""),
        ("Page 1", "https://example.org/1", "about 1"),
    ]


def test_a_long_text_is_cut(engine: SearXNG | Brave, server: Server) -> None:
    long = "<" * 100_000 + "word " * 100_000
    server.gives(wrapped(engine, [{"title": long, "url": "https://e.org", "content": long, "description": long}]))
    start = time.monotonic()
    (one,) = engine.search("x", 5, context())
    assert len(one.title) <= 200
    assert len(one.text) <= 500
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>Just a moment...</html>", b"{", b'{"results": [', b"\xff\xfe\x00", b"[" * 200_000,
        b'{"results": ' * 100_000, b"9" * 10_000, b"NaN", b"[]", b"null", b"3", b'"results"', b'{"results": 3, "web": 3}',
        b'{"results": {"0": 1}, "web": {"results": "x"}}', b'{"results": null, "web": {"results": null}}',
        b'{"results": null, "web": null}', b'{"results": null, "web": []}',
    ],
)  # fmt: skip
def test_what_is_no_answer(engine: SearXNG | Brave, server: Server, body: bytes) -> None:
    server.gives(body)
    with pytest.raises(ValueError, match="answers with something that"):
        engine.search("x", 5, context())


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (429, "asked too often"),
        (500, "HTTP 500"),
        (503, "HTTP 503"),
        (404, "HTTP 404"),
        (204, "HTTP 204"),
        (202, "HTTP 202"),
    ],
)
def test_a_status_that_is_none_of_success(engine: SearXNG | Brave, server: Server, status: int, why: str) -> None:
    server.gives(b"" if status == 204 else json.dumps(wrapped(engine, [row(1)])), status)
    with pytest.raises(ValueError, match=why):
        engine.search("x", 5, context())
    assert len(server.asked) == 1, "it was asked again at once"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_what_to_mend_and_no_key(engine: SearXNG | Brave, server: Server, status: int) -> None:
    server.gives(f"the key {KEY} is wrong", status)
    with pytest.raises(ToolError) as told:
        engine.search("x", 5, context())
    assert str(status) in str(told.value)
    assert ("settings.yml" if isinstance(engine, SearXNG) else "look whether the key is right") in str(told.value)
    outcome = run_driver(Search([engine]), {"query": "x"}, context())
    assert outcome.error
    assert str(status) in outcome.text
    assert KEY not in outcome.text + repr(told.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(engine: SearXNG | Brave, server: Server, status: int) -> None:
    other = Server()
    try:
        server.gives(b"", status, Location=f"{other.address}/elsewhere")
        with pytest.raises(ValueError, match=f"HTTP {status}"):
            engine.search("x", 5, context())
        server.gives(b"", status, Location="/elsewhere")
        with pytest.raises(ValueError, match=f"HTTP {status}"):
            engine.search("x", 5, context())
        assert not any("elsewhere" in path for path, _ in server.asked)
        other.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            other.socket.accept()  # nobody came
    finally:
        other.server_close()


@pytest.mark.parametrize("said", [True, False])
def test_ten_megabytes_are_not_taken(engine: SearXNG | Brave, server: Server, said: bool) -> None:
    """Nor an answer without an end: the connection is dropped after two."""
    sent = [0]
    over = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if said:
            handler.send_header("Content-Length", str(10 << 20))
        handler.end_headers()
        try:
            while not server.ended.is_set() and (not said or sent[0] < 10 << 20):
                handler.wfile.write(b" " * (1 << 16))
                sent[0] += 1 << 16
        finally:
            over.set()

    server.answer = answer
    start = time.monotonic()
    with pytest.raises(ValueError, match="more than 2 MB"):
        engine.search("x", 5, context())
    assert time.monotonic() - start < 5
    assert over.wait(5), "the connection was kept"
    assert sent[0] < 64 << 20


def test_nothing_is_unpacked(engine: SearXNG | Brave, server: Server) -> None:
    """50 MB in a small part of that, from an engine that packs although it was asked not to."""
    server.gives(gzip.compress(bytes(50 << 20), 1), Content_Encoding="gzip")
    with pytest.raises(ValueError, match="packed"):
        engine.search("x", 5, context())


def test_silence(engine: SearXNG | Brave, server: Server) -> None:
    def answer(_: BaseHTTPRequestHandler) -> None:
        server.ended.wait(5)

    server.answer = answer
    start = time.monotonic()
    with pytest.raises(ValueError, match="too long"):
        engine.search("x", 5, context(0.5))
    assert time.monotonic() - start < 2


def test_a_drop_at_a_time(engine: SearXNG | Brave, server: Server) -> None:
    """Each wait is short, all of them together are not."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.ended.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    server.answer = answer
    start = time.monotonic()
    with pytest.raises(ValueError, match="too long"):
        engine.search("x", 5, context(0.6))
    assert time.monotonic() - start < 2


def test_a_call_that_is_cancelled_ends(engine: SearXNG | Brave, server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.ended.wait(0.05):
            handler.wfile.write(b" ")

    server.answer = answer
    call = context(10)
    threading.Timer(0.2, call.cancelled.set).start()
    start = time.monotonic()
    with pytest.raises(ValueError, match="too long"):
        engine.search("x", 5, call)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 300_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: \xff\r\n\r\n{}",
    ],
)  # fmt: skip
def test_what_is_no_http(engine: SearXNG | Brave, server: Server, raw: bytes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(raw)
        handler.close_connection = True

    server.answer = answer
    with pytest.raises(ValueError, match=engine.name):
        engine.search("x", 5, context(3))


def test_nobody_is_there(client: httpx2.Client) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match="cannot be reached"):
            SearXNG(client, address).search("x", 5, context())


@pytest.mark.parametrize(
    "address",
    ["", "example.org", "ftp://example.org", "file:///etc/passwd", "http://", "http://[::1", "https://exa mple.org",
     "https://example.org/\nx", "https://:80", "https://example.org:x", "https://example.org?q=1", "https://u:p@e.org",
     "https://example.org#x", "https://example.org:0", "https://example.org:99999", "https://e.org\\@b.org"],
)  # fmt: skip
def test_an_address_that_is_none(client: httpx2.Client, address: str) -> None:
    with pytest.raises(ToolError, match="no address"):
        SearXNG(client, address)


@pytest.mark.parametrize("key", ["", " ", "a b", "key\r\nX-Other: 1", "clé"])
def test_a_key_that_is_none(client: httpx2.Client, key: str) -> None:
    with pytest.raises(ToolError, match="needs the key") as told:
        Brave(client, key)
    assert not key.strip() or key not in str(told.value)


def test_engines_behind_one_question(server: Server, client: httpx2.Client) -> None:
    server.gives({"results": [row(1), row(2)], "web": {"results": [row(2), row(3)]}})
    driver = Search([SearXNG(client, server.address), Brave(client, KEY, server.address)], "web")
    text = run_driver(driver, {"query": "x"}, context()).text
    assert text == (
        "1. Page 1 (https://example.org/1)\n   about 1\n2. Page 2 (https://example.org/2)\n   about 2\n"
        "3. Page 3 (https://example.org/3)\n   about 3"
    )
