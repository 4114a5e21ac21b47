"""The kernel: one log, the models that are open, the drivers that there are, and the processes on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from twofile.engine.engine import Engine
from twofile.engine.scheduler import Scheduler
from twofile.engine.template import ChatTemplate
from twofile.errors import KernelError
from twofile.kernel.capability import Grant, Grants, normal
from twofile.kernel.driver import Driver, Drivers
from twofile.kernel.log import Log
from twofile.kernel.process import Budget, Image, Process

__all__ = ["Kernel", "grants_of"]

RECALL = "recall"  # a driver that each process has of its own


class _Kept:
    """The rules that a log has. It is read each time: other programs write to it, too."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def all(self) -> list[Grant]:
        found: list[Grant] = []
        for event in (one for one in self._log.events(0) if one.kind == "grant"):
            rule = Grant(**event.body["rule"])
            if event.body["there"]:
                found.append(rule)
            elif rule in found:
                found.remove(rule)
        return found

    def add(self, rule: Grant) -> None:
        self._log.note("grant", {"rule": vars(rule), "there": True})

    def take(self, rule: Grant) -> bool:
        return self._log.note("grant", {"rule": vars(rule), "there": False}, lambda: rule in self.all())


def grants_of(log: Log) -> Grants:
    """The rules of a log."""
    return Grants(_Kept(log))


def _open(model: str, adapter: str) -> Engine:
    return Engine(model, adapter=Path(adapter) if adapter else None)


class Kernel:
    """A context manager; closing it closes the engines it opened and the log. `opener`: from a model's name and an
    adapter's ("" for none) to an engine."""

    def __init__(
        self, path: Path, drivers: Iterable[Driver] = (), opener: Callable[[str, str], Engine] = _open
    ) -> None:
        self.log = Log(path)
        self.drivers = Drivers(drivers)
        self._opener = opener
        self._images: dict[tuple[str, str], Image] = {}
        self._opening: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()
        self.grants = grants_of(self.log)

    def image(self, model: str, adapter: str = "") -> Image:
        """What runs processes of a model; opened once. Nobody waits for it who needs another one."""
        key = (model, adapter)
        with self._lock:
            opening = self._opening.setdefault(key, threading.Lock())
        with opening:
            if (found := self._images.get(key)) is None:
                engine = self._opener(model, adapter)
                found = Image(engine, Scheduler(engine, swap=True), ChatTemplate.of(engine))
                with self._lock:
                    self._images[key] = found
            return found

    def spawn(
        self,
        model: str,
        system: str = "",
        tools: Sequence[str] = (),
        limit: Sequence[str] = (),
        parent: Process | None = None,
        *,
        adapter: str = "",
        budget: Budget | None = None,
        window: int | None = None,
        **how: Any,
    ) -> Process:
        """A new process. `limit`: capabilities that it can be granted, within its parent's where it has one; `budget`
        and `window` are kept for who opens it later.

        KernelError for a tool that there is not, or a capability that its parent has not."""
        for name in tools:
            if name != RECALL:
                self.drivers[name]  # or KernelError
        wanted = parent.child_limit(limit) if parent is not None else tuple(map(normal, limit))
        body: dict[str, Any] = {"model": model, "system": system, "tools": list(tools), "limit": list(wanted)}
        body |= {"parent": None if parent is None else parent.pid, "adapter": adapter, "window": window}
        body["budget"] = vars(budget or Budget())
        event = self.log.begin("begin", body)
        return self.open(event.pid, **how)

    def open(
        self,
        pid: int,
        budget: Budget | None = None,
        paging: bool = True,
        window: int | None = None,
        background: bool = False,
    ) -> Process:
        """A process that is in the log, with the budget and the window that it began with where none are given.
        KernelError where there is none."""
        body = self.beginning(pid)
        image = self.image(str(body["model"]), str(body.get("adapter", "")))
        budget, window = budget or Budget(**body.get("budget", {})), window or body.get("window")
        return Process(pid, self.log, image, self.drivers, self.grants, budget, paging, window, background)

    def beginning(self, pid: int) -> Mapping[str, Any]:
        """What a process that is in the log began with, and what of it was changed since. KernelError where there is
        none."""
        events = self.log.events(pid)
        first = next((event for event in events if event.kind == "begin"), None)
        if first is None:
            raise KernelError(f"process {pid} has no beginning", "twofile ps")
        found = dict(first.body)
        for event in events:
            if event.kind == "changed":
                found |= event.body
        return found

    def change(self, pid: int, **what: Any) -> None:
        """Go on with another `model`, `adapter`, `system`, `tools` or `sampling`; who opens the process next has it so.
        KernelError for something else, or while somebody speaks with it."""
        if unknown := what.keys() - {"model", "adapter", "system", "tools", "limit", "window", "sampling"}:
            raise KernelError(f"a process has no {min(unknown)} to change")
        for name in what.get("tools", ()):
            if name != RECALL:
                self.drivers[name]  # or KernelError
        if "limit" in what:
            what["limit"] = [normal(one) for one in what["limit"]]
        with self.log.speaking(pid):
            self.log.append(pid, "changed", what, self.log.end(pid))

    def fork(self, process: Process, upto: int | None = None, **how: Any) -> Process:
        """A branch of a process: its own from here on, with all that was before; the cache of keys and values is
        shared. `upto`: the last event that it has."""
        return self.open(self.log.fork(process.pid, upto).pid, **how)

    def release(self, model: str) -> None:
        """Let go of a model's engines, with its adapters; who needs it next opens it again."""
        with self._lock:
            gone = [self._images.pop(key) for key in list(self._images) if key[0] == model]
        for image in gone:
            image.scheduler.close()
            image.engine.close()

    @property
    def opened(self) -> list[str]:
        """The models whose engines are open."""
        with self._lock:
            return sorted({model for model, _ in self._images})

    def close(self) -> None:
        """Let go of everything. Closing twice is fine."""
        for image in self._images.values():
            image.scheduler.close()
            image.engine.close()
        self._images.clear()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
