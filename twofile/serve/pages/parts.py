"""The elements that pages are made of: HTML's own, a few that need a script of their own in `assets/`, nothing else.

All of NiceGUI's elements that evaluate text as script are left out, so that the pages work under a policy that forbids
it. What people read or press has words of its own or an `aria-label`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import Any

from nicegui import background_tasks, context
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

__all__ = ["Composer", "Dialog", "Field", "File", "Live", "Markup", "button", "el", "link", "table", "words"]

Handler = Callable[..., Any]


def _attributes(element: Element, given: Mapping[str, Any]) -> None:
    """aria_label="x" is aria-label="x"; True is an attribute without a value, False and None none."""
    for name, value in given.items():
        if value is not None and value is not False:
            element.props[name.rstrip("_").replace("_", "-")] = "" if value is True else value


def el(tag: str, classes: str = "", text: str = "", **attributes: Any) -> TextElement:
    """An element of HTML, in the one that is open; a context manager for what is in it."""
    made = TextElement(tag=tag, text=text)
    if classes:
        made.classes(classes)
    _attributes(made, attributes)
    return made


def words(text: str, classes: str = "", **attributes: Any) -> TextElement:
    """A paragraph."""
    return el("p", classes, text, **attributes)


def button(text: str, press: Handler | None = None, classes: str = "", **attributes: Any) -> TextElement:
    """A button; `press` without arguments, may be a coroutine. A text of one sign wants an `aria_label`."""
    made = el("button", f"button {classes}".strip(), text, type="button", **attributes)
    if press is not None:
        made.on("click", lambda: _pressed(press), [])
    return made


async def _pressed(press: Handler) -> None:
    """Call a handler as of the page: what was pressed may be gone before it ends."""
    with context.client:
        done = press()
        if isawaitable(done):
            await done


def link(text: str, target: str, classes: str = "", **attributes: Any) -> TextElement:
    """A link to a page of this server."""
    return el("a", classes, text, href=target, **attributes)


def table(head: Sequence[str], rows: Iterable[Sequence[str | Callable[[], Any]]], label: str) -> TextElement:
    """A table; a cell that is a function makes its own elements."""
    with el("div", "table", tabindex="0", role="region", aria_label=label) as outer, el("table"):
        with el("thead"), el("tr"):
            for name in head:
                el("th", text=name, scope="col")
        with el("tbody"):
            for row in rows:
                with el("tr"):
                    for cell in row:
                        if callable(cell):
                            with el("td"):
                                cell()
                        else:
                            el("td", text=cell)
    return outer


class Field(Element, component="assets/field.js"):
    """Something to fill in, with its label. `kind`: a type of HTML's input, "textarea" or "select"; `options` of a
    select: value to words. `change` gets the value when it was changed (True or False of a checkbox)."""

    def __init__(
        self,
        label: str,
        value: Any = "",
        change: Callable[[Any], Any] | None = None,
        kind: str = "text",
        options: Mapping[str, str] | None = None,
        *,
        at_once: bool = False,
        **attributes: Any,
    ) -> None:
        """`at_once`: at every key, not only when it is left."""
        super().__init__()
        self.value = value
        self._change = change
        self.props["label"], self.props["kind"], self.props["value"] = label, kind, value
        self.props["options"] = [[key, words] for key, words in (options or {}).items()]
        self.props["atOnce"] = at_once
        self.props["more"] = {name.replace("_", "-"): value for name, value in attributes.items()}
        self.on("change", self._changed)

    def _changed(self, event: Any) -> Any:
        self.value = event.args  # the page has it: told again, it would take back what was typed since
        return self._change(event.args) if self._change is not None else None

    def set(self, value: Any) -> None:
        """Show another value."""
        self.value = self.props["value"] = value
        self.props["told"] = int(self.props.get("told", 0)) + 1
        self.update()

    def choose_from(self, options: Mapping[str, str], value: str) -> None:
        """Other options of a select."""
        self.props["options"] = [[key, words] for key, words in options.items()]
        self.set(value)


class Markup(Element, component="assets/markup.js"):
    """HTML that `markup` made, or a report of ours: never what came from elsewhere as it is."""

    def __init__(self, html: str, classes: str = "") -> None:
        super().__init__()
        self.props["html"] = html
        if classes:
            self.classes(classes)

    def show(self, html: str) -> None:
        """Something else."""
        self.props["html"] = html
        self.update()


class Live(Element, component="assets/live.js"):
    """Text that grows, from an address of server-sent events (`site.live`): its cost does not grow with its length."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.props["source"] = source


class Dialog(Element, component="assets/dialog.js"):
    """A dialog before the page; a context manager for what is in it. Escape and its cross close it."""

    def __init__(self, title: str, closed: Handler | None = None) -> None:
        super().__init__()
        self.props["title"], self.props["open"] = title, False
        self._closed = closed
        self.on("close", self._gone, [])

    def open(self) -> None:
        """Show it."""
        self.props["open"] = True
        self.update()

    def close(self) -> None:
        """Hide it."""
        self.props["open"] = False
        self.update()

    def _gone(self) -> None:
        self.props["open"] = False
        if self._closed is not None and (going := self._closed()) is not None:
            background_tasks.create(going)


class File(Element, component="assets/file.js"):
    """A file to choose or to drop, sent to /uploads; `sent` gets {"id", "name", "kind", "bytes"} of each."""

    def __init__(
        self, label: str, sent: Callable[[dict[str, Any]], Any], accept: str = "", *, multiple: bool = False
    ) -> None:
        super().__init__()
        self.props["label"], self.props["accept"], self.props["multiple"] = label, accept, multiple
        self.on("sent", lambda event: sent(event.args))


class Composer(Element, component="assets/composer.js"):
    """Where a message is written: Enter sends, Shift+Enter is a new line; files are dropped, pasted or chosen, and sent
    to /uploads. `send` gets the text and the uploads; `stop` is called by its button while `busy`."""

    def __init__(self, send: Callable[[str, list[dict[str, Any]]], Any], stop: Handler, label: str) -> None:
        super().__init__()
        self.props["label"], self.props["busy"], self.props["address"] = label, False, ""
        self.on("send", lambda event: send(event.args["text"], event.args["files"]))
        self.on("stop", lambda: stop(), [])

    def busy(self, busy: bool) -> None:
        """Whether a reply is under way."""
        self.props["busy"] = busy
        self.props["told"] = int(self.props.get("told", 0)) + 1
        self.update()

    def give_back(self, text: str, files: list[dict[str, Any]]) -> None:
        """What could not be sent, for who wrote it."""
        number = self.props.get("back", {}).get("number", 0) + 1
        self.props["back"] = {"text": text, "files": files, "number": number}
        self.update()

    def at(self, address: str) -> None:
        """The address that the browser shows from now on."""
        self.props["address"] = address
        self.update()
