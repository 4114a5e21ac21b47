"""An answer under way: what a thread waits for, and what the client's going away can end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

__all__ = ["Answering"]


class _UnderWay(Protocol):
    def cancel(self) -> None: ...


class Answering:
    """Iterate over parts of an answer, in one thread at a time: chunks of a stream, or in the end the whole; an empty
    part says that something went on. `cancel`, from any thread, ends the iteration and what it waits for."""

    def __init__(self, parts: Iterator[dict[str, Any]], under_way: Sequence[_UnderWay]) -> None:
        self._parts, self._under_way = parts, under_way

    def __iter__(self) -> Answering:
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._parts)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        for one in self._under_way:
            one.cancel()
