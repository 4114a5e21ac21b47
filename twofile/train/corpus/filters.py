"""The filters that a corpus can pass: datatrove's, by short names, with the papers that they come from.

They were made for English web pages. `language` other than "en" leaves out the rules that only hold for English or for
alphabets: Gopher's stop words and its bounds on the length of words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from datatrove.pipeline import filters as trove
from datatrove.pipeline.filters.base_filter import BaseFilter

from twofile.errors import TrainError
from twofile.train.corpus.words import Words

__all__ = ["FILTERS", "GROUPS", "Filter", "build", "chosen"]


@dataclass(frozen=True)
class Filter:
    """A filter: what it drops, where its rules were published, and what makes it of a language and a writer."""

    drops: str
    source: str
    make: Callable[[str, Any], BaseFilter]


def _gopher_repetition(_: str, excluded: Any) -> BaseFilter:
    return trove.GopherRepetitionFilter(language=Words(), exclusion_writer=excluded)


def _gopher_quality(language: str, excluded: Any) -> BaseFilter:
    alphabet: dict[str, Any] = (
        {} if language == "en" else {"min_stop_words": None, "min_avg_word_length": None, "max_avg_word_length": None}
    )
    return trove.GopherQualityFilter(language=Words(), exclusion_writer=excluded, **alphabet)


def _c4(_: str, excluded: Any) -> BaseFilter:
    return trove.C4QualityFilter(language=Words(), exclusion_writer=excluded)


def _c4_loose(_: str, excluded: Any) -> BaseFilter:
    return trove.C4QualityFilter(language=Words(), exclusion_writer=excluded, filter_no_terminal_punct=False)


def _fineweb(_: str, excluded: Any) -> BaseFilter:
    return trove.FineWebQualityFilter(language=Words(), exclusion_writer=excluded)


_GOPHER = "Rae and others 2021, arXiv:2112.11446, table A1"
_C4 = "Raffel and others 2020, arXiv:1910.10683, section 2.2"
_FINEWEB = "Penedo and others 2024, arXiv:2406.17557, section 3.6"

FILTERS = {
    "gopher-repetition": Filter("documents that repeat lines, paragraphs or phrases", _GOPHER, _gopher_repetition),
    "gopher-quality": Filter("documents under 50 or over 100,000 words, lists, symbols", _GOPHER, _gopher_quality),
    "c4": Filter("lines without a full stop, and documents with few sentences or with code", _C4, _c4),
    "c4-loose": Filter("as c4, but lines need no full stop (as FineWeb has it)", _C4, _c4_loose),
    "fineweb": Filter("documents of short lines, repeated lines, or lines without a full stop", _FINEWEB, _fineweb),
}
"""The name of each filter, in the order in which they are best applied."""

GROUPS = {"none": (), "web": ("gopher-repetition", "gopher-quality", "c4-loose", "fineweb")}


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """The filters for some names, those of groups too, each once; TrainError for a name that there is not."""
    result: dict[str, None] = {}
    for name in names:
        if name not in FILTERS and name not in GROUPS:
            known = ", ".join([*FILTERS, *GROUPS])
            raise TrainError(f"there is no filter {name}", f"the filters are {known}")
        result.update(dict.fromkeys(GROUPS.get(name, (name,))))
    return tuple(result)


def build(name: str, language: str = "any", excluded: Any = None) -> BaseFilter:
    """A filter's step of a datatrove pipeline; what it drops goes to the writer `excluded`, if any."""
    return FILTERS[name].make(language, excluded)
