"""Which addresses the browser may reach: public ones, on the ports of the web, and no others in any spelling.

A host is read as the most lenient resolver would read it (decimal, octal and hexadecimal parts, short forms,
full-width digits, percent-escapes, IPv6 that carries IPv4); what none reads without doubt is refused. A name is
resolved once, and it is refused as a whole where ANY of its addresses is forbidden: a name that stands for a public
and a private address at once is how rebinding begins, and no honest site needs it. What is given back are addresses:
who connects to them does not resolve again.

Cost: one look-up by name for each connection, none for a literal address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

__all__ = ["Address", "Place", "Reach", "Refused", "Resolver", "forbidden", "normal_host", "place", "system_resolver"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str], Sequence[str]]

_WEB = {"http": 80, "https": 443}
_PORTS = frozenset(_WEB.values())
_LONGEST = 4096  # characters of a URL
_LOCAL_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "home.arpa")

_FORBIDDEN_4 = {
    "0.0.0.0/8": "unspecified", "10.0.0.0/8": "private", "100.64.0.0/10": "carrier-grade", "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "metadata", "169.254.0.0/16": "link-local", "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved", "192.0.2.0/24": "reserved", "192.88.99.0/24": "reserved", "192.168.0.0/16": "private",
    "198.18.0.0/15": "reserved", "198.51.100.0/24": "reserved", "203.0.113.0/24": "reserved",
    "224.0.0.0/4": "multicast", "240.0.0.0/4": "reserved",
}  # fmt: skip
_FORBIDDEN_6 = {
    "::/128": "unspecified", "::1/128": "loopback", "fc00::/7": "private", "fe80::/10": "link-local",
    "fec0::/10": "private", "ff00::/8": "multicast", "2001::/23": "reserved", "2001:db8::/32": "reserved",
    "2002::/16": "reserved", "3fff::/20": "reserved",
}  # fmt: skip
_TABLE_4 = [(ipaddress.IPv4Network(net), why) for net, why in _FORBIDDEN_4.items()]
_TABLE_6 = [(ipaddress.IPv6Network(net), why) for net, why in _FORBIDDEN_6.items()]
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(ValueError):  # noqa: N818
    """An address that may not be reached; says why."""


@dataclass(frozen=True)
class Place:
    """A URL as it is used: `host` in ASCII, without brackets; `url` rebuilt from its parts, without the fragment."""

    scheme: str
    host: str
    port: int
    url: str
    fragment: str = ""


def place(url: str) -> Place:
    """Read a URL. Refused for one that is no plain http or https address."""
    url = url.strip()
    if len(url) > _LONGEST:
        raise Refused(f"an address has at most {_LONGEST} characters")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise Refused("an address has no blanks, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"{url[:100]!r} is no address: {error}") from None
    if parts.scheme not in _WEB:
        raise Refused(f"only http:// and https:// addresses are read, not {parts.scheme or url[:40]!r}")
    if "@" in parts.netloc:
        raise Refused("an address with a user's name in it is not read")
    if not parts.netloc or parts.hostname is None:
        raise Refused(f"{url[:100]!r} names no host")
    named = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d*)?", parts.netloc)
    if named is None:
        raise Refused(f"{url[:100]!r} names no host")
    host = normal_host(named[1])
    if port is None:
        port = _WEB[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port == _WEB[parts.scheme] else f"{shown}:{port}"
    path = re.sub(r"[^\x21-\x7e]", lambda found: _escaped(found[0]), parts.path or "/")
    query = re.sub(r"[^\x21-\x7e]", lambda found: _escaped(found[0]), parts.query)
    return Place(parts.scheme, host, port, urlunsplit((parts.scheme, netloc, path, query, "")), parts.fragment)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


def normal_host(host: str) -> str:
    """A host in its one spelling: an address as `ipaddress` writes it, or a name in lower-case ASCII. Refused for what
    is neither."""
    said = host
    host = host if host.startswith("[") else unquote(host)  # what is no UTF-8 becomes a character that no host has
    host = unicodedata.normalize("NFKC", host).casefold()
    host = "".join("." if c in "。．｡" else c for c in host if unicodedata.category(c) != "Cf")
    if host.startswith("[") or ":" in host:
        inside = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            found = ipaddress.IPv6Address(inside)
        except ValueError:
            raise Refused(f"{said[:100]!r} is no host") from None
        if found.scope_id is not None:
            raise Refused(f"{said[:100]!r} is of one link alone (it has a zone)")
        return str(found)
    host = host.rstrip(".")
    last = host.rpartition(".")[2]
    if re.fullmatch(r"\d+|0x[0-9a-f]*", last):
        return str(_lenient_4(host))
    if not host.isascii():
        host = _idna(host, said)
    if len(host) > 253 or not re.fullmatch(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", host):
        raise Refused(f"{said[:100]!r} is no host")
    return host


def _idna(host: str, said: str) -> str:
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise Refused(f"{said[:100]!r} is no host") from None


def _lenient_4(host: str) -> ipaddress.IPv4Address:
    """An IPv4 address in any spelling of inet_aton. Refused for one that resolvers read differently."""
    parts = host.split(".")
    values = []
    for part in parts:
        if re.fullmatch(r"0x[0-9a-f]+", part):
            values.append(int(part, 16))
        elif re.fullmatch(r"0[0-7]*", part):
            values.append(int(part, 8))
        elif re.fullmatch(r"[1-9]\d*", part) and len(part) <= 10:
            values.append(int(part))
        else:
            raise Refused(f"{host[:100]!r} is no address")
    *front, last = values
    if len(parts) > 4 or any(value > 255 for value in front) or last >= 256 ** (5 - len(parts)):
        raise Refused(f"{host[:100]!r} is no address")
    number = last
    for at, value in enumerate(front):
        number |= value << (24 - 8 * at)
    return ipaddress.IPv4Address(number)


def forbidden(address: Address) -> str:
    """Why an address may not be reached, "" where it may. IPv6 that carries IPv4 is what it carries, where machines
    reach it that way (mapped, NAT64); what only tunnels and old forms reach (6to4, Teredo, compatible) is refused."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((why for net, why in _TABLE_4 if address in net), "")
    if address.ipv4_mapped is not None:
        return forbidden(address.ipv4_mapped)
    if address in _NAT64:
        return forbidden(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    for net, why in _TABLE_6:
        if address in net:
            return why
    if (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE:  # ISATAP: an IPv4 address as the interface
        return "reserved"
    return "" if address in _GLOBAL_6 else "reserved"


def _own(address: Address) -> bool:
    """Whether an address is one of this machine's: what listens here for all of them is not the public web."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))  # sends nothing
    except OSError:
        return False
    return True


def system_resolver(host: str) -> Sequence[str]:
    """The addresses of a name, as this machine resolves it. OSError where there are none."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@dataclass(frozen=True)
class Reach:
    """What may be reached: public addresses on ports 80 and 443, and beside them `allowed`, pairs of host and port as
    they stand in URLs, whatever address they have (for what a person serves himself)."""

    allowed: frozenset[tuple[str, int]] = frozenset()
    resolver: Resolver = system_resolver

    def host(self, host: str, port: int) -> str:
        """The host in its one spelling, if what can be known without a look-up does not forbid it. Refused says why."""
        host = normal_host(host)
        if (host, port) in self.allowed:
            return host
        if port not in _PORTS:
            raise Refused(f"port {port} is none of the web's ({', '.join(map(str, sorted(_PORTS)))})")
        literal = _literal(host)
        if literal is not None:
            self._check(host, literal)
        elif "." not in host or any(host.endswith(f".{name}") for name in _LOCAL_NAMES):
            raise Refused(f"{host} is a name of this machine or its network")
        return host

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses to connect to, resolved once. Refused says why there are none."""
        host = self.host(host, port)
        literal = _literal(host)
        try:
            found = [literal] if literal is not None else [_of_resolver(one) for one in self.resolver(host)]
        except (OSError, UnicodeError) as error:
            raise Refused(f"{host} is not found ({error})") from None
        if not found:
            raise Refused(f"{host} is not found")
        if (host, port) not in self.allowed:
            for one in found:
                self._check(host, one)
        return [str(one) for one in found]

    def _check(self, host: str, address: Address) -> None:
        why = forbidden(address) or ("this machine's own" if _own(address) else "")
        if why:
            shown = host if host == str(address) else f"{host} ({address})"
            raise Refused(f"{shown} is refused: its address is {why}")


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _of_resolver(said: str) -> Address:
    try:
        return ipaddress.ip_address(said)
    except ValueError:  # with a zone that is none, or no address at all
        raise Refused(f"the name leads to {said[:60]!r}, which is no address") from None
