"""Where a value came from, and who may read it: carried by everything that a process holds, joined where values meet.

A value that was made from others has all their sources, and only the readers that all of them have. What a person or
the program itself said is trusted, what came from anywhere else is not, a file neither: its text may be an attack. Data
that have readers are private. When something untrusted and something private are both before the model, what leads out
of the machine has to be asked for (`capability`): the untrusted text may have told the model to give the private away.

Source: the lattice model of information flow, Denning 1976; for models: arXiv:2503.18813.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EVERYBODY", "NOBODY", "Label", "join"]

_TRUSTED = ("system", "user")

EVERYBODY = None
"""As `readers`: anybody may read it."""


@dataclass(frozen=True)
class Label:
    """`sources`: "user", "system", or a kind and a name: "tool:calculator", "page:https://...", "file:/...". `readers`:
    names of who may read it ("user", "net:example.org"), or EVERYBODY."""

    sources: frozenset[str] = field(default_factory=frozenset)
    readers: frozenset[str] | None = EVERYBODY

    @classmethod
    def of(cls, source: str, readers: Iterable[str] | None = EVERYBODY) -> Label:
        """The label of something that comes from one place."""
        return cls(frozenset({source}), None if readers is None else frozenset(readers))

    @property
    def trusted(self) -> bool:
        """Whether nobody but the person and the program had a say in it."""
        return all(source in _TRUSTED for source in self.sources)

    @property
    def private(self) -> bool:
        """Whether it is not for everybody."""
        return self.readers is not None

    def __or__(self, other: Label) -> Label:
        """The label of what is made of both."""
        if self.readers is None or other.readers is None:
            readers = other.readers if self.readers is None else self.readers
        else:
            readers = self.readers & other.readers
        return Label(self.sources | other.sources, readers)

    def may_flow_to(self, other: Label) -> bool:
        """Whether a place with the label `other` may hold this without losing track of it: no source is forgotten, no
        reader is added."""
        if not self.sources <= other.sources:
            return False
        return self.readers is None or (other.readers is not None and other.readers <= self.readers)

    def to_json(self) -> dict[str, Any]:
        """As the log keeps it."""
        return {"sources": sorted(self.sources), "readers": None if self.readers is None else sorted(self.readers)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Label:
        """What `to_json` gave."""
        readers = table.get("readers")
        return cls(frozenset(table.get("sources", ())), None if readers is None else frozenset(readers))


NOBODY = Label()
"""Of what comes from nowhere: the least of all labels."""


def join(labels: Iterable[Label]) -> Label:
    """The label of what is made of all of them."""
    found = NOBODY
    for label in labels:
        found = found | label
    return found
