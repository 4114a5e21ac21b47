"""The proxy: nothing goes to a refused address, a name is resolved once, everything is bounded."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.tools.browser.web import PUBLIC, Door, Names, Site
from twofile.tools.browser.addresses import Reach
from twofile.tools.browser.proxy import Limits, Proxy

Sites = Callable[[dict[str, Any]], Site]


def ask(proxy: Proxy, request: bytes, *, more: bytes = b"", most: int = 1 << 26) -> bytes:
    """Say something to the proxy over its Unix socket, and hear it out."""
    with socket.socket(socket.AF_UNIX) as near:
        near.settimeout(10)
        near.connect(str(proxy.path))
        near.sendall(request)
        heard = b""
        if more:
            heard = near.recv(4096)
            near.sendall(more)
        try:
            while len(heard) < most and (data := near.recv(65536)):
                heard += data
        except ConnectionResetError:
            pass
        return heard


def get(url: str) -> bytes:
    return f"GET {url} HTTP/1.1\r\nHost: whatever\r\n\r\n".encode()


@pytest.mark.parametrize("form", ["CONNECT {}:{} HTTP/1.1\r\n\r\n", "GET http://{}:{}/ HTTP/1.1\r\nHost: a.com\r\n\r\n"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]",
             "localhost", "127.0.0.1.", "evil.example.com"],
)  # fmt: skip
def test_refused_before_a_packet(form: str, host: str, door: Door) -> None:
    names = Names({"evil.example.com": [["127.0.0.1"]]})
    with Proxy(Reach(resolver=names)) as proxy:
        for port in (door.port, 80, 443):
            assert ask(proxy, form.format(host, port).encode()).startswith(b"HTTP/1.1 403 ")
        assert (proxy.opened, proxy.refused, len(proxy.refusals)) == (0, 3, 3)
    assert door.seen == 0


def test_what_the_filter_stops_is_there_without_it(door: Door) -> None:
    with Proxy(Reach(frozenset({("127.0.0.1", door.port)}))) as proxy:
        assert b"secret" in ask(proxy, get(f"http://127.0.0.1:{door.port}/"))
        heard = ask(proxy, f"CONNECT 127.0.0.1:{door.port} HTTP/1.1\r\n\r\n".encode(), more=b"GET / HTTP/1.0\r\n\r\n")
        assert b"secret" in heard
        assert proxy.refused == 0
    assert door.seen == 2


def test_rebinding_changes_nothing_for_a_connection(site: Sites, door: Door) -> None:
    """The name is public when it is checked, and loopback a moment later."""
    home = site({"/": ("text/plain", "the public page")})
    names = Names({"evil.example.com": [[PUBLIC], ["127.0.0.1"]]})
    to: list[str] = []

    async def connect(address: str, port: int) -> Any:
        to.append(address)
        return await home.connect(address, port)

    with Proxy(Reach(resolver=names), connect=connect) as proxy:
        assert b"the public page" in ask(proxy, get("http://evil.example.com/"))
        assert (names.asked, to) == (["evil.example.com"], [PUBLIC])
        assert b" 403 " in ask(proxy, get("http://evil.example.com/"))
        assert to == [PUBLIC]
    assert door.seen == 0


def test_hosts_are_permitted_before_they_are_resolved(site: Sites) -> None:
    names = Names({"a.example.com": [[PUBLIC]], "b.example.com": [[PUBLIC]]})
    home = site({"/": ("text/plain", "hello")})
    with Proxy(Reach(resolver=names), lambda host: host == "a.example.com", connect=home.connect) as proxy:
        assert b"hello" in ask(proxy, get("http://A.example.com./"))
        assert b"was not granted" in ask(proxy, get("http://b.example.com/"))
        assert names.asked == ["a.example.com"]  # a look-up would have told somebody


def test_the_request_that_is_sent_on_is_for_the_host_that_was_checked(site: Sites) -> None:
    heads: list[str] = []

    def answer(handler: Any) -> None:
        heads.append(str(handler.headers))
        handler.send_response(200)
        handler.end_headers()

    home = site({"/p": answer})
    with Proxy(Reach(resolver=Names({"a.example.com": [[PUBLIC]]})), connect=home.connect) as proxy:
        ask(
            proxy,
            b"GET http://a.example.com/p?q HTTP/1.1\r\nHost: inside.corp\r\nProxy-Authorization: Basic c2VjcmV0\r\n"
            b"HOST : inside.corp\r\nConnection: keep-alive\r\nX-Other: 1\r\n\r\n",
        )
    assert heads[0].lower().count("host") == 1
    assert "Host: a.example.com\n" in heads[0]
    assert "c2VjcmV0" not in heads[0]
    assert "X-Other: 1" in heads[0]
    assert home.asked == ["/p?q"]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET https://a.com/ HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n",
        b"GET file:///etc/passwd HTTP/1.1\r\n\r\n", b"CONNECT a.com HTTP/1.1\r\n\r\n", b"CONNECT /etc HTTP/1.1\r\n\r\n",
        b"CONNECT a.com:0 HTTP/1.1\r\n\r\n", b"CONNECT a.com:99999 HTTP/1.1\r\n\r\n", b"CONNECT u@a.com:80 HTTP/1.1\r\n\r\n",
        b"GET http://u:p@a.com/ HTTP/1.1\r\n\r\n", b"GET ftp://a.com/ HTTP/1.1\r\n\r\n", b"\xff\xfe\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n", b"CONNECT a.com:22 HTTP/1.1\r\n\r\n", b"CONNECT a.com:80 SSH-2.0\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request(request_: bytes) -> None:
    with Proxy(Reach(resolver=Names({"a.com": [["127.0.0.1"]]}))) as proxy:
        assert ask(proxy, request_).startswith(b"HTTP/1.1 403 ")
        assert proxy.opened == 0


def test_a_head_without_end_is_cut() -> None:
    with Proxy(Reach()) as proxy:
        assert ask(proxy, b"GET http://a.com/" + b"x" * 60_000) == b""


def test_over_tcp_only_for_who_knows_its_token(door: Door) -> None:
    with Proxy(Reach(frozenset({("127.0.0.1", door.port)})), tcp=True) as proxy:
        for head in (b"", b"Proxy-Authorization: Basic dHdvZmlsZTp4\r\n"):
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as near:
                near.sendall(f"CONNECT 127.0.0.1:{door.port} HTTP/1.1\r\n".encode() + head + b"\r\n")
                assert near.recv(4096).startswith(b"HTTP/1.1 407 ")
    assert door.seen == 0


def endless(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def test_bytes_are_bounded_each_and_in_all(site: Sites) -> None:
    home = site({"/": endless})
    limits = Limits(bytes_each=1 << 20, bytes_all=5 << 19)
    reach = Reach(resolver=Names({"a.example.com": [[PUBLIC]]}))
    with Proxy(reach, limits=limits, connect=home.connect) as proxy:
        sizes = [len(ask(proxy, get("http://a.example.com/"))) for _ in range(4)]
        assert max(sizes) <= 1 << 20
        assert sum(sizes) <= 5 << 19
        assert sizes[0] > 1 << 19
        assert sizes[3] < 1000
        assert "went through already" in proxy.refusals[-1].why


def test_seconds_are_bounded(site: Sites) -> None:
    def drip(handler: Any) -> None:
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    def still(handler: Any) -> None:
        time.sleep(3)

    home = site({"/drip": drip, "/still": still})
    limits = Limits(seconds_each=0.8, seconds_idle=0.3)
    with Proxy(Reach(resolver=Names({"a.com": [[PUBLIC]]})), limits=limits, connect=home.connect) as proxy:
        for path, least, most in (("drip", 0.6, 1.6), ("still", 0.2, 0.75)):
            start = time.monotonic()
            ask(proxy, get(f"http://a.com/{path}"))
            assert least < time.monotonic() - start < most


def test_connections_are_bounded(site: Sites) -> None:
    home = site({"/": endless})
    with Proxy(Reach(resolver=Names({"a.com": [[PUBLIC]]})), limits=Limits(at_once=3), connect=home.connect) as proxy:
        held = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for one in held:
            one.connect(str(proxy.path))
            one.sendall(get("http://a.com/"))
            assert one.recv(10)
        assert b"too many" in ask(proxy, get("http://a.com/"))
        for one in held:
            one.close()


def test_the_end_cuts_everything_and_leaves_nothing(site: Sites) -> None:
    home = site({"/": endless})
    before = threading.active_count()
    slow = threading.Event()

    def resolver(host: str) -> list[str]:
        slow.wait(5)
        return [PUBLIC]

    proxy = Proxy(Reach(frozenset({(PUBLIC, 80)}), resolver), connect=home.connect)
    with proxy, socket.socket(socket.AF_UNIX) as near, socket.socket(socket.AF_UNIX) as other:
        near.connect(str(proxy.path))
        near.sendall(get(f"http://{PUBLIC}/"))
        assert near.recv(10)
        other.connect(str(proxy.path))
        other.sendall(get("http://slow.example.com/"))
        time.sleep(0.1)
        start = time.monotonic()
        proxy.close()
        assert time.monotonic() - start < 2
        near.settimeout(2)
        with pytest.raises(ConnectionError):
            while near.recv(1 << 20):
                pass
            raise ConnectionError
    slow.set()
    assert not proxy.path.exists()
    assert threading.active_count() <= before + 3  # the look-up's, and the site's
