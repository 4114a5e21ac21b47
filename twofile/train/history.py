"""What a run folder tells, read back: the log, the recipe, the corpus, the machine, a ladder's predictions.

Guarantees: a log that was cut off anywhere is read as far as it goes, and what cannot be read is counted; of a step
that was written more than once, which is what a resumed run does, the last line counts, and what the run threw away by
going back is left out; memory is bounded whatever the length of the log: the steps are gathered in at most `POINTS`
groups, each with mean, smallest and largest. Cost: the log is read twice, about 12 microseconds a line in all.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from twofile.errors import NotFoundError

__all__ = ["POINTS", "Group", "History", "Mark", "Spread", "last_with", "number", "read"]

POINTS = 600
"""Groups of steps: more than a screen shows beside one another."""

_MEASURES = ("loss", "norm", "rate", "speed", "share", "memory")
_LONGEST = 1 << 20  # bytes of a line
_DECODER = json.JSONDecoder()
_VALIDATIONS, _DREAMS, _STARTS = 400, 24, 200  # kept at most

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """A place in a run."""

    step: int
    tokens: float
    seconds: float


@dataclass
class Spread:
    """The values of one measure within a group of steps."""

    n: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        self.n += 1
        self.total += value
        if value < self.low:  # min and max take four times as long, and a long log has millions
            self.low = value
        if value > self.high:
            self.high = value

    @property
    def mean(self) -> float:
        return self.total / self.n


@dataclass
class Group:
    """Steps that follow one another: where the last of them stands, and the spread of what was measured."""

    at: Mark
    of: dict[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """One run. `validations` hold bits per byte by source; that of all sources together has the name ""."""

    folder: Path
    name: str
    groups: tuple[Group, ...]
    validations: tuple[tuple[Mark, dict[str, float]], ...]
    dreams: tuple[tuple[int, str], ...]  # (step, text)
    resumed: tuple[Mark, ...]
    machines: tuple[dict[str, Any], ...]  # one for each start on another machine than the one before
    warnings: tuple[str, ...]
    finished: bool
    unreadable: int  # lines
    recipe: dict[str, Any]
    corpus: dict[str, Any]
    ladder: dict[str, Any]

    @property
    def end(self) -> Mark:
        return self.groups[-1].at if self.groups else Mark(0, 0.0, 0.0)


def read(folder: Path) -> History:
    """The history of a run folder. NotFoundError where the folder holds neither a log nor a ladder."""
    path = folder / "log.jsonl"
    if not path.is_file() and not (folder / "ladder.json").is_file():
        what = f"{folder} holds no run: there is no log.jsonl in it" if folder.is_dir() else f"there is no run {folder}"
        raise NotFoundError(what, "give the folder that `twofile train` names when it begins")
    log = _Log(path)
    if path.is_file():
        log.read()
    return History(
        folder=folder,
        name=folder.resolve().name,
        groups=tuple(log.groups[i] for i in sorted(log.groups)),
        validations=tuple({at.step: (at, bits) for at, bits in log.validations.all()}.values()),
        dreams=log.dreams.all(),
        resumed=log.resumed.all(),
        machines=tuple(log.machines),
        warnings=log.warnings.all(),
        finished=log.finished,
        unreadable=log.unreadable,
        recipe=_table(folder / "recipe.json"),
        corpus=_table(folder / "corpus.json") | ({"card": card} if (card := _table(folder / "card.json")) else {}),
        ladder=_table(folder / "ladder.json"),
    )


def last_with(run: Path, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any] | None:
    """The newest line of a run's log that `wanted` accepts; None where there is none. What a kill tore is passed over.

    Read from the end, so it costs what lies behind that line."""
    try:
        with (run / "log.jsonl").open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as log:
            end = len(log)
            while end > 0:
                start = log.rfind(b"\n", 0, end) + 1
                found = _parsed(log[start:end]) if 0 < end - start <= _LONGEST else None
                if found is not None and wanted(found):
                    return found
                end = start - 1
    except (FileNotFoundError, ValueError):  # no log, or an empty one, which cannot be mapped
        pass
    return None


def _table(path: Path) -> dict[str, Any]:
    """A JSON file beside the log; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def number(value: object) -> float | None:
    """A number that can be drawn, or None."""
    if type(value) is not float and type(value) is not int:
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) < 1e100 else None  # neither infinite nor nan


class _Few(Generic[T]):
    """A list that stays below `most` (even): when it is full every second entry goes, and only every second one comes
    in from then on. The newest is always there."""

    def __init__(self, most: int) -> None:
        self._most, self._every, self._count = most, 1, 0
        self._kept: list[T] = []
        self._newest: list[T] = []

    def add(self, value: T) -> None:
        self._newest = [value]
        if self._count % self._every == 0:
            self._kept.append(value)
            self._newest = []
            if len(self._kept) > self._most:
                self._kept = self._kept[::2]
                self._every *= 2
        self._count += 1

    def all(self) -> tuple[T, ...]:
        return (*self._kept, *self._newest)


class _Log:
    """The log, read in two passes: first where the run went back, then the lines that count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.groups: dict[int, Group] = {}
        self.validations: _Few[tuple[Mark, dict[str, float]]] = _Few(_VALIDATIONS)
        self.dreams: _Few[tuple[int, str]] = _Few(_DREAMS)
        self.resumed: _Few[Mark] = _Few(_STARTS)
        self.warnings: _Few[str] = _Few(_DREAMS)
        self.machines: list[dict[str, Any]] = []
        self.finished = False
        self.unreadable = 0

    def read(self) -> None:
        size = self.path.stat().st_size  # a run may be writing: both passes end here
        starts: list[int] = []  # the first step of each part
        last = 0
        for line in self._lines(size):
            if line is None:
                self.unreadable += 1
            elif (step := _trained(line)) is not None:
                if not starts or step <= last:
                    starts.append(step)
                last = step
        bounds = [math.inf]  # a part counts up to where a later one begins
        for start in reversed(starts[1:]):
            bounds.append(min(bounds[-1], start))
        self._gather(size, bounds[::-1], min(starts, default=0), last)

    def _gather(self, size: int, bounds: list[float], first: int, last: int) -> None:
        part, before = 0, first - 1
        at = Mark(0, 0.0, 0.0)
        resumed = False
        for line in self._lines(size):
            if line is None:
                continue
            step = _trained(line)
            if step is None:
                resumed |= self._event(line, at, bounds[part])
                continue
            if step <= before:
                part += 1
                resumed = True
            before = step
            if step >= bounds[part]:
                continue
            if resumed and self.groups:
                self.resumed.add(at)
            resumed = self.finished = False
            at = Mark(step, _or(line.get("tokens"), at.tokens), _or(line.get("seconds"), at.seconds))
            group = self.groups.setdefault((step - first) * POINTS // (last - first + 1), Group(at))
            group.at = at
            for key in _MEASURES:
                if (value := number(line.get(key))) is not None:
                    group.of.setdefault(key, Spread()).add(value)
            self._validation(line, at)

    def _event(self, line: dict[str, Any], at: Mark, bound: float) -> bool:
        """A line that is no step; True where it says that the run was resumed."""
        step = _or(line.get("step"), at.step)
        if step >= bound:
            return False  # of a part that was thrown away
        kind = line.get("event")
        if kind == "dream" and isinstance(line.get("text"), str):
            self.dreams.add((int(step), line["text"]))
        elif kind == "warning" and isinstance(line.get("text"), str):
            self.warnings.add(line["text"])
        elif kind == "machine":
            known = {key: value for key, value in line.items() if key not in ("event", "time", "step")}
            if (not self.machines or known != self.machines[-1]) and len(self.machines) < _STARTS:
                self.machines.append(known)
        self.finished |= line.get("finished") is True
        self._validation(line, at)
        return kind == "resumed"

    def _validation(self, line: dict[str, Any], at: Mark) -> None:
        found = {key[4:]: number(line[key]) for key in line if key == "bpb" or key.startswith("bpb_")}
        bits = {key: value for key, value in found.items() if value is not None}
        if bits:
            self.validations.add((at, bits))

    def _lines(self, size: int) -> Iterator[dict[str, Any] | None]:
        """Every line as a table; None for one that is none, or too long."""
        with self.path.open("rb") as stream:
            done = 0
            while done < size and (line := stream.readline(min(_LONGEST, size - done))):
                done += len(line)
                if line.strip():
                    yield _parsed(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line, or the whole line that follows half a line: a killed run's last words and its successor's first."""
    try:
        found = _DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError):
        start = line.rfind(b'{"')
        return _parsed(line[start:]) if start > 0 else None
    return found if isinstance(found, dict) else None


def _trained(line: dict[str, Any]) -> int | None:
    """The step of a line about training; None for events and for the line at the end."""
    step = number(line.get("step"))
    return int(step) if step is not None and "loss" in line and not line.get("finished") else None


def _or(value: object, other: float) -> float:
    found = number(value)
    return other if found is None else found
