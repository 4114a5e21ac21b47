"""Working memory: what of a process is before the model, in how few tokens, so that it always fits.

The frame, in its order: the system's words with what was pinned and a summary of what is out; the turns that are in;
the newest turn, whose user's words have before them the pages that were brought back for it. What changes stands late,
so that the cache of keys and values of what comes before survives. Out go, when the window is full and until it is two
thirds full: large results of tools, which leave a stub that says how to have them back; then the oldest turns, which
leave lines in the summary. Nothing is deleted: pages that are out are found again by words and meaning (`recall`) for
each thing that a user says, and by the model itself through the tool.

Guarantee: the tokens of the frame, as the model's own template and tokenizer make them, and the reserve for the reply
fit into the window, whatever was said; KernelError where the system's words and the tools alone do not. What is not
before the model is told in `Frame.out`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twofile.errors import KernelError
from twofile.kernel.label import Label, join
from twofile.kernel.page import Page, View, calls_of, said
from twofile.kernel.recall import Index

__all__ = ["Frame", "Memory", "Segment"]

_FULL = 2 / 3  # how full the window may be after something was put out
_PAGED = 0.25  # of the window: what may be brought back; for half of it there is always room
_SUMMARY = 0.15  # of the window
_MOST = 12  # pages that are brought back at once
_SHOWN = 0.6  # of what is left: of a message that is too long; the rest is for what is brought back
_LARGE = 48  # tokens of a result that a stub is shorter than
_SENTENCE = re.compile(r"[^.!?\n]*[.!?]?")

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], Sequence[Message]], list[int]]


@dataclass(frozen=True)
class Segment:
    """A part of the frame, for who looks: its kind, which page or turn it is, its tokens (about)."""

    kind: str
    name: str
    size: int


@dataclass(frozen=True)
class Frame:
    """What is before the model. `changes`: bodies of the "memory" and "paged" events that make it so from now on;
    `resident`: names of the pages whose text is in it; `out`: of those that are not; `label`: of all that is in it."""

    ids: list[int]
    messages: list[Message]
    changes: list[tuple[str, dict[str, Any]]]
    resident: frozenset[str]
    out: tuple[str, ...]
    label: Label
    segments: tuple[Segment, ...]


class Memory:
    """The memory of one process. `render`: messages and tools to tokens; `count`: tokens of a text; `window`: tokens
    that the model sees; `reserve`: of them, for the reply. `paging` False brings nothing back."""

    def __init__(
        self,
        render: Render,
        count: Callable[[str], int],
        window: int,
        reserve: int,
        index: Index,
        tools: Sequence[Message] = (),
        paging: bool = True,
    ) -> None:
        self.render, self.count, self.index, self.tools, self.paging = render, count, index, tools, paging
        self.window, self.budget = window, window - reserve
        if self.budget < 32:
            raise KernelError(f"a window of {window} tokens has no room beside {reserve} for the reply")

    def frame(self, view: View) -> Frame:
        """The frame of a view, which has one turn at least."""
        assert view.turns, "nobody has said anything"
        self.index.add(page for turn in view.turns for page in turn.pages)
        state = _State(view)
        fresh = bool(view.turns) and len(view.turns[-1].messages) == 1 and not view.paged
        ids = self._ids(state)
        if len(ids) > self.budget - (int(self.window * _PAGED / 2) if self.paging else 0):
            ids = self._put_out(state, ids)
        if self.paging and fresh:
            ids = self._bring_back(state, ids)
        changes = state.changes(view)
        resident = frozenset(page.name for page in (*state.cards, *state.resident()))
        out = tuple(page.name for turn in view.turns for page in turn.pages if page.name not in resident)
        label = join(page.label for page in state.sources())
        return Frame(ids, self._messages(state), changes, resident, out, label, tuple(self._segments(state)))

    def _ids(self, state: _State) -> list[int]:
        return self.render(self._messages(state), self.tools)

    def _put_out(self, state: _State, ids: list[int]) -> list[int]:
        """Put pages out until the frame is small enough: to be nearly as full again soon would change it every time."""
        goal = int(self.budget * _FULL)
        newest = state.turns[-1]
        results = [
            message
            for turn in state.turns
            for message in turn.messages
            if message[0].role == "tool" and message is not newest.messages[-1]
        ]
        size = len(ids)
        for message in results:  # the oldest first, those of the newest turn last
            large = sum(page.size for page in message)
            if size > goal and message[0].seq not in state.stubs and large > _LARGE:
                state.stubs.add(message[0].seq)
                size -= large - _LARGE // 2
        ids = self._ids(state) if state.stubs else ids
        while len(ids) > goal and len(state.turns) > 1:
            over = len(ids) - goal
            while len(state.turns) > 1 and over > 0:  # by their sizes, then measured
                over -= sum(page.size for page in state.turns[0].pages if page.seq not in state.stubs) + 8
                state.drop()
            self._summarise(state)
            ids = self._ids(state)
        if len(ids) <= self.budget:
            return ids
        return self._shorten(state, ids)

    def _shorten(self, state: _State, ids: list[int]) -> list[int]:
        """The newest turn alone is too much: its long messages are shown in part, their beginnings, as much as fits."""
        newest = state.turns[-1]
        for message in sorted(newest.messages, key=lambda m: -sum(page.size for page in m)):
            if len(ids) <= self.budget:
                return ids
            seq, kept = message[0].seq, 0
            state.shown[seq] = 0
            room = (self.budget - len(self._ids(state))) * _SHOWN - 16
            if len(message) > 1:
                for page in message:
                    room -= page.size
                    if room < 0:
                        break
                    kept += 1
            else:
                kept = max(0, int(room))
            state.shown[seq] = kept
            while len(ids := self._ids(state)) > self.budget and kept:
                state.shown[seq] = kept = kept // 2
        if len(ids) > self.budget and state.summary:
            state.summary = ""
            ids = self._ids(state)
        if len(ids) > self.budget and len(newest.messages) > 1:
            state.bare = True  # the user's words alone, without what followed: the model begins anew
            ids = self._ids(state)
        if len(ids) > self.budget:
            words = f"the system's words and the tools take {len(ids)} of {self.budget} tokens"
            raise KernelError(words, "shorten them, or take a model with a longer context")
        return ids

    def _summarise(self, state: _State) -> None:
        """Lines for the turns that are out: what was said first in each message, as far as there is room, the newest
        lines kept."""
        lines = []
        for turn in state.dropped:
            for message in turn.messages:
                text = said(message)[:400].strip()
                first = next((part.strip() for part in _SENTENCE.findall(text) if part.strip()), "")
                if first and message[0].role != "tool":
                    lines.append(f"{message[0].role}: {first[:160]}")
        room = int(self.window * _SUMMARY)
        sizes = [self.count(line) + 1 for line in lines]
        first = len(lines)
        while first > 0 and (room := room - sizes[first - 1]) >= 0:
            first -= 1
        state.summary = "\n".join(lines[first:])

    def _bring_back(self, state: _State, ids: list[int]) -> list[int]:
        """Pages that fit what the user has said now, as long as there is room for them."""
        resident = {page.name for page in state.resident()}
        out = [page.name for turn in state.all[:-1] for page in turn.pages if page.name not in resident]
        query = said(state.turns[-1].messages[0])[:2000]
        room = min(int(self.window * _PAGED), self.budget - len(ids) - 24)
        for page in self.index.find(query, out, _MOST) if room > 0 else ():
            if page.size + 12 <= room:
                state.paged.append(page.name)
                room -= page.size + 12
        if not state.paged:
            return ids
        while len(found := self._ids(state)) > self.budget and state.paged:
            state.paged.pop()
        return found

    def _messages(self, state: _State) -> list[Message]:
        messages: list[Message] = []
        system = state.system
        if state.cards:
            system = f"{system}\n\nKeep in mind:\n{said(state.cards)}".strip()
        if state.summary:
            system = f"{system}\n\nEarlier in this conversation:\n{state.summary}".strip()
        if system:
            messages.append({"role": "system", "content": system})
        for turn in state.turns:
            newest = turn is state.turns[-1]
            for number, message in enumerate(turn.messages):
                if newest and state.bare and number:
                    break
                text = self._text(state, message)
                if newest and number == 0 and state.paged:
                    pages = [page for name in state.paged if (page := self.index.page(name)) is not None]
                    lines = "\n".join(f"[page {page.name}, {page.role}] {page.text.strip()}" for page in pages)
                    text = f"Recalled from earlier:\n{lines}\n\n{text}"
                shown: dict[str, Any] = {"role": message[0].role, "content": text}
                if message[0].calls:
                    shown["tool_calls"] = calls_of(message[0])
                messages.append(shown)
        return messages

    def _text(self, state: _State, message: list[Page]) -> str:
        whole, size = said(message), sum(page.size for page in message)
        seq = message[0].seq
        if seq in state.stubs:
            return f"[{message[0].tool or message[0].role} gave {size} tokens: recall page {message[0].name}]"
        if seq not in state.shown:
            return whole
        kept = state.shown[seq]
        part = said(message[:kept]) if len(message) > 1 else whole[: kept * max(1, len(whole) // max(1, size))]
        return f"{part}[... {size} tokens in all: recall finds the rest]" if part else f"[{size} tokens: recall]"

    def _segments(self, state: _State) -> list[Segment]:
        found = [Segment("system", "", self.count(state.system))] if state.system else []
        if state.cards:
            found.append(Segment("pinned", ", ".join(card.name for card in state.cards), self.count(said(state.cards))))
        if self.tools:
            found.append(Segment("tools", ", ".join(str(tool["function"]["name"]) for tool in self.tools), 0))
        if state.summary:
            found.append(Segment("summary", f"{len(state.dropped)} turns", self.count(state.summary)))
        for turn in state.turns:
            for number, message in enumerate(turn.messages):
                if turn is state.turns[-1] and number == 0:
                    for name in state.paged:
                        page = self.index.page(name)
                        found.append(Segment("recalled", name, page.size if page else 0))
                kind = "stub" if message[0].seq in state.stubs else message[0].role
                found.append(Segment(kind, message[0].name, self.count(self._text(state, message))))
        return found


class _State:
    """A frame in the making."""

    def __init__(self, view: View) -> None:
        self.system, self.summary, self.all, self.cards = view.system, view.summary, view.turns, view.cards
        self.dropped = [turn for turn in view.turns if turn.last <= view.gone]
        self.turns = view.turns[len(self.dropped) :]
        self.stubs, self.paged = set(view.stubs), list(view.paged)
        self.shown: dict[int, int] = {}  # messages shown in part: how many pages, or tokens of the only one
        self.bare = False

    def drop(self) -> None:
        """The oldest turn goes out."""
        self.dropped.append(self.turns[0])
        self.turns = self.turns[1:]

    def resident(self) -> list[Page]:
        """Pages whose text is in the frame."""
        found: list[Page] = []
        for turn in self.turns:
            for number, message in enumerate(turn.messages):
                if message[0].seq in self.stubs or (self.bare and number and turn is self.turns[-1]):
                    continue
                kept = self.shown.get(message[0].seq, len(message))
                found += message[: kept if len(message) > 1 else int(message[0].seq not in self.shown)]
        names = set(self.paged)
        return found + [page for turn in self.all for page in turn.pages if page.name in names]

    def sources(self) -> list[Page]:
        """Pages of which the frame says anything: in it, shown in part, or spoken of in the summary."""
        part = [
            message[0]
            for turn in self.turns
            for number, message in enumerate(turn.messages)
            if self.shown.get(message[0].seq) and not (self.bare and number and turn is self.turns[-1])
        ]
        gone = [page for turn in self.dropped for page in turn.pages] if self.summary else []
        return [*self.cards, *self.resident(), *part, *gone]

    def changes(self, view: View) -> list[tuple[str, dict[str, Any]]]:
        """What has to be kept, so that the next frame begins as this one does."""
        body: dict[str, Any] = {}
        if new := self.stubs - view.stubs:
            body["stubs"] = sorted(new)
        if self.dropped and self.dropped[-1].last != view.gone:
            body |= {"gone": self.dropped[-1].last, "summary": self.summary}
        found = [("memory", body)] if body else []
        return found + ([("paged", {"pages": self.paged})] if tuple(self.paged) != view.paged else [])
