"""Getting one page without rendering it: through the proxy, redirects by hand, and nothing without a bound.

At most `Bounds.bytes` of a body are kept, whatever its length or how it is compressed, and reading stops there; the
answer says that it was cut. Only kinds that are understood are read: text, HTML, JSON, XML, PDF and common pictures.
No cookie, no environment, no credential is sent.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from twofile.tools.browser.addresses import Place, Refused, place
from twofile.tools.browser.proxy import Proxy

__all__ = ["Bounds", "Fetched", "fetch"]

_AGENT = "Mozilla/5.0 (compatible; twofile; a person's own reader)"
_TEXT = ("application/json", "application/ld+json", "application/xhtml+xml", "application/xml", "application/pdf",
         "application/rss+xml", "application/atom+xml", "application/javascript")  # fmt: skip
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Bounds:
    """Of one page: bytes of its body that are kept, redirects, seconds for all of it."""

    bytes: int = 5_000_000
    redirects: int = 8
    seconds: float = 30.0


@dataclass(frozen=True)
class Fetched:
    """A page as it came. `charset` as the server says it, "" where it does not; `cut`: there was more."""

    place: Place
    status: int
    mime: str
    charset: str
    body: bytes
    cut: bool
    hops: tuple[str, ...] = ()


def fetch(start: Place, proxy: Proxy, bounds: Bounds, deadline: float) -> Fetched:
    """Get a page; `proxy` listens on TCP, and `deadline` is of time.monotonic(). Refused or ValueError says why not."""
    import httpx2

    deadline = min(deadline, time.monotonic() + bounds.seconds)
    at = start
    hops: list[str] = []
    with httpx2.Client(proxy=proxy.url, trust_env=False, follow_redirects=False) as client:
        while True:
            answer = _once(client, at, proxy, bounds, deadline)
            if isinstance(answer, Fetched):
                return Fetched(**{**answer.__dict__, "hops": tuple(hops)})
            hops.append(at.url)
            if len(hops) > bounds.redirects:
                raise ValueError(f"{start.url} leads on and on: more than {bounds.redirects} redirects")
            target = place(answer)
            if at.scheme == "https" and target.scheme == "http" and target.host != at.host:
                raise Refused(f"{at.url} leads from https to {target.url[:300]}: ask for that by itself")
            at = target


def _once(client: Any, at: Place, proxy: Proxy, bounds: Bounds, deadline: float) -> Fetched | str:
    """What is at an address, or where that leads."""
    import httpx2

    client.cookies.clear()
    headers = {"User-Agent": _AGENT, "Accept": "text/html,*/*;q=0.5", "Accept-Encoding": "gzip"}
    refused = proxy.refused
    left = max(0.1, deadline - time.monotonic())
    try:
        with client.stream("GET", at.url, headers=headers, timeout=left) as answer:
            if proxy.refused > refused:
                raise Refused(proxy.refusals[-1].why)
            if answer.status_code in _REDIRECTS and (target := answer.headers.get("location")):
                return urljoin(at.url, str(target))
            mime, charset = _kind(answer.headers.get("content-type", ""))
            if not (mime in _TEXT or mime in _IMAGES or mime.startswith("text/")):
                raise ValueError(f"{at.url} is {mime or 'of no kind'}, which is not read here")
            coding = answer.headers.get("content-encoding", "").strip().lower()
            body, cut = _body(answer.iter_raw(), coding, bounds.bytes, deadline)
            return Fetched(at, answer.status_code, mime, charset, body, cut)
    except httpx2.HTTPError as error:
        if proxy.refused > refused:
            raise Refused(proxy.refusals[-1].why) from None
        raise ValueError(f"{at.url} cannot be read ({type(error).__name__}: {str(error)[:200]})") from None


def _kind(said: str) -> tuple[str, str]:
    mime, _, rest = said.partition(";")
    charset = ""
    for one in rest.split(";"):
        name, _, value = one.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip("\"'")[:40]
    return mime.strip().lower() or "text/html", charset


def _body(chunks: Iterator[bytes], coding: str, most: int, deadline: float) -> tuple[bytes, bool]:
    """The body, decompressed, up to `most` bytes; whether there was more. What breaks off is kept as far as it came."""
    if coding in ("gzip", "x-gzip", "deflate"):
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    elif coding in ("", "identity"):
        inflate = None
    else:
        raise ValueError(f"it is compressed in a way that was not asked for ({coding[:40]})")
    import httpx2

    kept = bytearray()
    try:
        for chunk in chunks:
            try:
                kept += chunk if inflate is None else inflate.decompress(chunk, most + 1 - len(kept))
            except zlib.error:
                raise ValueError("its compression is broken") from None
            if len(kept) > most:
                return bytes(kept[:most]), True
            if time.monotonic() > deadline:
                return bytes(kept), True
            if inflate is not None and inflate.eof:
                break
    except httpx2.HTTPError:
        if not kept:
            raise
        return bytes(kept), True
    return bytes(kept), False
