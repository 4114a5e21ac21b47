"""The kernel: one log, the models that are open, the drivers that there are, and the processes on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
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

__all__ = ["Kernel"]

RECALL = "recall"  # a driver that each process has of its own


class Kernel:
    """A context manager; closing it closes the engines it opened and the log. `opener`: from a model's name to an
    engine."""

    def __init__(self, path: Path, drivers: Iterable[Driver] = (), opener: Callable[[str], Engine] = Engine) -> None:
        self.log = Log(path)
        self.drivers = Drivers(drivers)
        self._opener = opener
        self._images: dict[str, Image] = {}
        self._lock = threading.Lock()
        self.grants = Grants(self._kept(), self._keep)

    def _kept(self) -> list[Grant]:
        """The rules that the log has."""
        found: list[Grant] = []
        for event in self.log.events(0):
            rule = Grant(**event.body["rule"])
            if event.body["there"]:
                found.append(rule)
            elif rule in found:
                found.remove(rule)
        return found

    def _keep(self, rule: Grant, there: bool) -> None:
        self.log.note("grant", {"rule": vars(rule), "there": there})

    def image(self, model: str) -> Image:
        """What runs processes of a model; opened once."""
        with self._lock:
            if model not in self._images:
                engine = self._opener(model)
                self._images[model] = Image(engine, Scheduler(engine, swap=True), ChatTemplate.of(engine))
            return self._images[model]

    def spawn(
        self,
        model: str,
        system: str = "",
        tools: Sequence[str] = (),
        limit: Sequence[str] = (),
        parent: Process | None = None,
        **how: Any,
    ) -> Process:
        """A new process. `limit`: capabilities that it can be granted, within its parent's where it has one.

        KernelError for a tool that there is not, or a capability that its parent has not."""
        for name in tools:
            if name != RECALL:
                self.drivers[name]  # or KernelError
        wanted = parent.child_limit(limit) if parent is not None else tuple(map(normal, limit))
        body: dict[str, Any] = {"model": model, "system": system, "tools": list(tools), "limit": list(wanted)}
        body["parent"] = None if parent is None else parent.pid
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
        """A process that is in the log. KernelError where there is none."""
        first = next((event for event in self.log.events(pid) if event.kind == "begin"), None)
        if first is None:
            raise KernelError(f"process {pid} has no beginning", "twofile ps")
        image = self.image(str(first.body["model"]))
        return Process(pid, self.log, image, self.drivers, self.grants, budget or Budget(), paging, window, background)

    def fork(self, process: Process, upto: int | None = None, **how: Any) -> Process:
        """A branch of a process: its own from here on, with all that was before; the cache of keys and values is
        shared. `upto`: the last event that it has."""
        return self.open(self.log.fork(process.pid, upto).pid, **how)

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
