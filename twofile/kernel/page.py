"""Pages: what was said and given in a process, in pieces that can be in the window or out of it.

The events of a process become turns: what a user said, and all that followed until the user spoke again. A page is one
message of a turn, or a chunk of one that is long. It has a size in tokens, a label, and a place; its text is never
deleted, for it is the log's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twofile.engine.calls import as_calls
from twofile.kernel.label import NOBODY, Label
from twofile.kernel.log import Event

__all__ = ["CHUNK", "Page", "Turn", "View", "calls_of", "chunks", "said", "view_of"]

CHUNK = 192
"""Tokens of a chunk: a message longer than twice as many is kept in several."""


@dataclass(frozen=True)
class Page:
    """A message, or a chunk of one. `seq`: its event; `part`: which chunk; `parts`: of how many."""

    seq: int
    role: str
    text: str
    size: int
    label: Label = NOBODY
    part: int = 0
    parts: int = 1
    calls: tuple[Mapping[str, Any], ...] = ()
    tool: str = ""

    @property
    def name(self) -> str:
        """As people and models call it."""
        return f"{self.seq}" if self.parts == 1 else f"{self.seq}.{self.part + 1}"


@dataclass
class Turn:
    """A user's message and what followed. Each message is its pages."""

    messages: list[list[Page]] = field(default_factory=list)

    @property
    def pages(self) -> list[Page]:
        return [page for message in self.messages for page in message]

    @property
    def last(self) -> int:
        """The event that it ends with."""
        return self.messages[-1][-1].seq


@dataclass
class View:
    """What the events of a process come to. `cards`: what was pinned, which is always before the model; `stubs`: events
    whose text is out of the window; `gone`: turns up to this event are out, and `summary` stands for them; `paged`:
    pages that were brought back for the newest turn; `used`: when a page was last brought back; `open_calls`: calls
    without a result, made where `open_label` was before the model."""

    model: str = ""
    adapter: str = ""
    window: int | None = None
    system: str = ""
    tools: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    cards: list[Page] = field(default_factory=list)
    stubs: frozenset[int] = frozenset()
    gone: int = 0
    summary: str = ""
    paged: tuple[str, ...] = ()
    open_calls: list[Mapping[str, Any]] = field(default_factory=list)
    open_label: Label = NOBODY
    used: dict[str, float] = field(default_factory=dict)
    ended: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """All that was said, as messages; whatever is before the model of it."""
        found: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            for message in turn.messages:
                one = {"role": message[0].role, "content": said(message)}
                found.append(one | ({"tool_calls": calls_of(message[0])} if message[0].calls else {}))
        return found


def chunks(text: str, count: Callable[[str], int], most: int = CHUNK) -> list[str]:
    """A text in pieces of about `most` tokens at the most, cut at lines, sentences or words where there are any; put
    together they are the text."""
    if count(text) <= 2 * most:
        return [text]
    found: list[str] = []
    ratio = max(1, len(text) // max(1, count(text)))  # characters a token
    start = 0
    while start < len(text):
        end = min(len(text), start + most * ratio)
        if end < len(text):
            window = text[start + (end - start) // 2 : end]
            for mark in ("\n\n", "\n", ". ", " "):
                if (at := window.rfind(mark)) >= 0:
                    end = start + (end - start) // 2 + at + len(mark)
                    break
        while count(text[start:end]) > most and end - start > 1:  # where characters are many tokens
            end = start + max(1, (end - start) // 2)
        found.append(text[start:end])
        start = end
    return found


def view_of(events: Iterable[Event], count: Callable[[str], int]) -> View:
    """What the events say by now. `count`: tokens of a text."""
    view = View()
    open_calls: dict[str, Mapping[str, Any]] = {}

    def message(event: Event, role: str, text: str, label: Label, **more: Any) -> list[Page]:
        parts = chunks(text, count)
        return [
            Page(event.seq, role, part, count(part), label, i, len(parts), **(more if i == 0 else {}))
            for i, part in enumerate(parts)
        ]

    for event in events:
        body = event.body
        label = Label.from_json(body.get("label", {}))
        match event.kind:
            case "begin":
                view.model, view.adapter = str(body.get("model", "")), str(body.get("adapter", ""))
                view.window = body.get("window")
                view.system, view.tools = str(body.get("system", "")), tuple(body.get("tools", ()))
                view.limit = tuple(body.get("limit", ()))
            case "changed":
                for name in body.keys() & {"model", "adapter", "system", "window"}:
                    setattr(view, name, body[name])
                view.tools, view.limit = tuple(body.get("tools", view.tools)), tuple(body.get("limit", view.limit))
            case "user":
                view.turns.append(Turn([message(event, "user", str(body["text"]), label)]))
                view.paged = ()
            case "pinned":
                view.cards += message(event, "card", str(body["text"]), label)
            case "unpinned":
                view.cards = [card for card in view.cards if card.seq != body["card"]]
            case "paged":
                view.paged = tuple(body["pages"])
                view.used |= dict.fromkeys(view.paged, event.at)
            case "assistant" if view.turns:
                calls = tuple(body.get("calls", ()))
                view.turns[-1].messages.append(message(event, "assistant", str(body["text"]), label, calls=calls))
                open_calls, view.open_label = {call["id"]: call for call in calls}, label
            case "result" if view.turns:
                given = {"tool": str(body.get("name", ""))}
                view.turns[-1].messages.append(message(event, "tool", str(body["text"]), label, **given))
                open_calls.pop(body["call"], None)
            case "memory":
                view.stubs = view.stubs | frozenset(body.get("stubs", ()))
                if "gone" in body:
                    view.gone, view.summary = int(body["gone"]), str(body.get("summary", ""))
            case "state":
                view.ended = str(body["state"]) if body["state"] in ("ended", "killed") else ""
    view.open_calls = list(open_calls.values())
    return view


def calls_of(page: Page) -> list[dict[str, Any]]:
    """The calls of a message as its `tool_calls`."""
    return as_calls((call["name"], call["arguments"]) for call in page.calls)


def said(pages: Sequence[Page]) -> str:
    """The whole message of its pages."""
    return "".join(page.text for page in pages)
