"""Where a run begins or goes on: what `twofile train` and `python -m twofile.train.pretrain` have alike.

The numbers of a new run are derived, shown with their laws, and kept in `recipe.json`. A run that is there already
keeps its recipe: only how long it goes on and who is told of it can change, and what else is asked of it is named and
ignored.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from twofile.errors import TrainError, TwofileError
from twofile.train import track
from twofile.train.parallel import World
from twofile.train.pretrain import recipe as recipes
from twofile.train.pretrain.dial import Derived, Machine
from twofile.train.pretrain.laws import table
from twofile.train.pretrain.recipe import Draft, Recipe, amend, complete, kept, load, read_draft, save

__all__ = ["begin", "go_on", "plainly", "settle", "show"]

_LENGTH = ("steps", "minutes")
_MAY_CHANGE = (*_LENGTH, "track")

Say = Callable[[str], Any]


def show(derived: Derived, say: Say, remark: Say) -> None:
    """Every number with its law and source; then what was asked for and cannot be had."""
    say(table(derived.lines))
    for text in derived.remarks:
        remark(f"note: {text}")


def begin(draft: Draft, data: Path, run: Path, machine: Callable[[], Machine], say: Say) -> Recipe:
    """A new run: its recipe, filled up, shown and saved. TrainError where it cannot be trained."""
    if tracker := draft.given.get("track"):
        track.check(tracker)
    recipe, derived = complete(draft, data, machine)
    show(derived, say, say)
    save(recipe, run, data, derived.lines, draft.told())
    return recipe


def go_on(run: Path, options: Mapping[str, Any], say: Say) -> tuple[Recipe, Path]:
    """The recipe of an earlier run and where its data lie; `options` are by the names of a draft's numbers, and what
    they change is saved. TrainError where there is no run."""
    recipe, data = load(run)
    if tracker := options.get("track"):
        track.check(tracker)
    now = _numbers(recipe)
    for name in sorted(options.keys() - set(_MAY_CHANGE)):
        if name not in now or now[name] != options[name]:
            say(_ignored(name, options[name], now))
    changed = recipe.lasting(*(options.get(name) for name in _LENGTH))
    if tracker:
        changed = changed.planned(track=tracker)
    if changed != recipe:
        amend(changed, run)
    return changed, data


def settle(path: Path, data: Path, run: Path, out: Path | None = None, say: Say = print, **options: Any) -> Recipe:
    """The recipe of a run, alike in all its processes: the one that lies in the run folder, or, of a new run, the file
    `path`, begun by the first process, which measures the machine where that matters.

    `options` (None changes nothing) replace numbers of a new run; of an earlier one see `go_on`. `out` is what will be
    written in the end: TrainError, before any work, where a new run would replace it. Whatever the first process
    meets, it alone raises; the others leave."""
    options = {name: value for name, value in options.items() if value is not None}
    failed: list[TwofileError | None] = [None]
    first = World.here().rank == 0
    if first:
        try:
            if (run / recipes.FILE).exists():
                go_on(run, options, say)
                for text in _otherwise(path, run, options):
                    say(text)
            elif out is not None and out.exists():
                raise TrainError(f"{out} is there already", "give another --out, or remove it")
            else:
                from twofile.train.pretrain.calibrate import calibrate

                begin(read_draft(path).with_options(options), data, run, calibrate, say)
        except TwofileError as error:
            failed = [error]
    if dist.is_initialized():
        dist.broadcast_object_list(failed)
    if failed[0] is not None:
        raise failed[0] if first else SystemExit(1)
    return load(run)[0]


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """What can go wrong becomes two lines on stderr and exit status 1, as on the command line."""
    try:
        yield
    except TwofileError as error:
        print(f"error: {error.message}", *([f"hint: {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
        raise SystemExit(1) from None


def _otherwise(path: Path, run: Path, options: Mapping[str, Any]) -> Iterator[str]:
    """What a recipe file says that a run was not begun with, and the other way round."""
    asked = kept(run).get("asked")
    if not asked or not path.is_file():
        return
    told = read_draft(path).with_options(options).told()
    now = asked | _numbers(load(run)[0])
    new_length = any(name in options for name in _LENGTH)
    for name in sorted(told.keys() | asked.keys()):
        if told.get(name) == asked.get(name) or name in options or (new_length and name in _LENGTH):
            continue
        yield _ignored(name, told[name], now) if name in told else f"{name} stays {now[name]}, as the run was begun"


def _numbers(recipe: Recipe) -> dict[str, Any]:
    more = ("batch", "micro", "seed", "within_documents")
    return vars(recipe.hyper) | vars(recipe.plan) | {name: getattr(recipe, name) for name in more}


def _ignored(name: str, value: Any, now: Mapping[str, Any]) -> str:
    return f"{name} {value} is ignored: a run that is resumed stays {now.get(name, 'as it is')}"
