"""A policy that is written down: what it says stands in a program. The control for a model that has the same tools.

A plan is a generator: it yields a call, is sent what came of it, and returns what is answered. `Script.turn` stands
where a model's turn would (`kernel.process.Image.turn`), so that everything else of a process is as always: the log,
what may be done, the drivers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from twofile.engine.calls import Called, Event, Finished
from twofile.engine.generate import Piece

__all__ = ["Call", "Plan", "Script"]

Call = tuple[str, dict[str, Any]]
"""A tool and its arguments."""

Plan = Generator[Call, str, str]


class Script:
    """Follows a plan. `results`: what the calls of the turn gave so far."""

    def __init__(self, plan: Plan, results: Callable[[], Sequence[str]]) -> None:
        self._plan, self._results, self._begun = plan, results, False

    def turn(self, scheduler: Any, engine: Any, ids: Sequence[int], **how: Any) -> _Turn:
        """The next thing that the plan says."""
        try:
            name, arguments = self._plan.send(self._results()[-1]) if self._begun else next(self._plan)
            self._begun = True
            return _Turn([Called(name, json.dumps(arguments)), Finished("calls", len(ids), 0, 0)])
        except StopIteration as over:
            return _Turn([Piece(0, str(over.value)), Finished("end", len(ids), 0, 0)])


class _Turn:
    """As `engine.calls.Turn`."""

    def __init__(self, events: list[Event]) -> None:
        self._events = iter(events)

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def cancel(self) -> None:
        self._events = iter(())
