"""Getting a page: redirects are checked one by one, and what has no end is cut."""

from __future__ import annotations

import gzip
import resource
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.tools.browser.web import PUBLIC, Door, Names, Site
from twofile.tools.browser.addresses import Reach, Refused, place
from twofile.tools.browser.fetch import Bounds, Fetched, fetch
from twofile.tools.browser.proxy import Proxy

Sites = Callable[[dict[str, Any]], Site]
HOME = "http://home.example.com"


@contextmanager
def proxy_to(site: Site, **names: list[list[str]]) -> Iterator[Proxy]:
    answers: dict[str, list[list[str]]] = {"home.example.com": [[PUBLIC]]}
    answers |= {name.replace("_", "."): found for name, found in names.items()}
    with Proxy(Reach(resolver=Names(answers)), tcp=True, connect=site.connect) as proxy:
        yield proxy


def got(site: Site, path: str, bounds: Bounds | None = None, **names: list[list[str]]) -> Fetched:
    with proxy_to(site, **names) as proxy:
        return fetch(place(HOME + path), proxy, bounds or Bounds(), time.monotonic() + 20)


def test_a_page(site: Sites) -> None:
    home = site({"/a": ("text/HTML; Charset=\"UTF-8\"", "<p>hé")})
    found = got(home, "/a?b=1")
    assert (found.status, found.mime, found.charset, found.body) == (200, "text/html", "UTF-8", "<p>hé".encode())
    assert home.asked == ["/a?b=1"]
    assert got(home, "/none").status == 404


def test_redirects_are_followed_by_hand(site: Sites) -> None:
    home = site({"/1": "/2", "/2": f"{HOME}/3", "/3": ("text/plain", "here"), "/round": "/round"})
    found = got(home, "/1")
    assert (found.body, found.place.url, found.hops) == (b"here", f"{HOME}/3", (f"{HOME}/1", f"{HOME}/2"))
    with pytest.raises(ValueError, match="more than 8 redirects"):
        got(home, "/round")
    assert home.asked.count("/round") == 9


SPELLED = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]",
           "localhost", "127.0.0.1.", "inside.example.com"]  # fmt: skip


@pytest.mark.parametrize("host", SPELLED)
def test_a_redirect_to_this_machine_is_refused_before_a_packet(host: str, site: Sites, door: Door) -> None:
    home = site({"/": f"http://{host}:{door.port}/", "/80": f"http://{host}/"})
    for path in ("/", "/80"):
        with pytest.raises(Refused):
            got(home, path, inside_example_com=[["127.0.0.1"]])
    assert door.seen == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "localhost"])
def test_a_plain_client_follows_it_there(host: str, site: Sites, door: Door) -> None:
    home = site({"/": f"http://{host}:{door.port}/"})
    with httpx2.Client(follow_redirects=True, trust_env=False) as client:
        assert client.get(f"http://127.0.0.1:{home.port}/").text == "secret"
    assert door.seen == 1


@pytest.mark.parametrize(
    "target",
    ["http://10.0.0.1/", "http://172.16.3.4/", "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data/",
     "http://100.64.0.1/", "http://[::ffff:10.0.0.1]/", "http://[fe80::1]/", "http://[fd00:ec2::254]/", "//10.1/",
     "http://3232235777/", "file:///etc/passwd", "data:text/plain,x", "javascript:1", "ftp://a.com/", "chrome://version",
     "view-source:http://a.com/", "blob:http://a.com/x", "about:blank", "http://user:pass@home.example.com/",
     "http://home.example.com:22/", "http://home.example.com\\@10.0.0.1/"],
)  # fmt: skip
def test_redirects_elsewhere_are_refused(target: str, site: Sites) -> None:
    home = site({"/": target})  # its connect() fails the test where a packet would leave
    with pytest.raises(Refused):
        got(home, "/")
    assert home.asked == ["/"]


def test_rebinding_between_two_redirects(site: Sites, door: Door) -> None:
    home = site({"/": "/again", "/again": ("text/plain", "not reached")})
    with proxy_to(home, evil_example_com=[[PUBLIC], ["127.0.0.1"]]) as proxy, pytest.raises(Refused, match="loopback"):
        fetch(place("http://evil.example.com/"), proxy, Bounds(), time.monotonic() + 20)
    assert home.asked == ["/"]
    assert door.seen == 0


def test_https_goes_through_the_proxy_and_is_verified(site: Sites) -> None:
    home = site({"/": ("text/plain", "no TLS here")})
    with proxy_to(home) as proxy:
        with pytest.raises(ValueError, match="cannot be read"):
            fetch(place("https://home.example.com/"), proxy, Bounds(), time.monotonic() + 5)
        assert (proxy.opened, proxy.refused) == (1, 0)


def memory() -> int:
    """Megabytes that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def test_a_page_of_50_megabytes_is_cut(site: Sites) -> None:
    sent = 0

    def long(handler: Any) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        for _ in range(800):
            handler.wfile.write(b"<p>no end to it" * 4369)
            sent += 65535

    home, before, start = site({"/": long}), memory(), time.monotonic()
    found = got(home, "/")
    assert found.cut
    assert len(found.body) == Bounds().bytes
    assert time.monotonic() - start < 5
    assert sent < 25_000_000  # buffers of sockets and proxy among it
    assert memory() - before < 40


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_does_not_go_off(pack: Callable[[bytes], bytes], site: Sites) -> None:
    bomb = pack(bytes(200_000_000))
    coding = "gzip" if pack is gzip.compress else "deflate"

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Encoding", coding)
        handler.send_header("Content-Length", str(len(bomb)))
        handler.end_headers()
        handler.wfile.write(bomb)

    home, before = site({"/": answer}), memory()
    found = got(home, "/")
    assert found.cut
    assert len(found.body) == Bounds().bytes
    assert memory() - before < 40


def headed(**headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(b"what is it")

    return answer


def test_what_is_not_read(site: Sites) -> None:
    home = site(
        {
            "/zip": headed(Content_Type="application/zip"),
            "/exe": headed(Content_Type="application/x-executable"),
            "/video": headed(Content_Type="video/mp4"),
            "/br": headed(Content_Type="text/html", Content_Encoding="br"),
            "/twice": headed(Content_Type="text/html", Content_Encoding="gzip, gzip"),
            "/broken": headed(Content_Type="text/html", Content_Encoding="gzip"),
        }
    )
    for path in ("/zip", "/exe", "/video", "/br", "/twice", "/broken"):
        with pytest.raises(ValueError, match=r"not read here|not asked for|broken"):
            got(home, path)


def test_a_page_that_drips_is_given_up(site: Sites) -> None:
    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    start = time.monotonic()
    found = got(site({"/": drip}), "/", Bounds(seconds=0.6))
    assert found.cut
    assert found.body
    assert time.monotonic() - start < 2


def test_nothing_is_sent_that_says_who_asks(site: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []

    def answer(handler: Any) -> None:
        heads.append(str(handler.headers).lower())
        handler.send_response(302 if len(heads) == 1 else 200)
        handler.send_header("Set-Cookie", "known=1")
        handler.send_header("Content-Type", "text/plain")
        if len(heads) == 1:
            handler.send_header("Location", "/")
        handler.end_headers()

    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.1:1")
    monkeypatch.setenv("NETRC", "/dev/null")
    got(site({"/": answer}), "/")
    assert len(heads) == 2
    assert not any(word in head for head in heads for word in ("cookie", "authorization", "referer"))
