"""Contamination: how much of an evaluation set stands in the training text, word for word.

A run of 13 words (letters and digits, lower case, punctuation left out) that occurs in both is an overlap, as in
GPT-3's report (Brown and others 2020, arXiv:2005.14165, appendix C). A document with any is `touched`; one with more
than half of its runs is `copied`. A document of fewer than 13 words cannot be judged, and is counted as such.

The runs of the evaluation sets are hashed to 64 bits and sorted (`index`), each part of the training text marks those
that it holds (`mark`), and `report` reads the sets once more. Guarantees: no overlap is missed; among 10^9 words of
training text and 10^7 runs, a false one is found with a probability of 0.0005. Memory: 9 bytes a run, for at most
`MOST` runs a set (of a larger set, its first documents), and three times that while they are sorted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from twofile.train.corpus.words import Words

__all__ = ["LENGTH", "MOST", "Overlap", "index", "mark", "report", "runs", "touched"]

LENGTH = 13
MOST = 5_000_000

_FACTORS = np.array([pow(0x9E3779B97F4A7C15, i, 1 << 64) for i in range(LENGTH)], np.uint64)  # odd, so none is lost
_WORDS = Words()


@dataclass(frozen=True)
class Overlap:
    """What of an evaluation set was found in the training text."""

    documents: int
    short: int  # under 13 words: cannot be judged
    touched: int  # any run found
    copied: int  # more than half of the runs found
    runs: int
    found: int
    cut: bool  # whether only the first documents were looked at
    dirty: tuple[str, ...]  # sha256 of the touched documents' text, the first 16 digits, at most 1,000


@lru_cache(1 << 18)
def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def runs(text: str) -> NDArray[np.uint64]:
    """The hash of every run of `LENGTH` words, in order."""
    words = [word for word in _WORDS.word_tokenize(text.lower()) if word[0].isalnum()]
    count = len(words) - LENGTH + 1
    if count < 1:
        return np.empty(0, np.uint64)
    numbers = np.fromiter(map(_number, words), np.uint64, len(words))
    total = np.zeros(count, np.uint64)
    for i, factor in enumerate(_FACTORS):
        total += numbers[i : i + count] * factor  # modulo 2^64
    return total


def _limited(texts: Iterable[str]) -> Iterator[tuple[str, NDArray[np.uint64]]]:
    total = 0
    for text in texts:
        if total >= MOST:
            return
        found = runs(text)
        total += len(found)
        yield text, found


def index(sets: Iterable[Iterable[str]]) -> NDArray[np.uint64]:
    """The runs of all sets, sorted, each once."""
    found = [hashes for texts in sets for _, hashes in _limited(texts)]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *found]))


def _places(text: str, known: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Where in `known`, which has at least one, the runs of a text stand."""
    hashes = runs(text)
    places = np.searchsorted(known, hashes)
    places[places == len(known)] = 0  # beyond the last: compared with the first, in vain
    found: NDArray[np.intp] = places[known[places] == hashes]
    return found


def mark(text: str, known: NDArray[np.uint64], seen: NDArray[np.bool_]) -> None:
    """Set `seen` where a run of `known`, which has at least one, occurs in `text`."""
    seen[_places(text, known)] = True


def touched(text: str, known: NDArray[np.uint64], seen: NDArray[np.bool_]) -> bool:
    """Whether a run of a text was seen."""
    return len(known) > 0 and bool(seen[_places(text, known)].any())


def report(sets: Mapping[str, Iterable[str]], known: NDArray[np.uint64], seen: NDArray[np.bool_]) -> dict[str, Overlap]:
    """What was found of each set, read once more in the order in which `index` saw it."""
    result = {}
    for name, texts in sets.items():
        documents = short = touched = copied = total = found = 0
        dirty: list[str] = []
        for text, hashes in _limited(texts):
            documents += 1
            short += not len(hashes)
            hits = int(seen[np.searchsorted(known, hashes)].sum()) if len(hashes) else 0
            total, found = total + len(hashes), found + hits
            copied += 2 * hits > len(hashes)
            if hits:
                touched += 1
                if len(dirty) < 1000:
                    dirty.append(hashlib.sha256(text.encode()).hexdigest()[:16])
        result[name] = Overlap(documents, short, touched, copied, total, found, total >= MOST, tuple(dirty))
    return result
