"""What a run of tuning was asked for, kept in its folder as `tune.json`, so that it goes on as it began.

Guarantee: a run that is resumed has the base and the data it began with, byte for byte, and every number but its
length; what else is asked of it is named and ignored. Cost: the checksums of the base and the data, once a start.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twofile.errors import TrainError
from twofile.params.atomic import read_json, write_json
from twofile.params.checksum import file_sha256
from twofile.train import checkpoint
from twofile.train.loop import Plan

__all__ = ["FILE", "Settings", "begin", "kept"]

FILE = "tune.json"
_LENGTH = ("steps", "minutes", "track")


@dataclass(frozen=True)
class Settings:
    """A stage of tuning, before it is run. `options`: numbers and words of the stage's own (beta, rank, ...)."""

    stage: str
    base: Path  # a parameters file
    data: tuple[Path, ...]
    plan: Plan
    context: int  # tokens of a row
    batch: int = 16  # rows a step
    micro: int = 8  # rows at a time
    seed: int = 0
    held_out: float = 0.05  # share of the data kept to measure on
    options: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Path] = field(default_factory=dict)  # files that the run depends on beside its data: a judge

    def __post_init__(self) -> None:
        if self.batch < 1 or self.micro < 1 or self.batch % self.micro:
            raise TrainError(f"batch {self.batch} is not a multiple of micro {self.micro}")
        if not 0 <= self.held_out < 1:
            raise TrainError(f"held_out is {self.held_out}: a share from 0 to less than 1")

    def table(self) -> dict[str, Any]:
        """As JSON knows it, flat: the numbers of the plan and the stage's own among the others."""
        own = {name: getattr(self, name) for name in ("stage", "context", "batch", "micro", "seed", "held_out")}
        options = {f"{self.stage}.{name}" if hasattr(self.plan, name) else name: v for name, v in self.options.items()}
        table: dict[str, Any] = json.loads(json.dumps(own | dataclasses.asdict(self.plan) | options))
        return table


def begin(settings: Settings, run: Path, say: Callable[[str], object]) -> Settings:
    """Settle what a run does: as asked where it is new, as it began where there is a checkpoint to go on from, but for
    how long. TrainError where its base or its data are other files by now."""
    files = {"base": settings.base, **{f"data {i}": path for i, path in enumerate(settings.data)}, **settings.others}
    hashes = {name: file_sha256(path) for name, path in files.items()}
    if checkpoint.checkpoints(run):
        before = kept(run)
        for name in sorted(hashes.keys() | before["hashes"].keys()):
            if before["hashes"].get(name) != hashes.get(name):
                what = files.get(name, "its data")
                hint = "name the same files, or train into another folder"
                raise TrainError(f"{run} has learned from something else: {what} is another file now", hint)
        if before["asked"]["stage"] != settings.stage:
            message = f"{run} is a run of {before['asked']['stage']}, not of {settings.stage}"
            raise TrainError(message, "resume it with the command that began it, or train into another folder")
        now = settings.table()
        for name, value in sorted(now.items()):
            if name not in _LENGTH and before["asked"].get(name) != value:
                say(f"{name} {value} is ignored: a run that is resumed stays {before['asked'].get(name)}")
        was, plan = before["asked"], settings.plan
        names = {entry.name for entry in dataclasses.fields(Plan)} - set(_LENGTH)
        plan = dataclasses.replace(plan, **{name: was[name] for name in names if name in was})
        own = {name: was[name] for name in ("context", "batch", "micro", "seed", "held_out")}
        options = dict(before["options"])
        settings = dataclasses.replace(settings, plan=plan, options=options, **own)
    run.mkdir(parents=True, exist_ok=True)
    named = {name: str(path) for name, path in files.items()}
    told = {"asked": settings.table(), "options": dict(settings.options), "hashes": hashes, "files": named}
    write_json(run / FILE, told)
    return settings


def kept(run: Path) -> dict[str, Any]:
    """`tune.json` as it lies in a run folder. TrainError where there is none that can be read."""
    return read_json(run / FILE, TrainError, "train into another folder")
