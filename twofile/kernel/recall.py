"""Finding what left the window: by words and by meaning, both rankings fused; and the tool by which a model asks.

Words: SQLite's FTS5 with stems (BM25). Meaning: the vectors that the model has of the tokens, the rarer the heavier,
less what all pages have in common; on a small model this finds what is said in other words far better than the states
of its last layer do. Fusion is by reciprocal rank. Cost: nothing is evaluated; a product with all pages a question.

Sources: BM25, Robertson and Zaragoza 2009; smooth inverse frequency, Arora and others 2017; reciprocal rank fusion,
Cormack and others 2009.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twofile.kernel.driver import Context, Part
from twofile.kernel.label import Label, join
from twofile.kernel.page import Page

__all__ = ["Index", "Recall"]

_WORD = re.compile(r"\w+")
_RANK = 60.0  # as fusion has it: how little the first few places differ
_NEAR = 32  # pages that are near by meaning
_COMMON = frozenset((
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does", "for",
    "from", "had", "has", "have", "he", "her", "him", "his", "how", "i", "if", "in", "is", "it", "its", "me", "my",
    "no", "not", "of", "on", "or", "our", "she", "so", "tell", "that", "the", "their", "them", "there", "they",
    "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "whom", "why", "will", "with", "would",
    "you", "your",
))  # fmt: skip

_RARE = 1e-3  # the share of all tokens at which one weighs half of what the rarest does
_STALE = 1.25  # weights are counted anew when there is so much more text than the last time


class Vectors(Protocol):
    """What has vectors of tokens: an engine."""

    def tokenize(self, text: str) -> list[int]: ...

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]: ...


class _Meaning:
    """Vectors of texts, by the vectors of their tokens."""

    def __init__(self, vectors: Vectors) -> None:
        self._of = vectors
        self._texts: dict[int, list[int]] = {}
        self._seen: Counter[int] = Counter()
        self._weighed, self._share = 0, dict[int, float]()
        self._vectors: dict[int, NDArray[np.float32]] = {}

    def add(self, row: int, text: str) -> None:
        """One more page."""
        ids = self._of.tokenize(text)
        self._texts[row] = ids
        self._seen.update(ids)

    def _vector(self, ids: list[int]) -> NDArray[np.float32]:
        weights_T = np.array([_RARE / (_RARE + self._share.get(token, 0.0)) for token in ids], np.float32)
        vector_D: NDArray[np.float32] = (weights_T @ self._of.rows(ids) / max(1, len(ids))).astype(np.float32)
        return vector_D

    def rank(self, query: str, rows: Iterable[int]) -> list[int]:
        """Pages, the nearest first."""
        total = self._seen.total()
        if total > self._weighed * _STALE:
            self._weighed, self._vectors = total, {}
            self._share = {token: count / total for token, count in self._seen.items()}
        ordered = sorted(rows)
        for row in ordered:
            if row not in self._vectors:
                self._vectors[row] = self._vector(self._texts[row])
        matrix_ND = np.stack([self._vectors[row] for row in ordered])
        mean_D = matrix_ND.mean(axis=0)
        centred_ND = matrix_ND - mean_D
        score_N = centred_ND @ (self._vector(self._of.tokenize(query)) - mean_D)
        score_N /= np.maximum(np.linalg.norm(centred_ND, axis=1), 1e-12)
        return [ordered[i] for i in np.argsort(-score_N, kind="stable")[:_NEAR]]


class Index:
    """The pages of a process, to be found. `vectors`: by meaning, too; None: by words alone."""

    def __init__(self, vectors: Vectors | None = None) -> None:
        self._meaning = None if vectors is None else _Meaning(vectors)
        self._lock = threading.Lock()
        self._base = sqlite3.connect(":memory:", check_same_thread=False)
        self._base.execute("CREATE VIRTUAL TABLE page USING fts5 (text, tokenize = 'porter unicode61')")
        self._pages: dict[int, Page] = {}
        self._rows: dict[str, int] = {}

    def add(self, pages: Iterable[Page]) -> None:
        """Make pages known; those that are already are passed over."""
        with self._lock:
            for page in pages:
                if page.name not in self._rows:
                    row = len(self._pages) + 1
                    self._pages[row], self._rows[page.name] = page, row
                    self._base.execute("INSERT INTO page (rowid, text) VALUES (?, ?)", (row, page.text))
                    if self._meaning is not None:
                        self._meaning.add(row, page.text)

    def page(self, name: str) -> Page | None:
        """A page by its name."""
        row = self._rows.get(name)
        return None if row is None else self._pages[row]

    def find(self, query: str, among: Iterable[str], most: int = 8) -> list[Page]:
        """The pages of `among` (names) that fit a query, the best first."""
        with self._lock:
            rows = {self._rows[name] for name in among if name in self._rows}
            if not rows:
                return []
            by_meaning = self._meaning.rank(query, rows) if self._meaning is not None and query.strip() else []
            score: dict[int, float] = {}
            for ranking in (self._by_words(query, rows), by_meaning):
                for place, row in enumerate(ranking):
                    score[row] = score.get(row, 0.0) + 1 / (_RANK + place)
            best = sorted(score, key=lambda row: (-score[row], row))
            return [self._pages[row] for row in best[:most]]

    def _by_words(self, query: str, rows: set[int]) -> list[int]:
        words = [word for word in dict.fromkeys(_WORD.findall(query.lower())) if word not in _COMMON]
        if not words:
            return []
        asked = " OR ".join(f'"{word}"' for word in words[:64])
        found = self._base.execute("SELECT rowid FROM page WHERE page MATCH ? ORDER BY bm25(page)", (asked,)).fetchall()
        return [row for (row,) in found if row in rows]


class Recall:
    """The driver by which a model asks for what left its window: by words, or a page by its name."""

    name = "recall"
    about = "Finds what was said or given earlier in this conversation and is no longer before you."
    pure = True
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
        "additionalProperties": False,
    }

    def __init__(self, index: Index, out: Callable[[], Sequence[str]], most: int = 4) -> None:
        self._index, self._out, self._most = index, out, most

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def _found(self, arguments: Mapping[str, Any]) -> list[Page]:
        query = str(arguments["query"])
        page = self._index.page(query.strip().removeprefix("page").strip())
        return [page] if page is not None else self._index.find(query, self._out(), self._most)

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        found = self._found(arguments)
        if not found:
            yield "nothing was found"
        for page in found:
            yield f"[page {page.name}, {page.role}] {page.text.strip()}\n"

    def label(self, arguments: Mapping[str, Any]) -> Label:
        """What comes back is what it was."""
        return join(page.label for page in self._found(arguments))
