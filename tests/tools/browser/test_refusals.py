"""Nothing but the public web is reached, in no spelling, by no way round; and without the filter it would be."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import resource
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from twofile.kernel.driver import Context, Outcome, run_driver
from twofile.tools.browser.addresses import Reach, Refused, place
from twofile.tools.browser.browser import Browser, Settings
from twofile.tools.browser.proxy import Proxy

pytest.importorskip("trafilatura", reason="trafilatura is not installed")

LOOPBACK = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "127.0.1", "[::1]", "[::]", "0.0.0.0",
    "localhost", "LOCALHOST.", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "①②⑦.0.0.1", "127。0。0。1",
    "127.0.0.1.", "%31%32%37.0.0.1", "app.localhost",
]  # fmt: skip
OTHERS = [
    "10.0.0.1", "172.16.3.4", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255",
    "[fe80::1]", "[fc00::1]", "[fd12:3456::1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[2002:7f00:1::]",
    "[2001:0:7f00:1::]", "[::127.0.0.1]", "224.0.0.1", "255.255.255.255", "198.18.0.1", "0xa9fea9fe", "router", "nas.local",
]  # fmt: skip


class Listener:
    """Counts those that come to a port of loopback, and answers as it is told."""

    def __init__(self, answer: Callable[[str], tuple[int, dict[str, str], Any]] | None = None) -> None:
        listener = self
        self.seen: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.seen.append(self.path)
                status, headers, body = answer(self.path) if answer else (200, {"Content-Type": "text/html"}, b"secret")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for chunk in [body] if isinstance(body, bytes) else body:
                        self.wfile.write(chunk)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def secret() -> Iterator[Listener]:
    """What must never be reached: a server of this machine, for itself."""
    made = Listener()
    yield made
    made.close()


def read(reach: Reach, url: str, **arguments: Any) -> Outcome:
    driver = Browser(Settings(reach))
    return run_driver(driver, {"url": url, **arguments}, Context(1, time.monotonic() + 40))


@pytest.mark.parametrize("host", LOOPBACK + OTHERS)
def test_no_spelling_is_reached(host: str, secret: Listener) -> None:
    """Before a packet: the port is let through here, so that the address alone stands in the way."""
    for url in (f"http://{host}:{secret.port}/", f"http://{host}/", f"https://{host}/"):
        with pytest.raises(Refused):
            at = place(url)
            Reach().host(at.host, at.port)
        found = read(Reach(), url)
        assert found.error
    assert secret.seen == []


def test_without_the_filter_they_are_reached(secret: Listener) -> None:
    with httpx2.Client(trust_env=False) as client:
        for host in ("127.0.0.1", "localhost", "2130706433", "127.1", "[::ffff:127.0.0.1]"):
            with contextlib.suppress(httpx2.HTTPError):
                client.get(f"http://{host}:{secret.port}/")
    assert len(secret.seen) >= 4


def test_a_redirect_is_not_followed_there(secret: Listener) -> None:
    targets = [f"http://127.0.0.1:{secret.port}/x", f"http://0x7f.1:{secret.port}/", "file:///etc/passwd", "//127.1/"]
    door = Listener(lambda path: (302, {"Location": targets[int(path[1:])]}, b""))
    try:
        reach = Reach(frozenset({("127.0.0.1", door.port)}))
        for number in range(len(targets)):
            found = read(reach, f"http://127.0.0.1:{door.port}/{number}")
            assert found.error
            assert "secret" not in found.text
        assert len(door.seen) == len(targets)
        assert secret.seen == []
        with httpx2.Client(trust_env=False, follow_redirects=True) as client:
            assert client.get(f"http://127.0.0.1:{door.port}/0").text == "secret"
    finally:
        door.close()


def test_a_name_that_changes_its_address(secret: Listener) -> None:
    """DNS rebinding: public at first, then loopback. What was checked is what is connected to."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"]])
    dialled: list[str] = []

    async def nowhere(address: str, port: int) -> Any:
        dialled.append(address)
        raise OSError("nobody")

    reach = Reach(resolver=lambda host: next(answers))
    with (
        Proxy(reach, tcp=True, connect=nowhere) as proxy,
        httpx2.Client(proxy=proxy.url, trust_env=False) as client,
    ):
        said = [client.get("http://rebind.example.com/").status_code for _ in range(4)]
    assert said == [502, 403, 403, 403]
    assert dialled == ["93.184.216.34"]
    assert secret.seen == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "data:text/html,x", "chrome://settings", "view-source:http://example.com/", "blob:x",
     "about:config", "javascript:1", "ftp://example.com/", "gopher://x/", "http://user:pw@example.com/", "http:///x",
     "http://example.com:22/", "http://exa mple.com/", "http://example.com\\@127.0.0.1/"],
)  # fmt: skip
@pytest.mark.parametrize("render", [False, True])
def test_what_is_no_page(url: str, render: bool) -> None:
    found = read(Reach(), url, render=render)
    assert found.error


def test_an_endless_page_is_bounded() -> None:
    """50 MB, of which some are kept; and 1 GB that is small on the way."""

    def answer(path: str) -> tuple[int, dict[str, str], Any]:
        if path == "/bomb":
            packed = gzip.compress(bytes(1 << 20), 9) * 400  # members one after another
            return 200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, packed
        return 200, {"Content-Type": "text/html"}, (b"<p>" + b"word " * 2000 for _ in range(5000))

    endless = Listener(answer)
    try:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        for path in ("/", "/bomb"):
            found = read(Reach(frozenset({("127.0.0.1", endless.port)})), f"http://127.0.0.1:{endless.port}{path}")
            assert found.error or "the page was cut" in found.text or path == "/bomb"
            assert len(found.text) < 20_000
        assert time.monotonic() - begun < 40
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000  # kB
    finally:
        endless.close()
