"""Watching a run: every step a line of `log.jsonl`, and on the screen what it means.

`Watch` takes what the loop knows of a step and adds what follows from it: tokens a second, the share of the machine's
matrix peak, the time left, memory. On a terminal it shows them live (`view.py`); elsewhere a line every 20 seconds and
at every validation. Guarantees: a line is in the file when `step` returns, so a killed process loses none; a line that
was cut off by a kill does not spoil the next; only the first process of several writes and speaks. Costs 15
microseconds a step and, on a terminal, 2 milliseconds at most four times a second.

A line: step, loss (nats a token), norm (of the gradient), rate (of the learning rate's peak, 0 to 1), tokens and
seconds (so far), speed (tokens a second), share (of the peak, 0 to 1), memory (bytes, every ten seconds); with a
validation bpb and bpb_<source>; or "event": "machine" | "resumed" | "saved" | "dream" | "warning" and what belongs to
it. A figure that is not known is left out, one that is no finite number is null.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofile.errors import TrainError
from twofile.html.figures import percent, span
from twofile.train.machine import machine, memory

if TYPE_CHECKING:
    from rich.console import Console

    from twofile.train.loop import Plan
    from twofile.train.track import Tracker

__all__ = ["Now", "Watch"]

_LINE = 20.0  # seconds between lines where there is no terminal
_MEMORY = 10.0  # seconds between looks at the memory
_WINDOW = 60.0  # seconds over which speed and pace are averaged for people
_SPARKS = 400  # losses kept for the little curve


@dataclass
class Now:
    """What a view shows."""

    name: str
    steps: int | None  # in all, where the plan says so
    peak: float | None  # FLOP/s
    progress: float = 0.0
    values: dict[str, float | int | None] = field(default_factory=dict)  # the newest of each
    before: dict[str, float] = field(default_factory=dict)  # bits per byte at the validation before the last
    losses: list[float] = field(default_factory=list)  # of the whole run, thinned
    speed: float | None = None  # over the last minute
    left: float | None = None  # seconds
    memory: int = 0
    dream: tuple[int, str] | None = None  # (step, text)


class Watch:
    """A context around the steps of a run. `run`: its folder; `name`: of the stage; `peak`: FLOP/s of all processes
    together, with `flops_per_step` what the share is made of; `first`: False in all processes but one.

    Raises TrainError when the disk refuses the log, or the tracker that the plan asks for cannot begin."""

    def __init__(
        self,
        run: Path,
        name: str,
        *,
        plan: Plan,
        peak: float | None = None,
        flops_per_step: float = 0.0,
        processes: int = 1,
        first: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._plan, self._first, self._clock = run, plan, first, clock
        self._peak, self._flops, self._processes = peak, flops_per_step, processes
        self._console = console
        self._now = Now(name, plan.steps, peak)
        self._paused = 0.0  # seconds spent in `pause`, to be left out of the clock
        self._recent: deque[tuple[float, float, float]] = deque()  # (clock, tokens, progress) of the last minute
        self._every = 1  # steps for a point of the little curve
        self._line_at = self._memory_at = -math.inf
        self._tracker: Tracker | None = None
        self._view: Any = None

    def __enter__(self) -> Watch:
        if not self._first:
            return self
        from rich.console import Console

        self._console = self._console or Console(stderr=True)
        if kind := self._plan.track:
            from twofile.train.track import Tracker

            self._tracker = Tracker(kind, self._run, _json(self._run / "recipe.json"), self.say)
        self._log = _open(self._run / "log.jsonl")
        known = {"processes": self._processes, "peak": self._peak, "flops_per_step": self._flops or None}
        found = machine() | {key: value for key, value in known.items() if value is not None}
        self.event("machine", time=datetime.now(UTC).isoformat(timespec="seconds"), **found)
        if self._console.is_terminal:
            from twofile.train.view import View

            self._view = View(self._console)
            self._view.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._first:
            return
        if self._view is not None:
            self._view.stop(self._now)
        self._log.close()
        if self._tracker is not None:
            self._tracker.close()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time that is no training (validation, saving, dreaming): it does not count against the speed."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    def step(self, values: Mapping[str, float | int | bool], progress: float) -> None:
        """One step is done: log it and show it. `values` as the head of this file says, with `tokens` in all;
        `progress`: how much of the run lies behind, 1 at its end."""
        if not self._first:
            return
        clock = self._clock() - self._paused
        line = self._speed(clock, float(values.get("tokens", 0)))
        line = {**values, **{key: value for key, value in line.items() if key not in values}}
        if self._clock() - self._memory_at > _MEMORY:
            self._memory_at = self._clock()
            line["memory"] = self._now.memory = memory()
        self._write(line)
        if self._tracker is not None:
            self._tracker.log({k: v for k, v in line.items() if k != "step"}, int(line.get("step", 0)))
        self._pace(clock, float(values.get("tokens", 0)), progress)
        self._remember(line, progress)
        if self._view is not None:
            self._view.show(self._now)
        elif (
            any(key.startswith("bpb") for key in line) or line.get("finished") or self._clock() - self._line_at > _LINE
        ):
            self._line_at = self._clock()
            print(_words(self._now, line), file=sys.stderr, flush=True)

    def event(self, kind: str, **values: Any) -> None:
        """Something that is no step, into the log. A "dream" (`step`, `text`) and a "warning" (`text`) are shown."""
        if not self._first:
            return
        self._write({"event": kind, **values})
        if kind == "warning":
            self.say(str(values["text"]))
        if kind == "dream":
            self._now.dream = (int(values.get("step", 0)), str(values["text"]))
            if self._view is not None:
                self._view.show(self._now)

    def say(self, text: str) -> None:
        """A remark for the person: above the live view, or a line."""
        if not self._first:
            return
        if self._view is not None:
            self._view.say(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _speed(self, clock: float, tokens: float) -> dict[str, float]:
        """Of this step alone. The first step has none: it began before the watch, and compiles."""
        if not self._recent or clock <= self._recent[-1][0] or tokens <= self._recent[-1][1]:
            return {}
        then, had, _ = self._recent[-1]
        took = clock - then
        share = {"share": self._flops / took / self._peak} if self._peak and self._flops else {}
        return {"speed": (tokens - had) / took} | share

    def _pace(self, clock: float, tokens: float, progress: float) -> None:
        """Speed and time left, from the last minute (or the last two steps, where they take longer)."""
        self._recent.append((clock, tokens, progress))
        while len(self._recent) > 2 and self._recent[1][0] < clock - _WINDOW:
            self._recent.popleft()
        then, had, before = self._recent[0]
        if clock > then and progress > before:
            self._now.speed = (tokens - had) / (clock - then)
            self._now.left = max(0.0, 1 - progress) * (clock - then) / (progress - before)

    def _remember(self, line: dict[str, Any], progress: float) -> None:
        now = self._now
        now.progress = progress
        if any(key.startswith("bpb") for key in line):
            now.before = {k: v for k, v in now.values.items() if k.startswith("bpb") and v is not None}
        now.values.update(line)
        if "loss" in line and int(line.get("step", 0)) % self._every == 0:
            now.losses.append(float(line["loss"]))
            if len(now.losses) > _SPARKS:
                now.losses = now.losses[::2]
                self._every *= 2

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._log.write(json.dumps({key: _short(value) for key, value in line.items()}, ensure_ascii=False) + "\n")
            self._log.flush()
        except OSError as error:
            raise TrainError(f"cannot write {self._run / 'log.jsonl'}: {error.strerror}") from error


def _open(path: Path) -> Any:
    """The log, to be written on; after half a line that a kill has left, on a new one."""
    try:
        stream = path.open("ab+")
        if stream.tell():
            stream.seek(-1, 2)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.close()
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise TrainError(f"cannot write {path}: {error.strerror}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> Any:
    """Seven digits are enough, and JSON knows no infinity."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def _words(now: Now, line: Mapping[str, Any]) -> str:
    """A line for a place without a terminal."""
    parts = [f"{now.progress:6.1%}", f"step {now.values.get('step', 0)}"]
    if isinstance(loss := line.get("loss"), float | int):
        parts.append(f"loss {loss:.4f}")
    parts += [
        f"{key.replace('bpb_', '').replace('bpb', 'bits per byte')} {line[key]:.4f}"
        for key in line
        if key.startswith("bpb")
    ]
    if now.speed:
        parts.append(f"{now.speed:,.0f} tokens/s")
        if now.peak and line.get("share"):
            parts.append(f"{percent(line['share'])} of the matrix peak")
    if now.left is not None and not line.get("finished"):
        parts.append(f"{span(now.left)} left")
    parts.append(f"{now.memory / 1e9:.2f} GB")
    return "  ".join(parts)
