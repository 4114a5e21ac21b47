"""A process: a conversation that survives. What is said goes into the log first, then it is done.

A user speaks; the frame is made (`memory`), the model says its turn (`engine.calls`), each call of a tool is written
down, checked against what the process may do, run, and its result written down; so it goes on until the model has
nothing more to ask for. Guarantees: what was given back is in the log; a call is in the log before it is run, so that
after a kill one that has effects is never run again: its result then says that nobody knows whether it happened; one
without effects is run again. A call that is repeated without anything new is stopped, and the model is told why. One
client speaks at a time, of all programs: another is refused. Cost: a flush of the disk for each message and call.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from twofile.engine.calls import Called, Finished, Turn, turn
from twofile.engine.generate import Piece
from twofile.engine.sampler import Sampling
from twofile.errors import KernelError
from twofile.kernel.capability import Decision, Grant, Grants, Lifetime, narrowed, normal
from twofile.kernel.driver import Context, Drivers, Outcome, run_driver, text
from twofile.kernel.label import Label
from twofile.kernel.log import Event, Log
from twofile.kernel.memory import Frame, Memory
from twofile.kernel.page import View, view_of
from twofile.kernel.recall import Index, Recall

__all__ = ["Answer", "Asking", "Budget", "Image", "Process", "Said"]

_COUNTED = 4096  # texts whose tokens are counted once: every turn looks at all of them
_PINNED = 4  # what is pinned has the window over this
_IMAGES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}
_UNKNOWN = "it was interrupted, and nobody knows whether it happened: do not do it again without asking"
_STOPPED = "it was stopped before it began"
_REPEATED = "this very call was made before and gave the same: nothing new will come of it"


@dataclass(frozen=True)
class Image:
    """What runs a process: how its model renders, counts and speaks. `turn`: what speaks in place of the model, called
    as `engine.calls.turn` is."""

    engine: Any  # engine.Engine
    scheduler: Any  # engine.Scheduler
    template: Any  # engine.ChatTemplate
    turn: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Budget:
    """How much a turn of a process may take."""

    rounds: int = 8  # of calls
    reserve: int = 1024  # tokens of a reply; a quarter of the window at the most
    seconds: float = 60.0  # of a call
    output: int = 1 << 16  # bytes of a result


@dataclass(frozen=True)
class Asking:
    """A question to the person: may this call be made? `capability`: what it needs; `arguments`: all of them."""

    process: int
    tool: str
    arguments: Mapping[str, Any]
    capability: str
    before: Label


@dataclass(frozen=True)
class Answer:
    """What the person says to it."""

    decision: Literal["allow", "deny"]
    lifetime: Lifetime = "once"


@dataclass(frozen=True)
class Said:
    """Something that happened in a turn: "text" (a piece), "call", "result", "done"; `body` as in the log."""

    kind: Literal["text", "call", "result", "done"]
    text: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


Approve = Callable[[Asking], Answer]


def nobody(asking: Asking) -> Answer:
    """The answer where nobody can be asked."""
    return Answer("deny")


class Process:
    """A process of a log, open. `drivers`: all that there are; the process names those that it has. `background`: it
    gives way to those that somebody waits for."""

    def __init__(
        self,
        pid: int,
        log: Log,
        image: Image,
        drivers: Drivers,
        grants: Grants,
        budget: Budget = Budget(),
        paging: bool = True,
        window: int | None = None,
        background: bool = False,
    ) -> None:
        self.background = background
        self.pid, self.log, self.image, self.grants, self.budget = pid, log, image, grants, budget
        self._above = log.above(pid)
        self._count = lru_cache(_COUNTED)(lambda words: len(image.engine.tokenize(words)))
        self._now: Turn | None = None
        self._stopped = threading.Event()
        self._own, self._out = 0, tuple[str, ...]()
        self.view = self.look()
        self.index = Index(image.engine)
        mine = Drivers(driver for name in self.view.tools if name in drivers and (driver := drivers[name]))
        if "recall" in self.view.tools and "recall" not in mine:
            mine.add(Recall(self.index, lambda: self._out))
        if missing := [name for name in self.view.tools if name not in mine]:
            raise KernelError(f"process {pid} has the tool {missing[0]}, which is not here", "make its driver known")
        self.drivers = mine
        room = image.engine.context_length if window is None else min(window, image.engine.context_length)
        reserve = min(budget.reserve, room // 4)
        self.memory = Memory(
            self._render, self._count, room, reserve, self.index, mine.tools(self.view.tools), paging=paging
        )
        self.reserve = reserve

    def _render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        found: list[int] = self.image.template.render(messages, tools=tools or None)
        return found

    def look(self) -> View:
        """What the log says of it by now."""
        return view_of(self.log.events(self.pid), self._count)

    def _note(self, kind: str, body: Mapping[str, Any]) -> Event:
        event = self.log.append(self.pid, kind, body, self._own)
        self._own = event.seq
        return event

    def frame(self) -> Frame:
        """What is before the model now; nothing is changed."""
        return self.memory.frame(self.look())

    def say(
        self,
        words: str,
        approve: Approve = nobody,
        sampling: Sampling | None = None,
        label: Label = Label.of("user"),  # noqa: B008 (frozen)
        poll: Callable[[], bool] | None = None,
        shown: Mapping[str, Any] | None = None,
    ) -> Generator[Said, None, None]:
        """Say something as the user, and hear what comes of it. `shown`: what a page shows in place of the words, where
        those hold whole files. KernelError where another client speaks with this process, or it has ended. Closing the
        iterator stops the model; what was said so far is kept."""
        body = {"text": words, "label": label.to_json()} | ({"shown": shown} if shown else {})
        return self._turn([("user", body)], approve, sampling, poll)

    def go_on(
        self, approve: Approve = nobody, sampling: Sampling | None = None, begun: Sequence[int] = ()
    ) -> Generator[Said, None, None]:
        """Finish a turn that was interrupted; nothing where there is none. `begun`: tokens that the reply begins with,
        as if the model had chosen them."""
        return self._turn([], approve, sampling, None, begun)

    def _turn(
        self,
        first: list[tuple[str, Mapping[str, Any]]],
        approve: Approve,
        sampling: Sampling | None,
        poll: Callable[[], bool] | None,
        begun: Sequence[int] = (),
    ) -> Generator[Said, None, None]:
        with self.log.speaking(self.pid):
            self._stopped.clear()
            view = self._begin()
            if view.open_calls:
                yield from self._settle(view, approve, poll)
            elif not first and (not view.turns or view.turns[-1].messages[-1][0].role == "assistant"):
                return
            for kind, body in first:
                self._note(kind, body)
            try:
                yield from self._speak(approve, sampling or Sampling(), poll, begun)
            finally:
                self._now = None

    def _begin(self) -> View:
        """What it is now, for who speaks with it and will write. KernelError where it is over."""
        self._own = self.log.end(self.pid)
        view = self.look()
        if view.ended:
            hint = f"twofile fork {self.pid} goes on from it"
            raise KernelError(f"process {self.pid} is over: {view.ended}", hint)
        return view

    def pin(self, words: str, label: Label = Label.of("user")) -> Event:  # noqa: B008 (frozen)
        """Keep a text before the model from now on. KernelError where that would leave too little room."""
        with self.log.speaking(self.pid):
            view = self._begin()
            room = self.memory.window // _PINNED
            if (size := self._count(words) + sum(card.size for card in view.cards)) > room:
                raise KernelError(f"what is pinned would take {size} tokens, and has {room}", "unpin something")
            return self._note("pinned", {"text": f"- {words.strip()}\n", "label": label.to_json()})

    def unpin(self, card: int) -> None:
        """Let go of what was pinned by this event. KernelError where nothing was."""
        with self.log.speaking(self.pid):
            if card not in [one.seq for one in self._begin().cards]:
                raise KernelError(f"nothing was pinned as {card} in process {self.pid}", f"twofile maps {self.pid}")
            self._note("unpinned", {"card": card})

    def _speak(
        self, approve: Approve, sampling: Sampling, poll: Callable[[], bool] | None, begun: Sequence[int]
    ) -> Iterator[Said]:
        """Rounds of saying and calling, until there are no calls."""
        words, body = "", dict[str, Any]()
        for lap in range(self.budget.rounds + 1):
            if lap and self._over(poll):
                yield Said("done", words, body)
                return
            view = self.look()
            frame = self.memory.frame(view)
            for kind, body in frame.changes:
                self._note(kind, body)
            self._out = frame.out
            calls: list[dict[str, Any]] = []
            tokens, words = list(begun), self.image.engine.detokenize(begun) if begun else ""
            begun, end, start, first = (), None, time.monotonic(), 0.0
            choice: Literal["auto", "none"] = "auto" if lap < self.budget.rounds else "none"
            self._now = (self.image.turn or turn)(
                self.image.scheduler, self.image.engine, [*frame.ids, *tokens], tools=self.memory.tools, choice=choice,
                sampling=sampling, max_tokens=max(1, self.reserve - len(tokens)), background=self.background,
            )  # fmt: skip
            try:
                if words:
                    yield Said("text", words)
                for event in self._now:
                    first = first or time.monotonic() - start
                    if isinstance(event, Piece):
                        words += event.text
                        tokens.append(event.token)
                        if event.text:
                            yield Said("text", event.text)
                    elif isinstance(event, Called):
                        arguments = json.loads(event.arguments)
                        calls.append({"id": secrets.token_hex(6), "name": event.name, "arguments": arguments})
                    elif isinstance(event, Finished):
                        end = event
                    if self._over(poll):
                        break
            finally:
                self._now.cancel()
                if end is None:
                    calls = []  # nobody waits for them
                usage = {} if end is None else {"read": end.read, "reused": end.reused, "written": end.written}
                pace = {"first": round(first, 4), "seconds": round(time.monotonic() - start, 4)}
                body = {
                    "text": words, "tokens": tokens, "calls": calls, "label": frame.label.to_json(), "usage": usage,
                    "reason": "stopped" if end is None else end.reason, "pace": pace,
                }  # fmt: skip
                self._note("assistant", body)
            if end is None or not calls:
                yield Said("done", words, body)
                return
            left = list(calls)
            try:
                for number, call in enumerate(calls):
                    yield Said("call", body=call)
                    if self._over(poll):
                        break
                    left.pop(0)
                    yield self._answer(call, [*_calls(view), *calls[:number]], frame.label, approve, poll)
            finally:
                for call in left:
                    self._result(call, _told(_STOPPED, str(call["name"])), frame.label)
            if left:
                yield Said("done", words, body)
                return

    def _over(self, poll: Callable[[], bool] | None) -> bool:
        """Whether nobody wants more."""
        return self._stopped.is_set() or (poll is not None and poll())

    def _answer(
        self,
        call: Mapping[str, Any],
        earlier: Sequence[Mapping[str, Any]],
        before: Label,
        approve: Approve,
        poll: Callable[[], bool] | None,
    ) -> Said:
        """Run a call that is in the log, and write down what it gave. `earlier`: those of the turn before it."""
        name, arguments = str(call["name"]), call["arguments"]
        if (name, arguments) in [(one["name"], one["arguments"]) for one in earlier]:
            return self._result(call, _told(_REPEATED, name), before)
        try:
            outcome = self._run(name, arguments, before, approve, poll)
        except BaseException:  # of who was asked, or a stop by force: it may have begun
            self._result(call, _told(_UNKNOWN, name), before)
            raise
        return self._result(call, outcome, before)

    def _result(self, call: Mapping[str, Any], outcome: Outcome, before: Label) -> Said:
        label = outcome.label | before  # the arguments were made of all that was before the model
        body = {
            "call": call["id"], "name": call["name"], "text": outcome.text, "error": outcome.error, "cut": outcome.cut,
            "seconds": round(outcome.seconds, 3), "label": label.to_json(),
        }  # fmt: skip
        if outcome.images:
            body["images"] = [
                {"name": self.log.keep(one["data"], _IMAGES.get(one["mime"], "bin")), "about": one["about"]}
                for one in outcome.images
            ]
        self._note("result", body)
        return Said("result", outcome.text, body)

    def _run(
        self, name: str, arguments: Mapping[str, Any], before: Label, approve: Approve, poll: Callable[[], bool] | None
    ) -> Outcome:
        how: dict[str, Any] = {"process": self.pid, "limit": self.view.limit, "before": before, "above": self._above}
        try:
            driver = self.drivers[name]
            needs = [normal(capability) for capability in driver.needs(arguments)]
        except (KernelError, ValueError) as error:
            return _told(str(error), name)
        except Exception as error:  # a driver's failure is its own
            return _told(f"{name} failed: {type(error).__name__}: {error}", name)
        granted = []
        for capability in needs:
            decision: Decision = self.grants.decide(capability=capability, use=False, **how)
            if decision == "allow":
                granted.append(capability)
            elif decision == "ask":
                decision = self._ask(Asking(self.pid, name, arguments, capability, before), approve)
            if decision == "deny":
                self.grants.decide(capability=capability, **how)  # one that holds once is used up
                return _told(f"{name} may not be used for this: {capability} is not allowed", name)
        for capability in granted:  # now that all of them are
            if self.grants.decide(capability=capability, **how) != "allow":
                return _told(f"{name} may not be used for this: {capability} is not allowed any more", name)
        context = Context(self.pid, time.monotonic() + self.budget.seconds)
        return run_driver(driver, arguments, context, most=self.budget.output, poll=lambda: self._over(poll))

    def _ask(self, asking: Asking, approve: Approve) -> Decision:
        """Ask the person, and keep what was said."""
        answer = approve(asking)
        told = {"tool": asking.tool, "arguments": asking.arguments, "capability": asking.capability}
        self._note("asked", told | {"decision": answer.decision, "lifetime": answer.lifetime})
        if answer.lifetime != "once":
            owner = 0 if answer.lifetime == "always" else self.pid
            self.grants.add(Grant(asking.capability, answer.decision, answer.lifetime, owner))
        return answer.decision

    def _settle(self, view: View, approve: Approve, poll: Callable[[], bool] | None) -> Iterator[Said]:
        """Calls that a kill left without a result."""
        for call in view.open_calls:
            name = str(call["name"])
            if name in self.drivers and self.drivers[name].pure:
                yield self._answer(call, _calls(view, call), view.open_label, approve, poll)
            else:
                yield self._result(call, _told(_UNKNOWN, name), view.open_label)

    def stop(self) -> None:
        """Stop what is being said or done, from any thread."""
        self._stopped.set()
        if (now := self._now) is not None:
            now.cancel()

    def end(self, how: Literal["ended", "killed"] = "ended") -> None:
        """No more is said; what was granted to it alone is gone."""
        self.stop()
        self.log.append(self.pid, "state", {"state": how}, self.log.end(self.pid))
        self.grants.end(self.pid)

    def child_limit(self, asked: Sequence[str]) -> tuple[str, ...]:
        """The capabilities of a child that asks for some. KernelError for more than this process has."""
        return narrowed(self.view.limit, asked)


def _calls(view: View, before: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
    """The calls of the newest turn, in their order; those before one of them, where one is given."""
    calls = [call for message in view.turns[-1].messages for call in message[0].calls]
    ids = [call["id"] for call in calls]
    return calls if before is None else calls[: ids.index(before["id"])]


def _told(words: str, tool: str) -> Outcome:
    return Outcome((text(f"error: {words}"),), Label.of(f"tool:{tool}"), True)
