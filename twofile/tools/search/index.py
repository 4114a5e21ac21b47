"""The index of a folder: its files as passages, and the words in them, kept as the folder changes.

`update` reads what is new or was changed (its size or one of its times), forgets what is gone, and counts with its
reason what cannot be read; a file that was renamed is one gone and one new. Links are not followed, files whose names
begin with a dot are left out. Guarantee: each file is one transaction, so that a kill at any moment leaves an index of
whole files, and the next update goes on from there; several processes may update and search at once. The folder is
only read; what is kept is one SQLite file that nobody but the user reads, with a folder of tantivy beside it when there
are many passages.

Cost: about twice the text on disk; a look at every file's times for an update that finds nothing new.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from twofile.database import Database
from twofile.errors import ToolError
from twofile.tools.search.folder import Entry, Folder, PathError, shown
from twofile.tools.search.found import Found, excerpt
from twofile.tools.search.passage import Document
from twofile.tools.search.readers import UnreadableError, kind_of
from twofile.tools.search.text import joined, separated
from twofile.tools.search.words import FTS5, Tantivy, Words, parse
from twofile.tools.search.worker import Reader

__all__ = ["Index", "Kept", "Report"]

Kept = Literal["auto", "fts5", "tantivy"]

_OURS = 0x74776F66  # PRAGMA application_id
_VERSION = 1
_NAMES = 200_000  # of one folder
_PER_FILE = 2  # passages of one file among what is found
_STAMP = "size, modified, changed"
_SCHEMA = f"""
CREATE TABLE meta(key TEXT PRIMARY KEY, value);
CREATE TABLE file(id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE NOT NULL, size INTEGER, modified INTEGER,
    changed INTEGER, title TEXT NOT NULL, name TEXT NOT NULL, note TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE passage(id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL, place TEXT NOT NULL,
    text TEXT NOT NULL);
CREATE INDEX passage_file ON passage(file);
CREATE TABLE gone(file INTEGER PRIMARY KEY);
CREATE VIEW whole AS SELECT passage.id AS id, file, title || ' ' || name AS title, place, text
    FROM passage JOIN file ON file.id = passage.file;
CREATE VIRTUAL TABLE words USING fts5(title, place, text, content='whole', content_rowid='id',
    tokenize="porter unicode61 remove_diacritics 2");
PRAGMA application_id = {_OURS};
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True)
class Report:
    """What an update did. `files`, `passages`: that are in the index now; `read`, `removed`: files, this time;
    `unread`: files that cannot be read, by reason; `others`: files of other kinds; `complete`: the end was reached."""

    files: int
    passages: int
    read: int
    removed: int
    unread: Mapping[str, int] = field(default_factory=dict)
    others: int = 0
    complete: bool = True


class Index:
    """The index of `folder`, kept at `path`, a file. `words`: how its words are kept; "auto" is FTS5, and from `large`
    passages on tantivy, where that is installed. Raises ToolError where the folder or the file is none of ours."""

    def __init__(self, folder: Path | str, path: Path, words: Kept = "auto", large: int = 200_000) -> None:
        self.folder, self.path, self.kept, self.large = Folder(folder), path, words, large
        self.name = os.path.basename(self.folder.path) or "root"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # to open one that is in use would let go of its locks
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ToolError(f"the index {path} cannot be opened ({error.strerror})") from error
        try:
            self.database = Database(sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False))
        except sqlite3.Error as error:
            raise ToolError(f"the index {path} cannot be opened ({error})") from error
        try:
            self._begin()
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise ToolError(f"{path} is no index of {folder} ({error})", "name another file for it") from error
            raise
        self._fts5 = FTS5(self.database)
        self._tantivy: Tantivy | None = None

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def update(self, until: float = math.inf, stop: Callable[[], bool] = lambda: False) -> Report:
        """Make the index what the folder is. `until`, of time.monotonic(), and `stop` end it early, after a file.
        ValueError where the folder cannot be read."""
        query = f"SELECT path, id, {_STAMP}, problem FROM file"
        before = {path: (int(number), tuple(stamp), problem) for path, number, *stamp, problem in self._rows(query)}
        counts: Counter[str] = Counter()
        unread: Counter[str] = Counter()
        complete = True
        with Reader() as reader:
            for path, found in self._walk():
                if time.monotonic() > until or stop():
                    complete = False
                    break
                if isinstance(found, str):
                    unread[found] += 1
                    continue
                if kind_of(path) is None:
                    counts["others"] += 1
                    continue
                had = before.pop(os.fsencode(path), None)
                if had is not None and had[1] == (found.size, found.modified, found.changed):
                    problem = had[2]
                else:
                    problem = self._read(path, reader)
                    counts["read"] += 1
                if problem:
                    unread[problem] += 1
        if complete:
            for number, *_ in before.values():
                with self.database.writing():
                    counts["removed"] += self._remove("id = ?", number)
        if self._choose() or counts["read"] or counts["removed"]:
            self._words().settle()
        ((files,),), ((passages,),) = (
            self._rows("SELECT count(*) FROM file WHERE problem = ''"),
            self._rows("SELECT count(*) FROM passage"),
        )
        return Report(files, passages, counts["read"], counts["removed"], unread, counts["others"], complete)

    def search(self, query: str, count: int = 5) -> list[Found]:
        """The passages that match best; no more than two of a file. Nothing in a question is wrong."""
        wanted = parse(query)
        if not wanted or count < 1:
            return []
        result: list[Found] = []
        per_file: Counter[int] = Counter()
        terms = (*wanted.words, *(word for phrase in wanted.phrases for word in phrase.split()))
        for number, _ in self._words().find(wanted, count * 4 + 20):
            rows = self._rows(
                "SELECT file, path, title, place, text FROM passage JOIN file ON file.id = file WHERE passage.id = ?",
                number,
            )
            if not rows:  # gone since
                continue
            file, path, title, place, text = rows[0]
            per_file[file] += 1
            if per_file[file] <= _PER_FILE:
                where = shown(f"{self.name}/{os.fsdecode(path)}") + (f", {joined(place)}" if place else "")
                result.append(Found(joined(title), where, excerpt(joined(text), terms)))
            if len(result) == count:
                break
        return result

    def _walk(self) -> Iterator[tuple[str, Entry | str]]:
        """The files below the folder, and in words what is none; a folder that cannot be listed, too."""
        waiting = [""]
        while waiting:
            above = waiting.pop()
            try:
                entries = self.folder.entries(above, _NAMES)
            except PathError as error:
                if not above:
                    raise
                yield above, error.reason
                continue
            for one in entries:
                path = f"{above}/{one.name}" if above else one.name
                if one.name.startswith("."):
                    continue
                if one.kind == "folder":
                    waiting.append(path)
                elif one.kind == "file":
                    yield path, one
                else:
                    yield path, "a link, which is not followed" if one.kind == "link" else "no plain file"

    def _read(self, path: str, reader: Reader) -> str:
        """Read a file and store it; why it cannot be read, or ""."""
        kind = kind_of(path)
        assert kind is not None
        document, problem = Document("", ()), ""
        stamp: tuple[int | None, ...] = (None, None, None)  # another time again
        try:
            with self.folder.opened(path) as (handle, found):
                stamp = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                try:
                    document = reader.read(handle, kind)
                except UnreadableError as error:
                    problem = str(error)
                    stamp = stamp if error.lasting else (None, None, None)
                after = os.fstat(handle)
                if stamp[1:] != (after.st_mtime_ns, after.st_ctime_ns):  # it was written to meanwhile
                    stamp = (None, None, None)
        except PathError as error:
            problem = error.reason
        encoded, name = os.fsencode(path), os.path.basename(path)
        plain = separated(os.fsencode(name).decode("utf-8", "replace"))
        title = separated(document.title) or plain
        with self.database.writing():
            self._remove("path = ?", encoded)
            connection = self.database.connection
            values = (encoded, *stamp, title, plain, document.note, problem)
            columns = f"path, {_STAMP}, title, name, note, problem"
            number = connection.execute(f"INSERT INTO file({columns}) VALUES (?,?,?,?,?,?,?,?)", values).lastrowid
            assert number is not None
            connection.executemany(
                "INSERT INTO passage(file, place, text) VALUES (?, ?, ?)",
                ((number, separated(one.place), separated(one.text)) for one in document.passages),
            )
            self._words().added(number)
        return problem

    def _remove(self, condition: str, value: int | bytes) -> int:
        """Remove a file, within a transaction; how many there were."""
        numbers = [number for (number,) in self._rows(f"SELECT id FROM file WHERE {condition}", value)]
        for number in numbers:
            self._words().removed(number)
            self.database.connection.execute("DELETE FROM passage WHERE file = ?", (number,))
            self.database.connection.execute("DELETE FROM file WHERE id = ?", (number,))
        return len(numbers)

    def _words(self) -> Words:
        """How words are kept at present: another process may have changed it."""
        if self._rows("SELECT value FROM meta WHERE key = 'words'")[0][0] == "fts5":
            return self._fts5
        if self._tantivy is None:
            self._tantivy = Tantivy(self.database, self.path.with_suffix(".tantivy"))
        return self._tantivy

    def _choose(self) -> bool:
        """Change how words are kept when that is wanted; whether it was changed."""
        now = self._rows("SELECT value FROM meta WHERE key = 'words'")[0][0]
        wanted = self.kept
        if wanted == "auto":
            (passages,) = self._rows("SELECT count(*) FROM passage")[0]
            wanted = "tantivy" if now == "tantivy" or (passages > self.large and find_spec("tantivy")) else "fts5"
        if wanted == now:
            return False
        if wanted == "tantivy":
            Tantivy(self.database, self.path.with_suffix(".tantivy")).settle()  # before anybody asks it
        with self.database.writing():
            fill = "rebuild" if wanted == "fts5" else "delete-all"
            self.database.connection.execute("INSERT INTO words(words) VALUES (?)", (fill,))
            self.database.connection.execute("UPDATE meta SET value = ? WHERE key = 'words'", (wanted,))
        return True

    def _begin(self) -> None:
        """Make the tables where there are none. sqlite3.DatabaseError where the file holds something else."""
        connection = self.database.connection
        if self._ours() or not self._rows("SELECT 1 FROM sqlite_master"):
            with contextlib.suppress(sqlite3.OperationalError):  # another process is just doing that
                connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        with self.database.writing():
            if not self._ours() and not self._rows("SELECT 1 FROM sqlite_master"):
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                first = {"words": "fts5" if self.kept == "auto" else self.kept, "folder": self.folder.path}
                connection.executemany("INSERT INTO meta VALUES (?, ?)", first.items())
            elif not self._ours():
                raise sqlite3.DatabaseError("it holds something else, or is of another version")
            elif self._rows("SELECT value FROM meta WHERE key = 'folder'")[0][0] != self.folder.path:
                raise sqlite3.DatabaseError("it is of another folder")

    def _ours(self) -> bool:
        return [self._rows(f"PRAGMA {one}")[0][0] for one in ("application_id", "user_version")] == [_OURS, _VERSION]

    def _rows(self, query: str, *values: int | bytes) -> list[Any]:
        return self.database.rows(query, *values)
