"""Web engines: SearXNG, one's own or a friend's, and Brave, with a key.

What an engine answers is not trusted: it has a limit of bytes and of time, is JSON of a known shape or refused, and
text and addresses come without marks and control characters. No redirect is followed. The HTTP client is passed in,
so that what it may reach is decided elsewhere. An engine that fails raises a ValueError that the model can read.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twofile.errors import ToolError
from twofile.kernel.driver import Context
from twofile.kernel.label import EVERYBODY, Label
from twofile.tools.search.found import Found
from twofile.tools.search.text import clean, one_line

if TYPE_CHECKING:
    import httpx2

__all__ = ["Brave", "SearXNG"]

_MOST = 2 << 20  # bytes of an answer
_SECONDS = 15.0
_TEXT = 500  # characters of what is said of a page
_TAG = re.compile(r"<[^<>]{0,300}>")


class _Engine:
    """A web engine. `client`: an httpx2.Client, or one that behaves so."""

    name: str
    _refused: str

    def __init__(self, client: httpx2.Client, address: str) -> None:
        host = None
        with contextlib.suppress(ValueError):
            parts = urlsplit(address)
            port = parts.port  # which raises where it is no number
            plain = address.isascii() and address.isprintable() and not set(address) & set(" ?#@\\")
            host = parts.hostname if plain and port != 0 and parts.scheme in ("http", "https") else None
        if not host:
            raise ToolError(f"{address!r} is no address of a search engine", "https://search.example.org")
        self.client, self.address, self.host = client, address.rstrip("/"), host

    @property
    def needs(self) -> Sequence[str]:
        return (f"net:{self.host}",)

    @property
    def label(self) -> Label:
        return Label.of(f"page:{self.address}", EVERYBODY)

    def _ask(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], context: Context) -> Any:
        """The JSON that comes back. ValueError for anything else."""
        import httpx2

        until = time.monotonic() + min(_SECONDS, context.seconds)
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        parts: list[bytes] = []
        size = 0
        try:
            wait = httpx2.Timeout(max(0.1, until - time.monotonic()))
            with self.client.stream(
                "GET", self.address + path, params=query, headers=sent, timeout=wait, follow_redirects=False
            ) as response:
                self._look(response)
                for part in response.iter_raw():  # as it was sent: what is packed would grow
                    parts.append(part)
                    size += len(part)
                    if size > _MOST:
                        raise ValueError(f"{self.name} answers with more than {_MOST >> 20} MB")
                    if time.monotonic() > until or context.cancelled.is_set():
                        raise ValueError(f"{self.name} takes too long to answer")
        except httpx2.TimeoutException:
            raise ValueError(f"{self.name} takes too long to answer") from None
        except httpx2.HTTPError as error:
            raise ValueError(f"{self.name} cannot be reached ({type(error).__name__})") from error
        try:
            return json.loads(b"".join(parts))
        except (ValueError, RecursionError):
            raise ValueError(f"{self.name} answers with something that is no JSON") from None

    def _look(self, response: httpx2.Response) -> None:
        """ValueError, or ToolError for what the user has to mend, where this is no good answer."""
        status = response.status_code
        if status == 429:
            raise ValueError(f"{self.name} has been asked too often; try again later")
        if status in (401, 403):
            raise ToolError(f"{self.name} refuses ({status}): {self._refused}", self._refused)
        if status != 200:
            raise ValueError(f"{self.name} cannot answer now (HTTP {status})")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ValueError(f"{self.name} answers with something that is packed")

    def _results(self, rows: Any, text: str, count: int) -> list[Found]:
        """The results in a list of tables. ValueError where it is none."""
        if not isinstance(rows, list):
            raise ValueError(f"{self.name} answers with something that holds no results")
        found: list[Found] = []
        for row in rows:
            if len(found) == count:
                break
            if not isinstance(row, dict) or not isinstance(address := row.get("url"), str):
                continue
            address = address.strip()
            if not address.lower().startswith(("http://", "https://")) or len(address) > 2000:
                continue
            if not address.isprintable() or " " in address:
                continue
            found.append(Found(_plain(row.get("title"), 200) or address, address, _plain(row.get(text), _TEXT)))
        return found


class SearXNG(_Engine):
    """An instance of SearXNG, whose settings allow JSON."""

    name = "SearXNG"
    _refused = "allow json in its settings.yml (search: formats: [html, json])"

    def search(self, query: str, count: int, context: Context) -> list[Found]:
        table = self._ask("/search", {"q": query, "format": "json"}, {}, context)
        return self._results(table.get("results") if isinstance(table, dict) else None, "content", count)


class Brave(_Engine):
    """Brave's engine. `key`: of its search API. Raises ToolError without one."""

    name = "Brave"
    _refused = "look whether the key is right and still paid for"

    def __init__(self, client: httpx2.Client, key: str, address: str = "https://api.search.brave.com") -> None:
        super().__init__(client, address)
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ToolError("Brave needs the key of its search API", "https://brave.com/search/api")
        self._key = key

    def search(self, query: str, count: int, context: Context) -> list[Found]:
        asked = {"q": query[:400], "count": str(min(20, count))}
        table = self._ask("/res/v1/web/search", asked, {"X-Subscription-Token": self._key}, context)
        web = table.get("web", {"results": []}) if isinstance(table, dict) else None
        return self._results(web.get("results", []) if isinstance(web, dict) else None, "description", count)


def _plain(value: Any, most: int) -> str:
    """What is said of a page, without its marks."""
    if not isinstance(value, str):
        return ""
    return one_line(clean(html.unescape(_TAG.sub("", value[: most * 4]))), most)
