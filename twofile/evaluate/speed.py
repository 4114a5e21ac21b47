"""How fast a parameters file runs, beside what the machine could do at most in the same minute.

A `Cell` is what is timed: passes from position 0 on with fixed random tokens, and no sampling. "decode" is 128 passes
of one token (llama-bench's tg128), "prefill 512" one pass of 512 tokens (pp512), "8 sessions" 32 passes of one token in
each of 8 sessions; tokens a second are those of all sessions together. The logits of each session's last token are
computed in every pass. Files come from the page cache.

Rounds of all runners are interleaved: a figure is the median over the rounds, with the lowest and the highest, and a
ratio is that of figures of the same round. Within a round a cell is repeated until `seconds` have passed, and the
median counts. A first round warms up and is not counted. The limits are measured too, multiplying at the beginning of a
round, reading before and after each cell: their mean is the cell's. A share above 100% means that the machine changed.

For the program everything from `Backend.evaluate` on is timed. Its Python costs about 6 microseconds a pass and 2 a
session more, which is counted; preparing the tokens is not.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import LAST, Backend
from twofile.engine.engine import Engine
from twofile.evaluate.limits import Limits, Machine
from twofile.evaluate.start import Start, fresh
from twofile.params.parameters import Parameters

__all__ = [
    "Cell",
    "Figure",
    "Ours",
    "Report",
    "Result",
    "Runner",
    "Spread",
    "Work",
    "cells",
    "environment",
    "measure",
    "spread",
]

_PAUSE = 0.02  # seconds between two runners, in which threads that spin go to sleep
_WARM = 4  # passes at most, in the round that warms up


@dataclass(frozen=True)
class Cell:
    """What is timed: `passes` passes of `tokens` tokens in each of `sessions` sessions."""

    name: str
    sessions: int
    tokens: int
    passes: int

    @property
    def total(self) -> int:
        return self.sessions * self.tokens * self.passes

    def ids(self, vocab: int) -> NDArray[np.int32]:
        """The tokens, [passes, sessions, tokens]: the same for every runner."""
        shape = self.passes, self.sessions, self.tokens
        return np.random.default_rng(0).integers(0, vocab, shape, dtype=np.int32)


def cells(context: int) -> tuple[Cell, ...]:
    """Everything that is timed, as far as it fits the context."""
    prefill = min(512, context)
    several = (Cell(f"{n} sessions", n, 1, min(32, context)) for n in (2, 4, 8, 16, 32))
    return Cell("decode", 1, 1, min(128, context)), Cell(f"prefill {prefill}", 1, prefill, 1), *several


class Spread(NamedTuple):
    """The middle of a figure's rounds, and its ends."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Figure:
    """One cell on one runner, round by round."""

    cell: Cell
    rates: tuple[float, ...]  # tokens a second
    shares: tuple[float, ...]  # of the speed that the limits of the round allow; empty where there are none
    bound: str  # what limits it: "read", "int8", "bf16", "f32", or "" where that is not known

    @property
    def rate(self) -> Spread:
        return spread(self.rates)


@dataclass(frozen=True)
class Result:
    """One runner."""

    program: str
    figures: tuple[Figure, ...]
    starts: tuple[Start, ...]


@dataclass(frozen=True)
class Report:
    """One parameters file, all runners; ours is the first."""

    model: str
    parameters: int
    bytes: int
    work: Work
    limits: tuple[Limits, ...]  # of every cell and round
    results: tuple[Result, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, and the median, lowest and highest of each figure."""
        found = asdict(self)
        for result, raw in zip(self.results, found["results"], strict=True):
            for figure, of_figure in zip(result.figures, raw["figures"], strict=True):
                of_figure["rate"] = figure.rate._asdict()
        decoded: dict[str, Any] = json.loads(json.dumps(found))
        return decoded


@dataclass(frozen=True)
class Work:
    """What a pass takes at least; attention is left out, which at these positions is a few percent."""

    weights: int  # bytes of the matrices, all of which are read in every pass; of an embedding only rows are
    body: int  # multiply-accumulates a token
    output: int  # and those for a row of logits
    kind: str  # "int8" where most bytes are quantised, else "bf16" or "f32"

    @classmethod
    def of(cls, parameters: Parameters) -> Work:
        tied, tensors = parameters.hyper.tied, parameters.tensors
        matrices = [t for t in tensors.values() if len(t.shape) == 2 and (tied or t.name != "token_embd.weight")]
        output = int(np.prod(tensors["token_embd.weight"].shape))
        held: dict[str, int] = {}
        for t in matrices:
            kind = {"F32": "f32", "F16": "f32", "BF16": "bf16"}.get(t.type, "int8")
            held[kind] = held.get(kind, 0) + t.bytes
        body = sum(t.shape[0] * t.shape[1] for t in matrices) - output
        return cls(sum(held.values()), body, output, max(held, key=lambda kind: held[kind]))

    def least(self, cell: Cell, limits: Limits) -> tuple[float, str]:
        """The seconds that a cell takes at the limits, and which limit that is."""
        kind = self.kind if self.kind != "bf16" or limits.bf16 else "f32"
        peak: float = getattr(limits, kind)
        multiplied = cell.total * self.body + cell.passes * cell.sessions * self.output
        times = {"read": cell.passes * self.weights / limits.read, kind: multiplied / peak if peak else 0.0}
        bound = max(times, key=lambda name: times[name])
        return times[bound], bound


class Runner(Protocol):
    """A program with a parameters file open in it."""

    name: str

    def run(self, cell: Cell) -> float:
        """Do a cell, from empty caches; the seconds it took."""
        ...

    def start(self) -> Start | None:
        """Begin anew, in a fresh process; None where that would not be comparable."""
        ...


class Ours:
    """This program."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        engine = Engine(path, threads)
        self.backend: Backend = engine.backend
        self.threads = engine.info.threads
        self.name = f"twofile ({engine.info.kernels})"

    def run(self, cell: Cell) -> float:
        ids = cell.ids(self.backend.info.vocab)
        caches = [self.backend.cache() for _ in range(cell.sessions)]
        passes = [[(cache, row, LAST) for cache, row in zip(caches, rows, strict=True)] for rows in ids]
        evaluate = self.backend.evaluate
        began = time.perf_counter()
        for steps in passes:
            evaluate(steps)
        return time.perf_counter() - began

    def start(self) -> Start:
        return fresh([sys.executable, "-m", "twofile.evaluate.start", str(self.path), str(self.threads)])


def measure(
    path: Path,
    runners: Sequence[Runner],
    machine: Machine | None,
    *,
    rounds: int = 5,
    seconds: float = 0.3,
    starts: int = 3,
) -> Report:
    """Measure a file on all runners. Takes about (rounds + 1) * 7 * runners * `seconds`, for a large file far more."""
    with Parameters.open(path) as parameters:
        work, hyper = Work.of(parameters), parameters.hyper
    wanted = cells(hyper.context_length)
    limits: list[list[Limits]] = [[] for _ in wanted]
    rates: list[list[list[float]]] = [[[] for _ in wanted] for _ in runners]
    for i in range(rounds + 1):
        found = machine.limits(work.weights) if machine else None
        for j, cell in enumerate(wanted):
            order = list(enumerate(runners))
            for k, runner in order if i % 2 else reversed(order):
                time.sleep(_PAUSE)
                if i:
                    rates[k][j].append(_rate(runner, cell, seconds))
                else:
                    runner.run(replace(cell, passes=min(cell.passes, _WARM)))
            if i and machine and found:
                before, found = found, replace(found, read=machine.read(work.weights))
                limits[j].append(replace(found, read=(before.read + found.read) / 2))
    begun: list[list[Start]] = [[] for _ in runners]
    for _ in range(starts):
        for k, runner in enumerate(runners):
            if start := runner.start():
                begun[k].append(start)
    results = tuple(
        Result(runner.name, tuple(_figures(wanted, rates[k], work, limits)), tuple(begun[k]))
        for k, runner in enumerate(runners)
    )
    return Report(path.stem, hyper.n_parameters, path.stat().st_size, work, tuple(chain(*limits)), results)


def _rate(runner: Runner, cell: Cell, seconds: float) -> float:
    """Tokens a second in one round."""
    times = [runner.run(cell)]
    while sum(times) < seconds:
        times.append(runner.run(cell))
    return cell.total / statistics.median(times)


def _figures(
    wanted: Sequence[Cell], rates: Sequence[Sequence[float]], work: Work, limits: Sequence[Sequence[Limits]]
) -> Iterator[Figure]:
    for cell, of_cell, allowed in zip(wanted, rates, limits, strict=True):
        least = [work.least(cell, of_round) for of_round in allowed]
        shares = tuple(rate * seconds / cell.total for rate, (seconds, _) in zip(of_cell, least, strict=False))
        bounds = [bound for _, bound in least]
        yield Figure(cell, tuple(of_cell), shares, statistics.mode(bounds) if bounds else "")


def environment(threads: int) -> dict[str, Any]:
    """What a figure depends on beside the code: when, on what, and how it was compiled."""
    from twofile import __version__
    from twofile.engine.build import build
    from twofile.evaluate.limits import processor

    built = build()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "processor": processor(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "twofile": __version__,
        "compiler": built.compiler,
        "flags": list(built.flags),
    }
