"""What a search finds, and what can be searched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from twofile.kernel.driver import Context
from twofile.kernel.label import Label
from twofile.tools.search.text import SCRIPT, one_line

__all__ = ["Found", "Source", "excerpt"]

_SCRIPT = re.compile(f"[{SCRIPT}]")
_SHOWN = 400  # characters of an excerpt


@dataclass(frozen=True)
class Found:
    """A passage. `place`: how it is cited, "notes/report.pdf, page 3" or an address; `text`: of it, in one line."""

    title: str
    place: str
    text: str


class Source(Protocol):
    """Something that can be searched: a folder, an archive, a web engine."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Sequence[str]:
        """The capabilities that a search of it needs."""
        ...

    @property
    def label(self) -> Label:
        """Where what it finds comes from, and who may read it."""
        ...

    def search(self, query: str, count: int, context: Context) -> list[Found]:
        """At most `count` passages, the best first. ValueError tells the model why there are none."""
        ...


def excerpt(text: str, words: Sequence[str], most: int = _SHOWN) -> str:
    """The part of a text that has most of the words, in one line of about `most` characters. Words are the same here
    when they begin alike, as those of one stem do."""
    if len(text) <= most:
        return one_line(text, most)
    stems = {word.lower()[: max(4, len(word) - 3)] for word in words if word}
    starts = [(r"" if _SCRIPT.match(stem) else r"\b") + re.escape(stem) for stem in sorted(stems)]
    pattern = re.compile("|".join(starts) or r"(?!)", re.IGNORECASE)
    places = [(found.start(), found[0].lower()) for found in pattern.finditer(text)]
    best, start = 0, 0
    for at, _ in places:
        first = max(0, at - most // 4)
        score = len({stem for place, stem in places if first <= place < first + most})
        if score > best:
            best, start = score, first
    start = min(start, len(text) - most)
    while 0 < start < len(text) and text[start - 1].isalnum() and text[start].isalnum() and text[start].isascii():
        start += 1
    cut = text[start : start + most]
    return f"{'…' if start else ''}{one_line(cut, most)}{'…' if start + most < len(text) else ''}"
