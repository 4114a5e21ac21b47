"""Turns under way: each in a thread of its own, so that it goes on whoever looks, and can be looked at by several.

A page that opens, or opens again, sees a turn from its beginning. What the model asks for waits until somebody answers,
or the turn is stopped. What is said is in the log in the end (`kernel.process`); a turn that a kill of the server cut
off is finished by who asks for that, from the log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twofile.errors import KernelError, TwofileError
from twofile.kernel.process import Answer, Asking, Process, Said

__all__ = ["Live", "Part", "Turns"]


@dataclass
class Part:
    """Something that a turn has come to: "text", which may still grow, a "call" or a "result", as in the log."""

    kind: str
    text: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    ended: bool = False


class Live:
    """A turn under way. `words`: what the user says in it, as the log will have it; `since`: the last event before it.
    `parts` only grows, at its end; `asking` is what waits for an answer; `error` says what went wrong. Who listens is
    told of every change, from the thread of the turn."""

    def __init__(
        self,
        process: Process,
        begin: Callable[..., Generator[Said, None, None]],
        words: Mapping[str, Any] | None = None,
    ) -> None:
        self.process, self.parts, self.error = process, list[Part](), ""
        self.words, self.since = words, process.log.events(process.pid)[-1].seq
        self.asking: Asking | None = None
        self.done = threading.Event()
        self._answer: Answer | None = None
        self._answered = threading.Event()
        self._stopping = False
        self._listeners: list[Callable[[], object]] = []
        self._thread = threading.Thread(target=self._run, args=(begin,), name=f"turn-{process.pid}", daemon=True)

    def start(self) -> None:
        """Let it begin."""
        self._thread.start()

    def _run(self, begin: Callable[..., Generator[Said, None, None]]) -> None:
        try:
            for said in begin(self._approve):
                if said.kind == "text":
                    self._text(said.text)
                elif said.kind != "done":
                    self._end()
                    self.parts.append(Part(said.kind, said.text, dict(said.body), True))
                self._changed()
        except TwofileError as error:
            self.error = f"{error.message}. {error.hint}" if error.hint else error.message
        except Exception as error:
            self.error = f"the turn failed: {type(error).__name__}: {error}"
        finally:
            self._end()
            self.done.set()
            self._changed()

    def _text(self, text: str) -> None:
        if not self.parts or self.parts[-1].kind != "text":
            self.parts.append(Part("text"))
        self.parts[-1].text += text

    def _end(self) -> None:
        if self.parts:
            self.parts[-1].ended = True

    def _approve(self, asking: Asking) -> Answer:
        self._answered.clear()
        if self._stopping:
            return Answer("deny")
        self._answer, self.asking = None, asking
        self._changed()
        self._answered.wait()
        self.asking = None
        self._changed()
        return self._answer or Answer("deny")

    def answer(self, asking: Asking, answer: Answer) -> None:
        """What a person says to a question; the first answer counts, and none to another question than that which
        waits."""
        if asking is self.asking and not self._answered.is_set():
            self._answer = answer
            self._answered.set()

    def stop(self) -> None:
        """Say and do no more; what is asked is denied."""
        self._stopping = True
        self.process.stop()
        self._answered.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is over within so many seconds."""
        return self.done.wait(seconds)

    def listen(self, told: Callable[[], object]) -> Callable[[], None]:
        """Have `told` called at every change; what is given back ends that."""
        self._listeners.append(told)

        def leave() -> None:
            if told in self._listeners:
                self._listeners.remove(told)

        return leave

    def _changed(self) -> None:
        for told in list(self._listeners):
            told()


class Turns:
    """The turns under way, one a process; the last one of each is kept for who was about to look at it."""

    def __init__(self) -> None:
        self._live: dict[int, Live] = {}
        self._lock = threading.Lock()

    def begin(
        self,
        process: Process,
        how: Callable[..., Generator[Said, None, None]],
        words: Mapping[str, Any] | None = None,
    ) -> Live:
        """Begin a turn. `how`: from who approves to what is said; `words`: see `Live`. KernelError where the process is
        speaking."""
        with self._lock:
            if (old := self._live.get(process.pid)) is not None and not old.done.is_set():
                raise KernelError(f"process {process.pid} is speaking", "stop it first")
            live = self._live[process.pid] = Live(process, how, words)
        live.start()
        return live

    def of(self, pid: int) -> Live | None:
        """The turn of a process that is under way, or the last one."""
        return self._live.get(pid)

    def speaking(self, pid: int) -> Live | None:
        """The turn of a process, where it is under way."""
        live = self._live.get(pid)
        return live if live is not None and not live.done.is_set() else None

    def forget(self, pids: Iterable[int]) -> None:
        """Let go of what is over of these processes."""
        with self._lock:
            for pid in pids:
                if self.speaking(pid) is None:
                    self._live.pop(pid, None)

    def close(self) -> None:
        """Stop all of them, and wait until what was said is in the log."""
        under_way = [live for live in self._live.values() if not live.done.is_set()]
        for live in under_way:
            live.stop()
        for live in under_way:
            live.wait(10)
