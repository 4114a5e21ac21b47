"""Where a parameters file comes from: the stages that made it, the data, the file before it, under which licence.

Held in the file itself as GGUF metadata keys (`twofile.*` and `general.*`), so that it travels with the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Cost", "Provenance"]

_KEYS = {
    "name": "general.name",
    "description": "general.description",
    "license": "general.license",
    "version": "twofile.version",
    "stages": "twofile.stages",
    "costs": "twofile.costs",
    "data": "twofile.data",
    "parent": "twofile.parent",
    "command": "twofile.command",
    "commit": "twofile.commit",
}


@dataclass(frozen=True)
class Cost:
    """What a stage of training took. `flops`: floating-point operations of the passes that train, at most; `data`: the
    names of what it learned from."""

    seconds: float
    tokens: int
    flops: float
    data: tuple[str, ...] = ()

    def written(self) -> str:
        """As JSON."""
        return json.dumps(vars(self))

    @classmethod
    def read(cls, text: str) -> Cost | None:
        """What `written` gave; None for anything else."""
        try:
            found = json.loads(text)
            data = tuple(str(name) for name in found["data"])
            cost = cls(float(found["seconds"]), int(found["tokens"]), float(found["flops"]), data)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        return cost if all(0 <= value < 1e300 for value in (cost.seconds, cost.tokens, cost.flops)) else None


@dataclass(frozen=True)
class Provenance:
    """The lineage of a parameters file; empty where nothing is known.

    `stages`: what was done, first first ("pretrain 400 steps", "quantise Q8_0"). `costs`: what each of them took, as
    `Cost` writes it, "" where that is not known. `data`: "name sha256" of each corpus.
    `parent`: sha256 of the file this one was made from. `version`, `command`, `commit`: of the program that made it."""

    name: str = ""
    description: str = ""
    license: str = ""
    version: str = ""
    stages: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    parent: str = ""
    command: str = ""
    commit: str = ""
    costs: tuple[str, ...] = ()

    def then(self, stage: str, *, parent: str = "", command: str = "", cost: Cost | None = None) -> Provenance:
        """The lineage of a file made from this one by one more stage, by the twofile that runs now."""
        known = (*self.costs, *[""] * len(self.stages))[: len(self.stages)]
        costs = (*known, "" if cost is None else cost.written()) if cost or any(known) else ()
        stages = (*self.stages, stage)
        return replace(self, version=_version(), stages=stages, costs=costs, parent=parent, command=command, commit="")

    def cost(self, stage: int) -> Cost | None:
        """What a stage took, by its place; None where that is not known."""
        return Cost.read(self.costs[stage]) if stage < len(self.costs) else None

    def extended(self, *, name: str = "", description: str = "", data: Iterable[str] = ()) -> Provenance:
        """The same lineage under another name and description, where given, with more data."""
        return replace(
            self,
            name=name or self.name,
            description=description or self.description,
            data=tuple(dict.fromkeys((*self.data, *data))),
        )

    def to_metadata(self) -> dict[str, Any]:
        """The GGUF keys of what is known; twofile.version is always there."""
        values = {key: getattr(self, name) for name, key in _KEYS.items()}
        values["twofile.version"] = self.version or _version()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items() if value}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Provenance:
        """Read the GGUF keys; one of the wrong type counts as absent, for lineage never decides whether a file runs."""
        values: dict[str, Any] = {}
        for name, key in _KEYS.items():
            value = metadata.get(key)
            if isinstance(getattr(cls, name), tuple):
                if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                    values[name] = tuple(value)
            elif isinstance(value, str):
                values[name] = value
        return cls(**values)


def _version() -> str:
    from twofile import __version__

    return __version__
