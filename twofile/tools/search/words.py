"""Which passages have the words that are asked for: two ways to keep that, SQLite's FTS5 and tantivy.

A question is words, any of which may be there, and phrases in quotes, all of which must. Passages come in the order of
BM25, in which a word of the title weighs three times and one of the headings one and a half. Words have their English
stems (Porter) and no accents. Scripts that put no spaces between words are kept a character at a time, and a run of
them is asked for by all pairs of neighbours: a trigram tokenizer finds nothing by fewer than three characters, where
most Chinese words have two, and would give up stems.

FTS5 is part of the transaction that stores a file. tantivy commits on its own, and slowly: what it lacks is known from
the numbers of files, which only grow, and made up for in one commit after many files; so a kill leaves it behind, never
wrong. It answers about twice as fast.

Source: BM25, Robertson and Zaragoza 2009.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from twofile.database import Database
from twofile.errors import ToolError
from twofile.tools.search.text import SCRIPT, separated

if TYPE_CHECKING:
    import tantivy

__all__ = ["FTS5", "Query", "Tantivy", "Words", "parse"]

_TITLE, _PLACE = 3.0, 1.5
_LONGEST, _MOST = 1000, 32  # characters of a question, words and phrases of it
_HEAP = 128 << 20  # bytes that tantivy may hold before it writes
_WORD = re.compile(rf"[{SCRIPT}]+|[^\W_{SCRIPT}]+")
_COMMON = frozenset((
    "a", "about", "an", "and", "are", "as", "at", "be", "by", "did", "do", "does", "for", "from", "had", "has",
    "have", "how", "i", "if", "in", "is", "it", "its", "of", "on", "or", "that", "the", "their", "there",
    "they", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "whom", "why", "will",
    "with", "you",
))  # fmt: skip


@dataclass(frozen=True)
class Query:
    """What is asked for: any of the words (one may be two characters of a script without spaces), all of the phrases;
    the words of both in lower case."""

    words: tuple[str, ...]
    phrases: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.words or self.phrases)


def parse(text: str) -> Query:
    """What a person or a model asks for. Never raises: what is no word is left out."""
    text = text[:_LONGEST].lower()
    quoted = text.split('"')
    phrases = [" ".join(_WORD.findall(part)) for part in quoted[1:-1:2]]
    found = [word for part in (*quoted[::2], *([] if len(quoted) % 2 else quoted[-1:])) for word in _WORD.findall(part)]
    words: list[str] = []
    for word in found:
        if re.match(f"[{SCRIPT}]", word) and len(word) > 2:
            words += (word[at : at + 2] for at in range(len(word) - 1))
        else:
            words.append(word)
    telling = [word for word in words if word not in _COMMON]
    kept = tuple(dict.fromkeys(filter(None, phrases)))[:_MOST]
    return Query(tuple(dict.fromkeys(telling or ([] if kept else words)))[: _MOST - len(kept)], kept)


class Words(Protocol):
    """What knows which passages have which words."""

    def added(self, file: int) -> None:
        """A file was stored; within its transaction."""
        ...

    def removed(self, file: int) -> None:
        """A file is about to be removed; within its transaction."""
        ...

    def settle(self) -> None:
        """Catch up with what was stored, outside of a transaction."""
        ...

    def find(self, query: Query, count: int) -> list[tuple[int, float]]:
        """Numbers of passages and how well they match, the best first."""
        ...


class FTS5:
    """Words in the same database as the passages."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def added(self, file: int) -> None:
        self._each("INSERT INTO words(rowid, title, place, text) SELECT id, title, place, text", file)

    def removed(self, file: int) -> None:
        self._each(
            "INSERT INTO words(words, rowid, title, place, text) SELECT 'delete', id, title, place, text",
            file,
        )

    def settle(self) -> None:
        pass

    def find(self, query: Query, count: int) -> list[tuple[int, float]]:
        rows = self.database.rows(
            "SELECT rowid, -rank FROM words WHERE words MATCH ? AND rank MATCH ? ORDER BY rank LIMIT ?",
            self._match(query),
            f"bm25({_TITLE}, {_PLACE}, 1.0)",
            count,
        )
        return [(int(number), float(score)) for number, score in rows]

    def _each(self, statement: str, file: int) -> None:
        self.database.connection.execute(f"{statement} FROM whole WHERE file = ?", (file,))

    @staticmethod
    def _match(query: Query) -> str:
        """The question in FTS5's language: only strings in quotes, none of which has a quote in it."""
        musts = " AND ".join(_quoted(phrase) for phrase in query.phrases)
        if not query.words:
            return musts
        cans = " OR ".join(_quoted(word) for word in (*query.phrases[:1], *query.words))
        return f"{musts} AND ({cans})" if musts else cans


class Tantivy:
    """Words in a folder beside the database. Raises ToolError where the library is absent."""

    def __init__(self, database: Database, folder: Path) -> None:
        try:
            import tantivy
        except ImportError as error:
            raise ToolError("this index needs tantivy", "pip install 'twofile[tools]'") from error
        self.database, self.folder = database, folder
        self._schema = (
            tantivy.SchemaBuilder()
            .add_integer_field("file", indexed=True)  # signed: documents are not deleted by a number without a sign
            .add_integer_field("passage", stored=True)
            .add_text_field("title", tokenizer_name="words")
            .add_text_field("place", tokenizer_name="words")
            .add_text_field("text", tokenizer_name="words")
            .build()
        )
        analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        for one in (tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold(), tantivy.Filter.stemmer("english")):
            analyzer = analyzer.filter(one)
        self._analyzer = analyzer.build()
        self._index: tantivy.Index | None = None

    def added(self, file: int) -> None:
        pass

    def removed(self, file: int) -> None:
        self.database.connection.execute("INSERT INTO gone(file) VALUES (?)", (file,))

    def settle(self) -> None:
        """Commit what was stored and removed since the last time. One process at a time: others wait."""
        with self._alone():
            self._settle()

    def _settle(self) -> None:
        import tantivy

        index, done = self._opened()
        (last,) = self.database.rows("SELECT coalesce(max(id), 0) FROM file")[0]
        gone = [file for (file,) in self.database.rows("SELECT file FROM gone")]
        if last == done and not gone:
            return
        writer = index.writer(_HEAP, 1)
        for file in gone:
            writer.delete_documents_by_term("file", file)
        for (file,) in self.database.rows("SELECT id FROM file WHERE id > ? AND id <= ?", done, last):
            writer.delete_documents_by_term("file", file)  # where a kill came between the two commits
            for number, title, place, text in self.database.rows(
                "SELECT id, title, place, text FROM whole WHERE file = ?", file
            ):
                document = tantivy.Document(title=title, place=place, text=text)
                document.add_integer("file", file)
                document.add_integer("passage", number)
                writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        with self.database.writing():
            self.database.connection.execute("INSERT OR REPLACE INTO meta VALUES ('tantivy', ?)", (last,))
            self.database.connection.executemany("DELETE FROM gone WHERE file = ?", [(file,) for file in gone])
        index.reload()

    def find(self, query: Query, count: int) -> list[tuple[int, float]]:
        try:
            index = self._reached()
        except ValueError:
            with self._alone():
                index, _ = self._opened()
        index.reload()  # what another process has committed
        said = " ".join((*(f"+{_quoted(one)}" for one in query.phrases), *(_quoted(one) for one in query.words)))
        wanted = index.parse_query(
            said, ["title", "place", "text"], field_boosts={"title": _TITLE, "place": _PLACE, "text": 1.0}
        )
        searcher = index.searcher()
        hits = searcher.search(wanted, count).hits
        return [(int(searcher.doc(at)["passage"][0]), float(score)) for score, at in hits]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else makes the folder or writes to it."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield  # and closing lets go

    def _reached(self) -> tantivy.Index:
        """The index that there is, without a wait for who writes to it. ValueError where there is none of its kind."""
        import tantivy

        if not (self.folder / "meta.json").exists():
            raise ValueError("there is no index")
        if self._index is None:
            self._index = tantivy.Index(self._schema, str(self.folder))
            self._index.register_tokenizer("words", self._analyzer)
        return self._index

    def _opened(self) -> tuple[tantivy.Index, int]:
        """The index, and up to which file it is. One that is missing or of another kind is begun anew."""
        import tantivy

        rows = self.database.rows("SELECT value FROM meta WHERE key = 'tantivy'")
        done = int(rows[0][0]) if rows else 0
        if self._index is not None and (self.folder / "meta.json").exists():
            return self._index, done
        if not (self.folder / "meta.json").exists():
            done = 0
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._index = tantivy.Index(self._schema, str(self.folder))
        except ValueError:
            shutil.rmtree(self.folder)
            self.folder.mkdir(mode=0o700)
            self._index, done = tantivy.Index(self._schema, str(self.folder)), 0
        self._index.register_tokenizer("words", self._analyzer)
        if not done:
            with self.database.writing():
                self.database.connection.execute("DELETE FROM meta WHERE key = 'tantivy'")
        return self._index, done


def _quoted(words: str) -> str:
    return f'"{separated(words)}"'
