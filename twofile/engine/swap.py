"""Caches that had to leave memory, on disk until their text goes on: brought back bit for bit.

A file holds the keys and values of one text; the list of texts is in memory, and the files go with it. What is kept is
bounded in bytes, the text longest without use goes first. Guarantee: what comes back is what was put away, or nothing:
a file that cannot be read, or not written, is a text that has to be read again. Cost: the bytes of the cache, written
and read once. Not for two threads at once.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import Backend, Cache
from twofile.errors import EngineError

__all__ = ["Swap"]

_LEAST = 64  # tokens: fewer are read again sooner than fetched


class Swap:
    """Texts put away below `folder` (None: the system's folder for temporary files), at most so many bytes of them."""

    def __init__(self, backend: Backend, folder: Path | None = None, most: int = 4 << 30) -> None:
        self._backend, self._most, self._held, self._number = backend, most, 0, 0
        self._folder = tempfile.TemporaryDirectory(prefix="twofile-swap-", dir=folder)
        self._texts: OrderedDict[int, tuple[NDArray[np.int32], int]] = OrderedDict()  # tokens, bytes

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._texts)

    def put(self, tokens_T: NDArray[np.int32], cache: Cache) -> None:
        """Put a text away, which `cache` has read; short ones, and what a longer one begins with, are passed over."""
        if len(tokens_T) < _LEAST or any(_common(tokens_T, held) == len(tokens_T) for held, _ in self._texts.values()):
            return
        try:
            data = cache.save()
        except MemoryError:
            return
        while self._texts and self._held + len(data) > self._most:
            self._forget(next(iter(self._texts)))
        if len(data) > self._most:
            return
        self._number += 1
        with suppress(OSError):  # no room on the disk: it is read again
            self._path(self._number).write_bytes(data)
            self._texts[self._number] = tokens_T.copy(), len(data)
            self._held += len(data)

    def find(self, tokens: Sequence[int], least: int) -> tuple[Cache, int] | None:
        """A cache with the longest beginning of `tokens`, short of the last, that was put away, and how long that is;
        None where that is shorter than `least`. The cache is the caller's own."""
        tokens_T = np.asarray(tokens, np.int32)
        best, longest = 0, max(least, 1) - 1
        for number, (held_T, _) in self._texts.items():
            common = min(_common(tokens_T, held_T), len(tokens_T) - 1)
            if common > longest:
                best, longest = number, common
        if not best:
            return None
        held_T, _ = self._texts[best]
        try:
            cache = self._backend.restore(len(held_T), self._path(best).read_bytes())
        except (OSError, EngineError):
            self._forget(best)
            return None
        cache.rewind(longest)
        self._texts.move_to_end(best)
        return cache, longest

    def close(self) -> None:
        """Forget everything."""
        self._texts.clear()
        self._folder.cleanup()

    def _path(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number}.kv"

    def _forget(self, number: int) -> None:
        self._held -= self._texts.pop(number)[1]
        self._path(number).unlink(missing_ok=True)


def _common(a_T: NDArray[np.int32], b_T: NDArray[np.int32]) -> int:
    """How many tokens two texts begin with alike."""
    n = min(len(a_T), len(b_T))
    differ = np.flatnonzero(a_T[:n] != b_T[:n])
    return int(differ[0]) if len(differ) else n
