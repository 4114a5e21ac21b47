"""The frame around every page: where one can go, the theme, notices, and errors in words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from nicegui import context, ui
from nicegui.element import Element

from twofile.errors import TwofileError
from twofile.html.figures import short_span
from twofile.serve.pages.parts import Dialog, button, el, link, words

__all__ = ["PLACES", "ago", "confirm", "framed", "guarded", "in_thread", "notice", "watch"]

PLACES = {"/": "Chat", "/inside": "Inside", "/train": "Train", "/library": "Library", "/processes": "Processes"}
"""The pages, by their addresses."""

_SIGNS = {"/": "✎", "/inside": "◎", "/train": "↗", "/library": "▤", "/processes": "≡"}

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def framed(place: str, classes: str = "") -> Iterator[Element]:
    """The frame of a page; what is made within is its main part. `place`: of `PLACES`."""
    if (outer := context.client.content.parent_slot) is not None:
        outer.parent.props["role"] = "presentation"  # NiceGUI's own <main>: the page has one
    el("a", "skip", "To the content", href="#main")
    with el("header", "bar"):
        link("twofile", "/", "mark")
        with el("nav", aria_label="Pages"):
            for number, (address, name) in enumerate(PLACES.items(), 1):
                here = "page" if address == place else None
                with link("", address, aria_current=here, data_key=f"alt+{number}", title=f"{name} (Alt+{number})"):
                    el("span", "sign", _SIGNS[address], aria_hidden="true")
                    el("span", "name", name)
        button("◐", None, "theme quiet", aria_label="Light or dark", title="Light or dark")
    with el("main", f"page {classes}", id_="main") as main:
        main.props["id"] = "main"
        yield main
    with el("div", "notices", role="status", aria_live="polite") as notices:
        context.client.notices = notices  # type: ignore[attr-defined]


def notice(text: str, kind: str = "") -> None:
    """Tell the person something, for a while. `kind`: "" or "error"."""
    with context.client.notices:  # type: ignore[attr-defined]
        with el("div", f"notice {kind}") as shown:
            el("span", text=text)
            button("×", shown.delete, "quiet", aria_label="Dismiss")
        ui.timer(12 if kind else 5, lambda: None if shown.is_deleted else shown.delete(), once=True)


def guarded(handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T | None]]:
    """A handler whose errors are told to the person."""

    @wraps(handler)
    async def safe(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return await handler(*args, **kwargs)
        except TwofileError as error:
            notice(f"{error.message}{f'. {error.hint}' if error.hint else ''}", "error")
        except (OSError, ValueError) as error:
            notice(str(error), "error")
        return None

    return safe


def confirm(question: str, act: str, then: Callable[[], Any]) -> None:
    """Ask before something is done that cannot be undone."""
    with context.client.content:
        dialog = Dialog(question, lambda: dialog.delete())
    with dialog:
        words("This cannot be undone.")
        with el("div", "row end"):
            button("Cancel", dialog.close)

            async def do() -> None:
                dialog.close()
                done = then()
                if done is not None:
                    await done

            button(act, do, "danger")
    dialog.open()


def watch(seconds: float, look: Callable[[], Awaitable[Any]]) -> None:
    """Call `look` every so many seconds while the page is open, and once now; slow ones do not overlap."""
    busy = False

    async def tick() -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            await look()
        finally:
            busy = False

    ui.timer(seconds, tick)


def ago(at: float) -> str:
    """How long ago a time was."""
    gone = time.time() - at
    return "now" if gone < 5 else f"{short_span(round(gone))} ago"


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Do something that takes its time without holding up the other pages."""
    return await asyncio.to_thread(work, *args)
