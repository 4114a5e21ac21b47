"""A recipe: everything a training run needs, read from TOML, filled up by the dial, and kept in the run folder.

A recipe file may give any of `name`, `description`, `licence`, `seed`, `batch`, `micro`, `within_documents`, `[dial]`
(minutes, params, depth, tokens), `[model]` (fields of Hyperparameters), `[plan]` (fields of Plan) and `[[source]]`
(fields of Source). What it does not give is derived (`dial.derive`). A key that nobody knows is an error that names the
nearest one. `recipe.json` in a run folder is the whole recipe as derived: what a resumed run and its report read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from twofile.errors import TrainError, TwofileError
from twofile.params.atomic import read_json, write_json
from twofile.params.hyper import Hyperparameters
from twofile.train.corpus import sources as corpus
from twofile.train.loop import Plan
from twofile.train.pretrain.dial import MODEL, PLAN, Derived, Dial, Machine, derive
from twofile.train.pretrain.laws import Line

__all__ = [
    "FILE",
    "Draft",
    "Recipe",
    "amend",
    "complete",
    "kept",
    "load",
    "read_draft",
    "read_recipe",
    "save",
    "text_bytes",
]

FILE = "recipe.json"
_COMPARE = "compare with recipes/bundled.toml"
_SHAPE = ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim")
_DIAL = tuple(entry.name for entry in dataclasses.fields(Dial))
_SOURCE = tuple(entry.name for entry in dataclasses.fields(corpus.Source))
_UNPACKED = {".xz": 4.0, ".gz": 3.0, ".zst": 3.5}  # bytes of text in a byte of a packed file, about
_DERIVED = ("batch", "micro", "within_documents")
_TOP = ("name", "description", "licence", "seed", *_DERIVED)


@dataclass(frozen=True)
class Recipe:
    """A parameters file, before it is made."""

    name: str
    description: str
    licence: str
    hyper: Hyperparameters
    plan: Plan
    sources: tuple[corpus.Source, ...]
    batch: int = 8  # rows of `context_length` tokens a step
    micro: int = 4  # rows at a time
    seed: int = 0
    within_documents: bool = False  # attention begins anew with each document

    def __post_init__(self) -> None:
        if self.batch % self.micro:
            raise TrainError(f"recipe: batch {self.batch} is not a multiple of micro {self.micro}")
        if not any(source.share > 0 for source in self.sources):
            hint = "give it a [[source]], or name texts behind it (twofile train)"
            raise TrainError(f"the recipe {self.name} names no texts to train on", hint)

    def lasting(self, steps: int | None = None, minutes: float | None = None) -> Recipe:
        """The same run for so long; as long as it is where neither is given."""
        if steps is None and minutes is None:
            return self
        return self.planned(steps=steps, minutes=minutes)

    def planned(self, **changes: Any) -> Recipe:
        """The same run with other numbers in its plan."""
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, **changes))


@dataclass(frozen=True)
class Draft:
    """A recipe as a person gives it: some numbers, the dial for the others. `given` is by the names of Hyperparameters
    and Plan, and `batch`, `micro` and `within_documents`."""

    name: str
    sources: tuple[corpus.Source, ...] = ()
    description: str = ""
    licence: str = ""
    seed: int = 0
    dial: Dial = field(default_factory=Dial)
    given: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def with_options(self, options: Mapping[str, Any]) -> Draft:
        """Numbers from the command line take the place of the draft's; None changes nothing. A size asked for there
        takes the place of every number of the draft that says how large the model is."""
        options = {key: value for key, value in options.items() if value is not None}
        dial = {key: options.pop(key) for key in _DIAL if key in options}
        given, remarks = dict(self.given), list(self.remarks)
        ours = dataclasses.asdict(self.dial)
        if "params" in dial or "depth" in dial:
            ours |= {"params": None, "depth": None}
            dropped = [key for key in _SHAPE if key in given and key not in options]
            if dropped:
                given = {key: value for key, value in given.items() if key not in dropped}
                size = "params" if "params" in dial else "depth"
                remarks.append(f"the recipe's {', '.join(dropped)} give way to {size}")
        if "minutes" in dial:
            given.pop("minutes", None)
        seed = options.pop("seed", self.seed)
        return dataclasses.replace(
            self, seed=seed, dial=Dial(**(ours | dial)), given=given | options, remarks=tuple(remarks)
        )

    def recipe(self, derived: Derived) -> Recipe:
        """The recipe that this becomes with the numbers that were derived."""
        return Recipe(
            name=self.name,
            description=self.description,
            licence=self.licence,
            hyper=derived.hyper,
            plan=derived.plan,
            sources=self.sources,
            batch=derived.batch,
            micro=derived.micro,
            seed=self.seed,
            within_documents=derived.within_documents,
        )

    def told(self, data: Path | None = None) -> dict[str, Any]:
        """What a run depends on of all that was asked for, flat, as JSON knows it: two drafts that tell the same make
        the same run. With `data` the names and sizes of their texts count, without it where the texts lie."""
        dial = {key: value for key, value in dataclasses.asdict(self.dial).items() if value is not None}
        table = {"seed": self.seed, **dial, **self.given}
        for source in self.sources:
            parts = dataclasses.asdict(source)
            for unread in ("name", "licence", "attribution"):
                del parts[unread]
            if data is not None:
                listed = json.dumps([[file.name, file.size] for file in corpus.files(source, data)])
                del parts["path"]
                parts["texts"] = hashlib.sha256(listed.encode()).hexdigest()[:16]
            table |= {f"{source.name}.{key}": value for key, value in parts.items()}
        told: dict[str, Any] = json.loads(json.dumps(table))
        return told


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """TrainError for a key that is none of `keys`, with the nearest."""
    keys = list(keys)
    for key in table:
        if key not in keys:
            near = get_close_matches(key, keys, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(keys)}"
            raise TrainError(f"{where} nobody knows {key!r}", hint)


def read_draft(path: Path) -> Draft:
    """Read a recipe file. TrainError says what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        _known(table, (*_TOP, "dial", "model", "plan", "source"), "in the recipe")
        model, plan, dial = table.get("model", {}), table.get("plan", {}), table.get("dial", {})
        _known(model, MODEL, "in [model]")
        _known(plan, PLAN, "in [plan]")
        _known(dial, _DIAL, "in [dial]")
        for source in table.get("source", []):
            _known(source, _SOURCE, f"in the source {source.get('name', '?')!r}")
        given = model | plan | {key: table[key] for key in _DERIVED if key in table}
        return Draft(
            name=table.get("name", path.stem),
            sources=tuple(corpus.sources(table.get("source", []))),
            description=table.get("description", ""),
            licence=table.get("licence", ""),
            seed=table.get("seed", 0),
            dial=Dial(**dial),
            given=given,
        )
    except OSError as error:
        raise TrainError(f"the recipe {path} cannot be read: {error.strerror}") from error
    except TrainError as error:
        raise TrainError(
            f"the recipe {path.name}: {error}", error.hint or "compare with recipes/bundled.toml"
        ) from error
    except (tomllib.TOMLDecodeError, TypeError, AttributeError, KeyError, ValueError, TwofileError) as error:
        raise TrainError(f"the recipe {path.name}: {error}", _COMPARE) from error


def text_bytes(sources: Iterable[corpus.Source], data: Path) -> float:
    """Bytes of distinct training text, about: packed files are taken for three or four times as large."""
    total = 0.0
    for source in sources:
        for file in corpus.files(source, data, "train") if source.share else ():
            packed = 2.0 if ".parquet" in file.name else _UNPACKED.get(Path(file.name).suffix, 1.0)
            total += file.size * packed * min(1.0, source.share) * (1 - source.held_out)
    return total


def complete(
    draft: Draft, data: Path | None = None, machine: Machine | Callable[[], Machine] | None = None
) -> tuple[Recipe, Derived]:
    """Fill up a draft. `data`: where its sources lie (None: how much text there is remains unknown). `machine` is asked
    only where the size or the length follows from its speed; None guesses. TrainError where the numbers do not agree,
    or one is no number."""
    from twofile.train.pretrain.calibrate import unmeasured

    timed = draft.dial.minutes is not None or "minutes" in draft.given
    long = draft.dial.tokens is not None or draft.given.get("steps") is not None
    settled = {"dim", "n_layers"} <= draft.given.keys() and long and not timed
    if machine is None or (settled and callable(machine)):
        machine = unmeasured()
    elif callable(machine):
        machine = machine()
    known = text_bytes(draft.sources, data) if data is not None else 0.0
    try:
        derived = derive(draft.dial, known, machine, draft.given)
    except TypeError as error:  # a number that is a word
        raise TrainError(f"the recipe {draft.name}: {error}", _COMPARE) from error
    return draft.recipe(derived), dataclasses.replace(derived, remarks=draft.remarks + derived.remarks)


def read_recipe(
    path: Path, data: Path | None = None, machine: Machine | Callable[[], Machine] | None = None, **options: Any
) -> Recipe:
    """Read a recipe file and fill it up; `options` replace its numbers (None changes nothing)."""
    return complete(read_draft(path).with_options(options), data, machine)[0]


def save(
    recipe: Recipe, run: Path, data: Path, lines: Iterable[Line] = (), asked: Mapping[str, Any] | None = None
) -> None:
    """Write `recipe.json` into a run folder. `lines`: the laws that its numbers follow, for the report; `asked`: what
    its draft told."""
    table = {key: getattr(recipe, key) for key in _TOP} | {
        "data": str(data.absolute()),
        "model": {key: getattr(recipe.hyper, key) for key in MODEL},
        "plan": dataclasses.asdict(recipe.plan),
        "source": [dataclasses.asdict(source) for source in recipe.sources],
        "derived": [dataclasses.asdict(line) for line in lines],
        "asked": dict(asked or {}),
    }
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / FILE, table)


def amend(recipe: Recipe, run: Path) -> None:
    """Write the plan of a recipe over that which a run folder has; the rest stays, with its laws."""
    write_json(run / FILE, kept(run) | {"plan": dataclasses.asdict(recipe.plan)})


def kept(run: Path) -> dict[str, Any]:
    """`recipe.json` as it lies in a run folder. TrainError where there is none that can be read."""
    return read_json(run / FILE, TrainError, "train into another folder")


def load(run: Path) -> tuple[Recipe, Path]:
    """The recipe of a run folder, and where its data lie. TrainError where there is none that can be read."""
    table = kept(run)
    try:
        model = table["model"]
        if model.get("rope_factors") is not None:
            model["rope_factors"] = tuple(model["rope_factors"])
        recipe = Recipe(
            **{key: table[key] for key in _TOP},
            hyper=Hyperparameters(architecture="qwen3", **model),
            plan=Plan(**table["plan"]),
            sources=tuple(corpus.sources(table["source"])),
        )
        return recipe, Path(table["data"])
    except (ValueError, TypeError, KeyError, TwofileError) as error:
        raise TrainError(f"{run / FILE} cannot be read ({error})", "train into another folder") from error
