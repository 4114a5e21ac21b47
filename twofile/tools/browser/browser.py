"""The driver that reads pages of the web: as text to begin with, in a real Chromium where a page needs it.

A call names one address and needs `net:HOST` of it. Where the page leads elsewhere, by a redirect or by what it loads,
`permit` decides about each host; without one, only the host itself and those below it are reached, and the model is
told what it may ask for by itself. Whatever is granted, only the public web is reached (`addresses`, `proxy`).

Nothing is kept between calls: each has its own proxy, its own Chromium, no cookies. Cost: a half to one second beside
the network for a page as text, two to five when it is rendered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twofile.kernel.driver import Context, Part, image, text
from twofile.kernel.label import Label
from twofile.tools.browser.addresses import Place, Reach, place
from twofile.tools.browser.chromium import about_pages, render
from twofile.tools.browser.fetch import Bounds, fetch
from twofile.tools.browser.proxy import Dial, Limits, Proxy, Refusal, dial
from twofile.tools.browser.reader import understood
from twofile.tools.browser.reading import Reading

__all__ = ["Browser", "Settings", "same_site"]

_LITTLE = 200  # characters: a page that says less, and has scripts, may need rendering


def same_site(host: str, first: str) -> bool:
    """Whether a host is the one that was asked for, or below it; a leading www. is none of the name's."""
    first = first.removeprefix("www.")
    return host == first or (host.endswith("." + first) and "." in first and not first.replace(".", "").isdigit())


@dataclass(frozen=True)
class Settings:
    """How the browser reads. `permit(process, host)` decides about hosts that a page leads to; `part`: characters."""

    reach: Reach = field(default_factory=Reach)
    permit: Callable[[int, str], bool] | None = None
    bounds: Bounds = field(default_factory=Bounds)
    limits: Limits = field(default_factory=Limits)
    part: int = 8000
    seconds_to_render: float = 30.0
    connect: Dial = dial


class Browser:
    """The driver."""

    name = "browser"
    about = "Reads a page of the web as text with numbered links. Long pages come in parts."
    pure = False
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "begins with https:// or http://"},
            "part": {"type": "integer", "minimum": 1, "description": "which part of a long page"},
            "find": {"type": "string", "description": "go to the part that has these words"},
            "render": {"type": "boolean", "description": "run the page's scripts first"},
            "screenshot": {"type": "boolean", "description": "give a picture of it too"},
        },
        "required": ["url"],
        "additionalProperties": False,
    }

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return (f"net:{self._place(arguments).host}",)

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label.of(f"page:{self._place(arguments).url}")

    def _place(self, arguments: Mapping[str, Any]) -> Place:
        asked = place(str(arguments.get("url", "")))
        self._settings.reach.host(asked.host, asked.port)
        return asked

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        settings, asked = self._settings, self._place(arguments)
        permit = settings.permit
        deadline = context.deadline - min(1.0, 0.05 * context.seconds)  # so that there is time to say what happened

        def permitted(host: str) -> bool:
            if context.cancelled.is_set():
                return False
            return host == asked.host or (
                same_site(host, asked.host) if permit is None else permit(context.process, host)
            )

        rendered = bool(arguments.get("render") or arguments.get("screenshot"))
        with Proxy(settings.reach, permitted, settings.limits, tcp=not rendered, connect=settings.connect) as proxy:
            yield from (self._rendered if rendered else self._fetched)(asked, arguments, context, proxy, deadline)

    def _fetched(
        self, asked: Place, arguments: Mapping[str, Any], context: Context, proxy: Proxy, deadline: float
    ) -> Iterable[Part]:
        page = fetch(asked, proxy, self._settings.bounds, deadline)
        notes = [f"the server answered with status {page.status}"] if page.status >= 400 else []
        if page.cut:
            notes.append(f"the page was cut: only its first {len(page.body):,} bytes were read")
        if page.mime.startswith("image/"):
            if page.cut:
                raise ValueError(f"the picture at {page.place.url} is too large to be shown")
            yield image(page.body, page.mime, f"the picture at {page.place.url}")
            return
        view = understood(page.body, page.mime, page.charset, page.place.url, deadline - time.monotonic())
        if len(view.text) < _LITTLE and view.scripts:
            notes.append("the page says little without its scripts: render true may show more")
        yield text(self._written(view, page.place.url, arguments, notes))

    def _rendered(
        self, asked: Place, arguments: Mapping[str, Any], context: Context, proxy: Proxy, deadline: float
    ) -> Iterable[Part]:
        until = min(deadline, time.monotonic() + self._settings.seconds_to_render)
        picture = bool(arguments.get("screenshot"))
        page = render(asked.url, proxy, until, context.cancelled, picture=picture)
        notes = [f"the server answered with status {page.status}"] if page.status >= 400 else []
        if page.cut:
            notes.append("the page was cut: it is too long")
        if refused := about_pages(proxy.refusals):
            notes.append(_listed(refused))
        view = understood(page.html.encode(), "text/html", "utf-8", page.url, deadline - time.monotonic())
        yield text(self._written(view, page.url, arguments, notes))
        if page.picture:
            yield image(page.picture, "image/png", f"a picture of {page.url}: {view.title or 'no title'}")

    def _written(self, view: Reading, url: str, arguments: Mapping[str, Any], notes: list[str]) -> str:
        """One part of a page, with its head, and the targets of the links that are in it."""
        parts = _parts(view.text, self._settings.part)
        number = int(arguments.get("part", 1))
        if not 1 <= number <= len(parts):
            raise ValueError(
                f"the page has {len(parts)} part{'s' if len(parts) > 1 else ''}, there is no part {number}"
            )
        if words := " ".join(str(arguments.get("find", "")).lower().split()):
            where = [at for at, part in enumerate(parts, 1) if at >= number and words in " ".join(part.lower().split())]
            if where:
                number = where[0]
            notes.append(
                f"{words!r} is in part {', '.join(map(str, where[:20]))}" if where else f"{words!r} is not found"
            )
        if view.hidden:
            notes.append(f"passages that a person does not see, marked [hidden: ...]: {view.hidden}")
        if view.cut:
            notes.append("the text is longer than is kept")
        part = parts[number - 1]
        head = [f"# {view.title}"] if view.title else []
        head += [f"address: {url}", *([f"date: {view.date}"] if view.date else [])]
        if len(parts) > 1:
            head.append(f"part {number} of {len(parts)}")
        head += [f"[{note}]" for note in notes]
        targets = [f"[{n}] {link}" for n, link in enumerate(view.links, 1) if f"[{n}]" in part]
        return "\n".join(head) + "\n\n" + (part or "[no text]") + ("\n\n" + "\n".join(targets) if targets else "")


def _parts(said: str, most: int) -> list[str]:
    """A text in parts of at most so many characters, between paragraphs or lines where that is possible."""
    parts: list[str] = []
    while len(said) > most:
        at = max(said.rfind("\n\n", most // 2, most), said.rfind("\n", most * 3 // 4, most))
        at = at if at > 0 else max(said.rfind(" ", most // 2, most), 0) or most
        parts.append(said[:at].rstrip())
        said = said[at:].lstrip("\n")
    return [*parts, said]


def _listed(refused: list[Refusal]) -> str:
    """What a page was not given, in one line."""
    hosts = list(dict.fromkeys(one.host for one in refused if one.host))
    more = f" and {len(hosts) - 5} more" if len(hosts) > 5 else ""
    return f"{len(refused)} requests of the page were refused: {', '.join(hosts[:5])}{more}"
