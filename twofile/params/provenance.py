"""Where a parameters file comes from: the stages that made it, the data, the file before it, under which licence.

Held in the file itself as GGUF metadata keys (`twofile.*` and `general.*`), so that it travels with the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Provenance"]

_KEYS = {
    "name": "general.name",
    "description": "general.description",
    "license": "general.license",
    "version": "twofile.version",
    "stages": "twofile.stages",
    "data": "twofile.data",
    "parent": "twofile.parent",
    "command": "twofile.command",
    "commit": "twofile.commit",
}


@dataclass(frozen=True)
class Provenance:
    """The lineage of a parameters file; empty where nothing is known.

    `stages`: what was done, first first ("pretrain 400 steps", "quantise Q8_0"). `data`: "name sha256" of each corpus.
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

    def then(self, stage: str, *, parent: str = "", command: str = "") -> Provenance:
        """The lineage of a file made from this one by one more stage, by the twofile that runs now."""
        return replace(
            self, version=_version(), stages=(*self.stages, stage), parent=parent, command=command, commit=""
        )

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
