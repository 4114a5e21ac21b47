"""Processes looked at from outside: how each stands, its calls, its pages, its events, what it was granted.

What the command line and the page of processes have in common. Looking changes nothing, and opens no model but for the
pages. Guarantee: an event is read once, however often is looked, and nothing is read where the log has not changed
since. Cost: the first look reads the processes that are shown, the newest ones; later ones read what came since.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from twofile.errors import KernelError
from twofile.kernel.capability import Grant
from twofile.kernel.kernel import grants_of
from twofile.kernel.log import Event, Log
from twofile.kernel.page import Page
from twofile.kernel.process import Process

__all__ = ["Glance", "Looker", "Mapped", "Traced", "kill", "mapped", "replayed", "revoke", "rules", "traced"]

_SAID = 50  # characters of what was said last
_RESULT = 120  # characters of a result
_BODY = 200  # characters of an event that says nothing to a person
_CUT_OFF = ("user", "assistant", "result", "asked", "paged", "memory")


@dataclass(frozen=True)
class Glance:
    """How a process stands. `parent`: what it is a branch or a child of; `state`: "new", "speaking", "waiting",
    "interrupted", or how it ended; `events`: its own; `written`: tokens that it wrote itself; `at`: its last event's
    time; `said`: the beginning of what was said last."""

    pid: int
    parent: int | None
    model: str
    state: str
    events: int
    written: int
    at: float
    said: str


@dataclass(frozen=True)
class Traced:
    """A line of a process's calls: a call as it was made, its result, or what was asked for and granted. `good`: the
    result is no error, or it was allowed."""

    at: float
    kind: Literal["call", "result", "asked"]
    text: str
    good: bool = True

    @property
    def line(self) -> str:
        """As a terminal shows it."""
        sign = {"call": "", "result": "  = ", "asked": "  ? "}[self.kind]
        return f"{time.strftime('%H:%M:%S', time.localtime(self.at))} {sign}{self.text}"


@dataclass(frozen=True)
class Mapped:
    """A page of a process. `state`: "pinned", "in" the window, a "stub" in it, "summary" where a summary stands for it,
    or "out"; `used`: when it was last brought back; `sources`: where it comes from; `begins`: its first words."""

    name: str
    role: str
    size: int
    state: str
    used: float | None
    sources: str
    begins: str


@dataclass
class _Seen:
    """What is known of a process by the events that were read."""

    last: int = 0
    at: float = 0.0
    state: str = "new"
    model: str = "?"
    child_of: int | None = None
    own: int = 0
    written: int = 0
    said: str = ""


@dataclass
class Looker:
    """Looks at the processes of a log again and again. Of any thread."""

    log: Log
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _outline: list[tuple[int, int | None, float | None]] = field(default_factory=list)
    _signature: tuple[int, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, most: int | None = None) -> list[Glance]:
        """The processes in the order of their numbers; with `most`, those that did something last, so many at most."""
        with self._lock:
            if (signature := self._stamp()) != self._signature:
                self._outline, self._signature = self._read(), signature
            shown = self._outline
            if most is not None:
                newest = sorted(shown, key=lambda one: (one[2] or 0, one[0]), reverse=True)[:most]
                shown = sorted(newest, key=lambda one: one[0])
            return [glance for pid, parent, at in shown if (glance := self._glance(pid, parent, at)) is not None]

    def one(self, pid: int) -> Glance:
        """How one process stands. KernelError where there is none."""
        with self._lock:
            parent = next((parent for number, parent, _ in self.log.processes() if number == pid), None)
            if (found := self._glance(pid, parent, None)) is None:
                raise KernelError(f"there is no process {pid}", "twofile ps")
            return found

    def _read(self) -> list[tuple[int, int | None, float | None]]:
        """Number, parent and last event's time of each process; the time is None where the log is damaged."""
        try:
            return [(pid, parent, at) for pid, parent, at, _ in self.log.outline()]
        except sqlite3.DatabaseError:
            return [(pid, parent, None) for pid, parent, _ in self.log.processes()]

    def _stamp(self) -> tuple[int, ...]:
        """What changes whenever somebody writes to the log."""
        found: list[int] = []
        for path in (self.log.path, self.log.path.with_name(f"{self.log.path.name}-wal")):
            try:
                status = path.stat()
                found += [status.st_mtime_ns, status.st_size]
            except OSError:
                found += [0, 0]
        return tuple(found)

    def _glance(self, pid: int, parent: int | None, at: float | None) -> Glance | None:
        seen = self._seen.setdefault(pid, _Seen())
        if at != seen.at or not seen.last:
            try:
                events = self.log.events(pid, after=seen.last)
            except KernelError:  # it has just been forgotten, or is damaged
                return None
            for event in events:
                _take(seen, event, pid)
        if not seen.last:
            return None  # of a damaged log
        state = seen.state
        if state in ("interrupted", "new") and self.log.busy(pid):
            state = "speaking"
        of = parent or seen.child_of
        return Glance(pid, of, Path(seen.model).stem, state, seen.own, seen.written, seen.at, seen.said)


def _take(seen: _Seen, event: Event, pid: int) -> None:
    """Know one more event."""
    body, kind = event.body, event.kind
    seen.last, seen.at = event.seq, event.at
    if kind == "state":
        seen.state = str(body["state"])
    elif kind == "assistant" and not body.get("calls"):
        seen.state = "waiting"
    else:
        seen.state = "interrupted" if kind in _CUT_OFF else "new"
    if kind in ("begin", "changed"):
        seen.model = str(body.get("model", seen.model))
    if kind == "begin" and isinstance(body.get("parent"), int):
        seen.child_of = body["parent"]
    if kind in ("user", "assistant") and body.get("text"):
        seen.said = " ".join(str(body["text"]).split())[:_SAID]
    if event.pid == pid:  # a branch has not written what it begins with
        seen.own += 1
        if kind == "assistant":
            seen.written += body.get("usage", {}).get("written", 0)


def traced(event: Event) -> Iterator[Traced]:
    """The calls of an event, each a line."""
    body = event.body
    if event.kind == "assistant":
        for call in body.get("calls", ()):
            yield Traced(event.at, "call", f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})")
    elif event.kind == "result":
        how = "error" if body.get("error") else "cut" if body.get("cut") else "ok"
        said = " ".join(str(body["text"]).split())[:_RESULT]
        yield Traced(event.at, "result", f"{how}, {body.get('seconds', 0):.3f} s: {said}", how != "error")
    elif event.kind == "asked":
        words = f"{body['capability']}: {body['decision']} ({body['lifetime']})"
        yield Traced(event.at, "asked", words, body["decision"] == "allow")


def replayed(event: Event) -> str:
    """An event in words: what was said, or what else it holds."""
    body = event.body
    if event.kind in ("user", "assistant", "result"):
        calls = "".join(f" [{call['name']} {call['arguments']}]" for call in body.get("calls", ()))
        return f"{body.get('text', '')}{calls}"
    return json.dumps(body, ensure_ascii=False)[:_BODY]


def mapped(process: Process) -> list[Mapped]:
    """The pages of an open process, what is pinned first."""
    view = process.look()
    found = [_mapped(card, "pinned", None) for card in view.cards]
    if not view.turns:
        return found
    frame = process.memory.frame(view)
    for turn in view.turns:
        for page in turn.pages:
            state = "in" if page.name in frame.resident else "stub" if page.seq in view.stubs else "out"
            state = "summary" if state == "out" and turn.last <= view.gone else state
            found.append(_mapped(page, state, view.used.get(page.name)))
    return found


def _mapped(page: Page, state: str, used: float | None) -> Mapped:
    sources = ", ".join(sorted(page.label.sources)) + (", private" if page.label.private else "")
    return Mapped(page.name, page.role, page.size, state, used, sources, " ".join(page.text.split())[:40])


def rules(log: Log) -> Sequence[Grant]:
    """The rules in force in a log, in the order in which they were made."""
    return grants_of(log).rules


def revoke(log: Log, rule: Grant) -> bool:
    """Have a rule hold no more, from the next call on. Whether it did."""
    return grants_of(log).revoke(rule)


def kill(log: Log, pid: int) -> None:
    """End a process: nothing more is said in it, and what was granted to it alone is gone. KernelError where there is
    none."""
    log.append(pid, "state", {"state": "killed"}, log.end(pid))
    grants_of(log).end(pid)
