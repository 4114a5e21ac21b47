"""Holding some of the data out to measure on: by a hash of what each item is, so that the same items are held out
whatever stands beside them and in whatever order, and items with the same key lie on the same side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["hold_out"]

Item = TypeVar("Item")


def hold_out(items: Iterable[Item], share: float, key: Callable[[Item], bytes]) -> tuple[list[Item], list[Item]]:
    """The items to learn from and those to measure on, about `share` of all, each in the order given."""
    learned: list[Item] = []
    held_out: list[Item] = []
    for item in items:
        place = int.from_bytes(hashlib.sha256(key(item)).digest()[:8]) / 2**64
        (held_out if place < share else learned).append(item)
    return learned, held_out
