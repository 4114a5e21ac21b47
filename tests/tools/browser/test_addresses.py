"""Which addresses may be reached: forbidden ones are refused however they are written, public ones are not."""

from __future__ import annotations

import ipaddress
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.browser.web import PUBLIC, Door, Names
from twofile.tools.browser.addresses import Reach, Refused, forbidden, normal_host, place

LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7F.1", "017700000001", "0177.0.0.01",
    "0x7f.0.0x0.1", "127.255.255.254", "0", "0.0.0.0", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::]", "localhost",
]  # fmt: skip  # these reach this machine, see below
ODD = [
    "127.0.0.1.", "127.1..", "１２７.０.０.１", "127。0。0。1", "127｡0｡0｡1", "①②⑦.0.0.1", "%31%32%37.0.0.1", "127.0.0.%31",
    "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::127.0.0.1]", "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[2001:db8::5efe:127.0.0.1]", "[2606:4700::5efe:7f00:1]", "[fe80::1%eth0]",
    "[::1%25lo]", "LOCALHOST.", "loc\u00adalhost", "ｌｏｃａｌｈｏｓｔ", "a.localhost", "localhost.localdomain.local",
    "4294967297", "0x17f000001", "127.0.0.256", "127.0.0.1.1", "08.0.0.1", "0x", "1.2.3.4.0x", "256", "router",
]  # fmt: skip
FORBIDDEN = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "169.254.0.1",
    "100.64.0.1", "100.127.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "0.1.2.3",
    "192.88.99.1", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]",
    "[2002:c0a8:1::]", "[2001::1]", "[3fff::1]", "[100::1]", "[5f00::1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]",
    "[::ffff:100.64.0.1]", "[::ffff:192.168.1.1]", "[64:ff9b::a00:1]", "[::a00:1]", "3232235521", "0xa9fea9fe",
    "0251.0376.0251.0376", "10.1", "192.168.257",
]  # fmt: skip
ALLOWED = [PUBLIC, "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "[2606:4700::1111]", "[::ffff:1.1.1.1]",
           "[64:ff9b::101:101]", "16843009"]  # fmt: skip


@pytest.mark.parametrize("host", [*LOOPBACK, *ODD, *FORBIDDEN])
def test_refused_without_a_look_up(host: str) -> None:
    names = Names({})
    reach = Reach(resolver=names)
    with pytest.raises(Refused):
        reach.addresses(host, 80)
    with pytest.raises(Refused):
        asked = place(f"http://{host}/")
        reach.addresses(asked.host, asked.port)
    assert names.asked == []


@pytest.mark.parametrize("host", LOOPBACK)
def test_without_the_filter_these_reach_this_machine(host: str) -> None:
    plain = host.strip("[]")
    door = Door("::1" if plain in ("::1", "0:0:0:0:0:0:0:1") else "::" if plain == "::" else "0.0.0.0")
    try:
        with socket.create_connection((plain, door.port), timeout=5) as near:
            near.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"secret" in near.recv(4096)
    finally:
        door.close()


@pytest.mark.parametrize("host", [host for host in FORBIDDEN if ":" in host or re.fullmatch(r"\d{1,3}(\.(0|[1-9]\d*)){3}", host)])
def test_refused_as_what_a_name_stands_for(host: str) -> None:
    address = str(ipaddress.ip_address(host.strip("[]")))
    for answer in ([address], [PUBLIC, address], [address, PUBLIC]):
        with pytest.raises(Refused, match="its address is"):
            Reach(resolver=Names({"evil.example.com": [answer]})).addresses("evil.example.com", 443)


@pytest.mark.parametrize("host", ALLOWED)
def test_public_addresses_are_not_refused(host: str) -> None:
    assert len(Reach().addresses(host, 443)) == 1


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_forbidden_in_all_its_spellings(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    a, b, c, d = address.packed
    spelled = [
        str(number), hex(number), f"0{number:o}", f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}",
        f"0x{a:X}.0{b:o}.{c}.{d}", f"{a}.{b}.{c}.{d}.",
    ]  # fmt: skip
    assert {normal_host(one) for one in spelled} == {str(address)}
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert forbidden(mapped) == forbidden(address)
    if not address.is_global or address.is_multicast:  # the standard library's own table, as the lower bound
        assert forbidden(address)


@given(st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address))
def test_what_python_calls_not_global_is_forbidden(address: ipaddress.IPv6Address) -> None:
    if (not address.is_global or address.is_multicast) and address.ipv4_mapped is None:
        assert forbidden(address)


def test_the_machines_own_address_is_none_of_the_web() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((PUBLIC, 9))  # sends nothing, chooses an address
        own = probe.getsockname()[0]
    with pytest.raises(Refused):
        Reach().addresses(own, 80)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "FILE:///etc/passwd", "data:text/html,x", "chrome://version", "view-source:http://a.com/",
        "blob:http://a.com/1", "about:blank", "about:config", "javascript:alert(1)", "ftp://a.com/", "gopher://a.com",
        "ws://a.com/", "filesystem:http://a.com/t", "devtools://x", "http:", "http://", "http:///x", "//a.com/", "a.com",
        "", "http://user@a.com/", "http://a.com@127.0.0.1/", "http://127.0.0.1@a.com/", "http://a.com\\@127.0.0.1/",
        "http://127.0.0.1\\.a.com/", "http://a.com /", "http://a.com\n/", "http://a\x00.com/", "http://[::1/",
        "http://::1/", "http://[::1]x/", "http://[::1].a.com/", "http://a.com:port/", "http://a.com:99999/",
        "http://a..com/", "http://-a.com/", "http://a%2fb.com/", "http://a%00.com/", "http://%ff.com/", "http://a_b%.com/",
        "http://a.com:80:80/", "http://" + "a" * 64 + ".com/", "http://a.com/" + "x" * 5000, "http://xn--a-.com/é@",
    ],
)  # fmt: skip
def test_what_is_no_address_of_the_web(url: str) -> None:
    with pytest.raises(Refused):
        asked = place(url)
        Reach(resolver=Names({"xn--a-.com": [["127.0.0.1"]]})).addresses(asked.host, asked.port)


def test_how_an_address_is_written() -> None:
    assert place(" HTTPS://BÜCHER.example:443/ä?q=ö&b=%20#teil ").url == (
        "https://xn--bcher-kva.example/%C3%A4?q=%C3%B6&b=%20"
    )
    assert place("http://a.com:8080").url == "http://a.com:8080/"
    assert place("http://[2606:4700:0::1111]/").host == "2606:4700::1111"


def test_only_the_ports_of_the_web_and_what_is_allowed() -> None:
    reach = Reach(frozenset({("127.0.0.1", 8123), ("pages.test", 81)}), Names({"pages.test": [["127.0.0.1"]]}))
    assert reach.addresses("127.0.0.1", 8123) == ["127.0.0.1"]
    assert reach.addresses("0x7f.1", 8123) == ["127.0.0.1"]
    assert reach.addresses("pages.test", 81) == ["127.0.0.1"]
    for host, port in (("127.0.0.1", 8124), ("127.0.0.2", 8123), ("pages.test", 80), (PUBLIC, 22), ("1.1.1.1", 8080)):
        with pytest.raises(Refused):
            reach.addresses(host, port)


def test_a_resolver_that_gives_no_addresses() -> None:
    for answer in ([], ["nonsense"], ["fe80::1%eth0"], ["127.0.0.1 "]):
        with pytest.raises(Refused):
            Reach(resolver=Names({"a.com": [answer]})).addresses("a.com", 80)
