"""The search that a model asks: folders, archives and web engines behind one question, results numbered and cited.

Where there are several sources they take turns: their scores mean different things. One that fails is told in a line
below what the others found; when all fail, so does the call. A folder's index is brought up to date first, when it was
not for a minute, in at most half of the time that there is; what is not yet in it is told, too. A call needs the
capabilities of all sources, for all are asked: who wants the web apart makes two drivers, with two names.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from twofile.errors import ToolError
from twofile.kernel.driver import Context, Part
from twofile.kernel.label import Label, join
from twofile.tools.search.found import Found, Source
from twofile.tools.search.index import Index
from twofile.tools.search.text import one_line
from twofile.tools.search.words import parse

__all__ = ["Local", "Search"]

_COUNT, _MOST = 5, 20  # results that are given, and that can be asked for
_LONGEST = 1000  # characters of a question


class Local:
    """A folder, by its index, as a source. `fresh`: seconds for which the folder is not looked at again."""

    def __init__(self, index: Index, fresh: float = 60.0) -> None:
        self.index, self.fresh = index, fresh
        self.name = index.name
        self._looked = float("-inf")
        self.note = ""  # what is to be told of it
        self._updating = threading.Lock()  # by one of those who ask; the others search what there is

    @property
    def needs(self) -> Sequence[str]:
        return (f"fs:read:{self.index.folder.path}",)

    @property
    def label(self) -> Label:
        return Label.of(f"file:{self.index.folder.path}", {"user"})

    def search(self, query: str, count: int, context: Context) -> list[Found]:
        try:
            if time.monotonic() - self._looked >= self.fresh and self._updating.acquire(blocking=False):
                try:
                    self._update(context)
                finally:
                    self._updating.release()
            return self.index.search(query, count)
        except sqlite3.Error as error:
            raise ValueError(f"the index of {self.name} cannot be used ({error})") from error

    def _update(self, context: Context) -> None:
        report = self.index.update(time.monotonic() + context.seconds / 2, context.cancelled.is_set)
        self.note = "" if report.complete else f"not all of {self.name} has been read yet: ask again later for more"
        if report.complete:
            self._looked = time.monotonic()


class Search:
    """The driver. `sources`: what is searched; `about`: what it is for, in a few words for the model."""

    pure = True
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "count": {"type": "integer", "minimum": 1, "maximum": _MOST},
        },
        "required": ["query"],
        "additionalProperties": False,
    }

    def __init__(self, sources: Iterable[Source], name: str = "search", about: str = "Looks something up.") -> None:
        self.sources, self.name, self.about = tuple(sources), name, about
        if not self.sources:
            raise ToolError("there is nothing to search", "name a folder, an archive or a web engine")

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return tuple(dict.fromkeys(one for source in self.sources for one in source.needs))

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return join(source.label for source in self.sources)

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        query, count = arguments.get("query"), arguments.get("count", _COUNT)
        if not isinstance(query, str) or not parse(query):
            raise ValueError("a query has words")
        if len(query) > _LONGEST:
            raise ValueError(f"a query has at most {_LONGEST} characters")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST:
            raise ValueError(f"count is 1 to {_MOST}")
        query = query.encode("utf-8", "replace").decode()  # half of a character can be sent nowhere
        answers: list[list[Found]] = []
        notes: list[str] = []
        for source in self.sources:
            try:
                answers.append(source.search(query, count, context))
            except (ValueError, ToolError) as error:
                if len(self.sources) == 1 and isinstance(error, ValueError):
                    raise
                notes.append(one_line(str(error)))
                continue
            notes += filter(None, [getattr(source, "note", "")])
        if not answers:
            raise ValueError("; ".join(notes))
        found = list(itertools.islice(_in_turn(answers), count))
        lines = [f"{n}. {one.title} ({one.place})\n   {one.text}" for n, one in enumerate(found, 1)]
        return ("\n".join([*(lines or ["nothing was found"]), *(f"[{note}]" for note in notes)]),)


def _in_turn(answers: Sequence[Sequence[Found]]) -> Iterator[Found]:
    """The best of each, then the second of each; what two of them found, once."""
    seen: set[str] = set()
    for row in itertools.zip_longest(*answers):
        for one in row:
            if one is not None and one.place not in seen:
                seen.add(one.place)
                yield one
