"""A ZIM archive: an encyclopedia in one file, such as an offline Wikipedia (https://library.kiwix.org).

Its own full-text index is asked, or its titles where it has none; of each article the passage that has most of the
words is given. The article's HTML is read in the process of `worker`. The archive itself is read by libzim within this
one: it is a file that the user chose.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from twofile.errors import ToolError
from twofile.kernel.driver import Context
from twofile.kernel.label import EVERYBODY, Label
from twofile.tools.search.folder import shown
from twofile.tools.search.found import Found, excerpt
from twofile.tools.search.readers import LARGEST, UnreadableError
from twofile.tools.search.text import joined, one_line
from twofile.tools.search.words import parse
from twofile.tools.search.worker import Reader

__all__ = ["Zim"]

_MOST = 50  # articles that are looked at


class Zim:
    """An archive. Raises ToolError where there is none that can be read, or no libzim."""

    def __init__(self, path: Path | str) -> None:
        self.path = os.path.realpath(os.path.expanduser(path))
        self.name = os.path.basename(self.path)
        try:
            reader = import_module("libzim.reader")
        except ImportError as error:
            raise ToolError("a ZIM archive needs libzim", "pip install 'twofile[tools]'") from error
        try:
            self._archive = reader.Archive(Path(self.path))
        except (RuntimeError, OSError, ValueError) as error:
            raise ToolError(f"{path} is no ZIM archive that can be read ({one_line(str(error), 100)})") from error

    @property
    def needs(self) -> Sequence[str]:
        return (f"fs:read:{self.path}",)

    @property
    def label(self) -> Label:
        return Label.of(f"file:{self.path}", EVERYBODY)  # what is in an archive was published

    def search(self, query: str, count: int, context: Context) -> list[Found]:
        wanted = parse(query)
        words = (*wanted.words, *(word for phrase in wanted.phrases for word in phrase.split()))
        if not words:
            return []
        result: list[Found] = []
        with Reader(min(10.0, max(1.0, context.seconds))) as reader:
            for path in self._paths(words):
                if len(result) == count or context.seconds <= 0 or context.cancelled.is_set():
                    break
                found = self._article(path, words, wanted.phrases, reader)
                if found is not None:
                    result.append(found)
        return result

    def _paths(self, words: Sequence[str]) -> list[str]:
        """Where the articles are that match, the best first: those that have all words; then, since libzim has no "or",
        those of each word, what has more and rarer ones before."""
        found, _ = self._matching(" ".join(words))
        scores: Counter[str] = Counter()
        for word in words if len(words) > 1 and len(found) < _MOST else ():
            some, matches = self._matching(word)
            scores.update(dict.fromkeys(some, math.log(1 + self._archive.all_entry_count / max(1, matches))))
        return list(dict.fromkeys((*found, *(path for path, _ in scores.most_common()))))[:_MOST]

    def _matching(self, words: str) -> tuple[list[str], int]:
        """The first articles with all of the words, and how many there are, about."""
        if self._archive.has_fulltext_index:
            library = import_module("libzim.search")
            searched = library.Searcher(self._archive).search(library.Query().set_query(words))
        else:
            searched = import_module("libzim.suggestion").SuggestionSearcher(self._archive).suggest(words)
        return list(searched.getResults(0, _MOST)), int(searched.getEstimatedMatches())

    def _article(self, path: str, words: Sequence[str], phrases: Sequence[str], reader: Reader) -> Found | None:
        """The best passage of an article; None where it is none, or has not all of the phrases."""
        try:
            item = self._archive.get_entry_by_path(path).get_item()
            if not item.mimetype.startswith("text/html") or item.size > LARGEST["html"]:
                return None
            with tempfile.TemporaryFile() as file:
                file.write(bytes(item.content))
                file.flush()
                document = reader.read(file.fileno(), "html")
        except (KeyError, RuntimeError, UnreadableError):
            return None
        lower = [" ".join(one.text.lower().split()) for one in document.passages]
        if not all(any(phrase in text for text in lower) for phrase in phrases):
            return None
        stems = [word[: max(4, len(word) - 3)] for word in words]
        scores = [sum(stem in text for stem in stems) + sum(phrase in text for phrase in phrases) for text in lower]
        best = document.passages[scores.index(max(scores))]
        title = one_line(item.title) or document.title
        place = shown(f"{self.name}/{path}") + (f", {best.place}" if best.place else "")
        return Found(title, place, excerpt(joined(best.text), words))
