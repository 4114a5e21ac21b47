"""A ladder: a family of small runs on one text, the law that they follow, and what a larger run will reach.

Every rung is a run folder of its own, with the numbers that the dial derives for its size and length; vocabulary,
context and packed text are shared, so that losses compare. `ladder.json` holds the points, the fit and the predictions;
a prediction is written there before its run is trained, and the outcome beside it afterwards. `rungs.json` holds what a
later call goes on with: sizes and lengths, the machine as it was measured, and what the draft told. Guarantees: the
same call goes on where an earlier one was stopped, a finished rung is never trained again, and another text, seed or
number is refused. Cost: the sum of the runs.

The loss is bits per byte of the held-out text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from twofile.errors import TrainError
from twofile.html.figures import quantity
from twofile.params.atomic import write_json
from twofile.train import track
from twofile.train.history import last_with, number
from twofile.train.pretrain import recipe as recipes
from twofile.train.pretrain.dial import Derived, Dial, Machine, derive, tokens_in
from twofile.train.pretrain.prepare import prepare
from twofile.train.pretrain.recipe import Draft, Recipe
from twofile.train.pretrain.scaling import FEWEST, Fit, fit
from twofile.train.pretrain.stage import pretrain

__all__ = ["Ladder", "Rung", "largest", "rungs", "sizes_for"]

RATIOS = (5.0, 10.0, 20.0)
FACTOR = 8.0  # how many times the operations of the largest rung a prediction is for, where nobody says
_HALVINGS = 4  # sizes: the largest, a half, a quarter, an eighth
_SMALLEST = 131_072  # parameters: no smaller model is made
_SHARED = "text"
_FILE = "ladder.json"
_RUNGS = "rungs.json"
_MINUTES = 30.0


@dataclass(frozen=True)
class Rung:
    """A run to be made: about so many parameters, about so many tokens."""

    params: float
    tokens: float
    seed: int = 0


def rungs(sizes: Sequence[float], ratios: Sequence[float], seeds: int = 1) -> list[Rung]:
    """Every size at every ratio of tokens to parameters, cheapest first."""
    found = [Rung(n, n * ratio, seed) for n in sizes for ratio in ratios for seed in range(seeds)]
    return sorted(found, key=lambda rung: rung.params * rung.tokens)


def sizes_for(minutes: float, machine: Machine, ratios: Sequence[float], seeds: int = 1) -> list[float]:
    """The largest family, each half the one above, whose runs together take so long on this machine; the smallest that
    is one, where there is no time for a larger."""

    def seconds(largest: float) -> float:
        family = [largest / 2**i for i in range(_HALVINGS)]
        return sum(
            derive(Dial(params=rung.params, tokens=rung.tokens), 0, machine).seconds
            for rung in rungs(family, ratios, seeds)
        )

    low, high = math.log(_SMALLEST * 2 ** (_HALVINGS - 1)), math.log(1e10)
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if seconds(math.exp(middle)) < 60 * minutes else (low, middle)
    return [math.exp(low) / 2**i for i in range(_HALVINGS)]


class Ladder:
    """A ladder in a folder: climb it, read its fit, predict, verify.

    `machine` measures, for the first call. TrainError where the folder holds another ladder, or something else."""

    def __init__(
        self,
        draft: Draft,
        data: Path,
        folder: Path,
        machine: Callable[[], Machine],
        say: Callable[[str], None] = print,
    ) -> None:
        self.data, self.folder, self.say = data, folder, say
        self.draft, self._minutes = self._of_rungs(draft)
        if tracker := draft.given.get("track"):
            track.check(tracker)
        self.bytes = recipes.text_bytes(draft.sources, data)
        self._begun = self._claim(machine)
        known = dict(self._begun["machine"])
        known["rates"] = tuple((width, rate) for width, rate in known["rates"])
        self.machine = Machine(**known)

    def _of_rungs(self, draft: Draft) -> tuple[Draft, float | None]:
        """A draft without what the rungs say, how large and how long; and the minutes it gave."""
        minutes = draft.given.get("minutes", draft.dial.minutes)
        asked = {**dataclasses.asdict(draft.dial), **draft.given}
        for name in ("params", "depth", "tokens", "steps"):
            if asked.get(name) is not None:
                self.say(f"{name} is ignored: a ladder has sizes and ratios")
        if {"dim", "n_layers"} <= asked.keys():
            draft = draft.with_options({"params": 1.0})  # all that fixes the size gives way
        for text in draft.remarks:
            self.say(f"note: {text}")
        given = {name: value for name, value in draft.given.items() if name not in ("steps", "minutes")}
        return dataclasses.replace(draft, dial=Dial(), given=given, remarks=()), minutes

    def _claim(self, machine: Callable[[], Machine]) -> dict[str, Any]:
        """Begin the folder, or find it begun with the same draft."""
        path, told = self.folder / _RUNGS, self.draft.told(self.data)
        told.pop("track", None)  # who is told changes nothing
        if not path.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise TrainError(f"{self.folder} holds other things", "give a new folder")
            self.folder.mkdir(parents=True, exist_ok=True)
            begun = {"sizes": [], "ratios": [], "seeds": 1, "machine": dataclasses.asdict(machine()), "asked": told}
            write_json(path, begun)
            return begun
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            asked = found["asked"]
        except (ValueError, KeyError) as error:
            raise TrainError(f"{path} cannot be read ({error!r})", "climb another folder") from error
        if others := [name for name in sorted(told.keys() | asked.keys()) if told.get(name) != asked.get(name)]:
            was = ", ".join(f"{name} was {asked.get(name, 'not given')}" for name in others)
            raise TrainError(f"{self.folder} is a ladder of something else: {was}", "give another --into")
        return found

    def wanted(
        self,
        sizes: Sequence[float] | None = None,
        ratios: Sequence[float] | None = None,
        seeds: int | None = None,
    ) -> list[Rung]:
        """The rungs that a person asks for; what is left out is as it was the last time, and at first what there is
        time for. Kept for the next call."""
        begun = self._begun
        if begun["sizes"] and sizes is None:
            self.say("going on with the ladder that is there")
        ratios, seeds = ratios or begun["ratios"] or RATIOS, seeds or begun["seeds"]
        if not (sizes := sizes or begun["sizes"]):
            sizes = sizes_for(self._minutes or _MINUTES, self.machine, ratios, seeds)
        elif self._minutes is not None:
            self.say("minutes is ignored: the sizes say how long it takes")
        begun |= {"sizes": list(sizes), "ratios": list(ratios), "seeds": seeds}
        write_json(self.folder / _RUNGS, begun)
        return rungs(sizes, ratios, seeds)

    def derive(self, rung: Rung, shared: dict[str, int]) -> tuple[Recipe, Derived]:
        """The recipe of a rung."""
        dial = Dial(params=rung.params, tokens=rung.tokens)
        found = derive(dial, self.bytes, self.machine, shared | dict(self.draft.given))
        name = f"{found.hyper.n_parameters}-{found.tokens:.0f}" + (f"-{rung.seed}" if rung.seed else "")
        return dataclasses.replace(self.draft.recipe(found), name=name, seed=self.draft.seed + rung.seed), found

    def climb(self, wanted: Sequence[Rung]) -> Fit:
        """Train every rung that is not trained yet and fit the law. TrainError where too few points come of it, or a
        run is stopped (the same call goes on)."""
        shared = self._shared(wanted)
        models = {recipe.hyper.n_parameters for recipe, _ in (self.derive(rung, shared) for rung in wanted)}
        if len(models) < 2:
            message = f"all runs would be of one size, {quantity(models.pop())} parameters: no law can be fitted"
            raise TrainError(message, "give --sizes that are further apart, or larger")
        trained = [self._train(rung, shared) for rung in wanted]
        points = list({point["run"]: point for point in trained}.values())  # two sizes may mean one model
        told = self.read()
        law = self._fit(points)
        found = {"points": _with_intervals(points, law), "fit": law.to_json(), "predictions": told["predictions"]}
        write_json(self.folder / _FILE, found)
        return law

    def predict(self, law: Fit, rung: Rung, *, verify: bool = False) -> dict[str, Any]:
        """Foretell a run, write that down, and, where asked, train it and write down what it reached."""
        shared = self._shared([rung])
        recipe, found = self.derive(rung, shared)
        size, tokens = recipe.hyper.n_parameters, found.tokens
        told = self.read()
        entry = next((p for p in told["predictions"] if (p["params"], p["tokens"]) == (size, tokens)), None)
        if entry is None or entry["outcome"] is None:
            told["predictions"] = [p for p in told["predictions"] if p is not entry]
            entry = {"params": size, "tokens": tokens, **dataclasses.asdict(law.predict(size, tokens)), "outcome": None}
            told["predictions"].append(entry)
            write_json(self.folder / _FILE, told)
        if verify and entry["outcome"] is None:
            entry["outcome"] = self._train(rung, shared)["loss"]
            write_json(self.folder / _FILE, told)
        return entry

    def read(self) -> dict[str, Any]:
        """What is known so far: points, fit, predictions."""
        try:
            found: dict[str, Any] = json.loads((self.folder / _FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"points": [], "fit": {}, "predictions": []}
        except ValueError as error:
            raise TrainError(f"{self.folder / _FILE} cannot be read ({error})", "climb another folder") from error
        return found

    def _shared(self, wanted: Sequence[Rung]) -> dict[str, int]:
        """What all runs have alike: vocabulary and context of the middle size, fixed when the text was packed."""
        packed = self.folder / _SHARED
        if (packed / recipes.FILE).exists():
            hyper = recipes.load(packed)[0].hyper
            return {"vocab_size": hyper.vocab_size, "context_length": hyper.context_length}
        middle = sorted(wanted, key=lambda rung: rung.params)[len(wanted) // 2]
        recipe, found = self.derive(middle, {})
        recipes.save(recipe, packed, self.data, found.lines)
        return {"vocab_size": recipe.hyper.vocab_size, "context_length": recipe.hyper.context_length}

    def _train(self, rung: Rung, shared: dict[str, int]) -> dict[str, Any]:
        """Train a rung, or find that it is trained: its point."""
        recipe, found = self.derive(rung, shared)
        run = self.folder / recipe.name
        point: dict[str, Any] = {"params": recipe.hyper.n_parameters, "tokens": found.tokens, "run": run.name}
        if (reached := _outcome(run)) is None:
            packed = self.folder / _SHARED
            prepare(recipes.load(packed)[0], self.data, packed, self.say)
            _link(packed, run)
            if (run / recipes.FILE).exists():
                recipe = recipes.load(run)[0]
            else:
                recipes.save(recipe, run, self.data, found.lines)
            self.say(f"{run.name}: {quantity(point['params'])} parameters, {quantity(found.tokens)} tokens")
            torch.compiler.reset()  # what was compiled for the run before is of no use, and only so much is kept
            *_, result = pretrain(recipe, self.data, run, self.say)
            if not result.finished:
                raise TrainError(f"{run.name} was stopped", "the same command goes on")
            reached = _outcome(run)
        if reached is None:
            message = "the text leaves no held-out documents to measure a loss on"
            raise TrainError(message, "give more documents, or cut them with --split")
        return point | {"loss": reached}

    def _fit(self, points: list[dict[str, Any]]) -> Fit:
        if len(points) < FEWEST:
            message = f"{len(points)} different runs are too few to fit a law; {FEWEST} are the fewest"
            raise TrainError(message, "give more --sizes or --ratios, further apart")
        repeated = [p for p in points if p["tokens"] > 4 * tokens_in(self.bytes, self._vocabulary())]
        if repeated:
            self.say(f"{len(repeated)} runs repeat the text more than 4 times: the law knows no repetition")
        return fit(*([p[key] for p in points] for key in ("params", "tokens", "loss")))

    def _vocabulary(self) -> int:
        return recipes.load(self.folder / _SHARED)[0].hyper.vocab_size


def _with_intervals(points: Iterable[dict[str, Any]], law: Fit) -> list[dict[str, Any]]:
    """Each point with the interval in which its run would lie were it trained again with another seed."""
    wide = math.exp(1.96 * law.scatter)
    return [point | {"interval": [point["loss"] / wide, point["loss"] * wide]} for point in points]


def _outcome(run: Path) -> float | None:
    """The bits per byte that a finished run reached."""
    last = last_with(run, lambda line: line.get("finished") is True)
    return number(last.get("bpb")) if last else None


def _link(packed: Path, run: Path) -> None:
    """Give a run the packed text without a second copy of it, where the disk can do that."""
    for path in packed.rglob("*"):
        target = run / path.relative_to(packed)
        if path.is_dir() or path.name == recipes.FILE or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copy2(path, target)


def largest(wanted: Sequence[Rung]) -> Rung:
    """A run of eight times the operations of the largest rung: the square root of that in size and in length."""
    top = max(wanted, key=lambda rung: rung.params * rung.tokens)
    return Rung(top.params * math.sqrt(FACTOR), top.tokens * math.sqrt(FACTOR))
