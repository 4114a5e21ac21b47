"""The truth about all processes: events, one after another, in a SQLite file. Everything else is a view of it.

Guarantees: an event that `append` gave back is on disk (a transaction with synchronous=FULL) and is never changed; it
is deleted only with its whole process, where a person asks for that (`forget`); an
append names the last event that its writer has seen, and is refused where another wrote since, so that two clients of
one process do not interleave; a fork is a branch, which has its parent's events up to there and its own after them. A
file of a newer version, or a damaged one, is opened for reading alone, with a word that says so; of a damaged one what
can be read is read. Every method may be called from several threads and processes. Cost: one flush of the disk an
append, some milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from twofile.database import Database
from twofile.errors import KernelError
from twofile.params.atomic import atomic_path

__all__ = ["VERSION", "Event", "Log"]

VERSION = 1

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT OR IGNORE INTO meta VALUES ('version', '{VERSION}');
CREATE TABLE IF NOT EXISTS process (
    pid INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER, upto INTEGER, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL REFERENCES process (pid), kind TEXT NOT NULL,
    body TEXT NOT NULL, at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS of_process ON event (pid, seq);
INSERT OR IGNORE INTO process VALUES (0, NULL, NULL, 0);
"""
_EVENT = "seq, pid, kind, body, at"
_KEPT = re.compile(r"[0-9a-f]{64}\.[a-z]{1,8}")


@dataclass(frozen=True)
class Event:
    """Something that happened to a process. `seq` counts over all processes; `body` is JSON."""

    seq: int
    pid: int
    kind: str
    body: Mapping[str, Any]
    at: float


class Log:
    """Opens or makes a log. `only_read` is a text that says why nothing can be written, "" where it can.

    KernelError for a file that is no log at all. Close it when done."""

    def __init__(self, path: Path) -> None:
        self.path, self.only_read = path, ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = self._open(path, "rwc")
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.execute("PRAGMA foreign_keys = ON")
            self._base.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
            version = self._version()
            if version is None:
                self._base.executescript(_SCHEMA)
            elif version > VERSION:
                self.only_read = f"it is of version {version}, this twofile writes {VERSION}: pip install -U twofile"
            elif self._base.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                self.only_read = "it is damaged; what can be read is shown"
        except (sqlite3.Error, OSError) as error:
            self._damaged(path, error)
        if self.only_read:
            self._base.execute("PRAGMA query_only = ON")
        self._database = Database(self._base)

    @staticmethod
    def _open(path: Path, mode: str) -> sqlite3.Connection:
        address = f"file:{str(path.absolute()).replace('?', '%3f').replace('#', '%23')}?mode={mode}"
        return sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None, timeout=30)

    def _damaged(self, path: Path, error: Exception) -> None:
        """Open a file for reading that could not be opened for writing."""
        try:
            with path.open("rb") as file:
                if file.read(16) != b"SQLite format 3\0":
                    raise KernelError(f"{path} is no log of processes ({error})", "name another file") from error
            self._base = self._open(path, "ro")
            self._base.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except (sqlite3.Error, OSError) as worse:
            raise KernelError(f"{path} cannot be read ({worse})", "move it away, and a new one is begun") from worse
        self.only_read = f"it is damaged ({error}); what can be read is shown"

    def _version(self) -> int | None:
        """None for a file that is empty."""
        if not self._base.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            if self._base.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise KernelError(f"{self.path} is a database of something else", "name another file")
            return None
        (value,) = self._base.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() or ("0",)
        return int(value) if str(value).isdigit() else 0

    def begin(self, kind: str, body: Mapping[str, Any], parent: int | None = None, upto: int | None = None) -> Event:
        """A new process and its first event. With `parent`, it is a branch of that one's events up to `upto`."""
        with self._writing():
            if (
                parent is not None
                and not self._base.execute("SELECT 1 FROM process WHERE pid = ?", (parent,)).fetchone()
            ):
                raise KernelError(f"there is no process {parent}", "twofile ps")
            done = self._base.execute(
                "INSERT INTO process (parent, upto, at) VALUES (?, ?, ?)", (parent, upto, time.time())
            )
            assert done.lastrowid is not None
            return self._insert(done.lastrowid, kind, body)

    def append(self, pid: int, kind: str, body: Mapping[str, Any], after: int) -> Event:
        """One more event of a process. `after`: the last one that the writer knows of. KernelError where another wrote
        since, or the log cannot be written."""
        with self._writing():
            if self.end(pid) != after:
                raise KernelError(f"process {pid} has gone on since (another client speaks with it)", "try again")
            return self._insert(pid, kind, body)

    def note(self, kind: str, body: Mapping[str, Any], when: Callable[[], bool] = lambda: True) -> bool:
        """An event of no process, such as a rule that holds for all: those of process 0. `when`: whether it is still
        to be written, asked while nobody else can write."""
        with self._writing():
            if good := when():
                self._insert(0, kind, body)
            return good

    @contextmanager
    def speaking(self, pid: int) -> Iterator[None]:
        """Be the one that speaks with a process. KernelError where another is, in whatever program."""
        held = self._held(pid)
        if held is None:
            raise KernelError(f"process {pid} is speaking with another client", "wait, or fork it")
        try:
            yield
        finally:
            held.close()  # and so is the lock

    def busy(self, pid: int) -> bool:
        """Whether somebody speaks with a process now."""
        if not self._lock_file(pid).exists():
            return False
        held = self._held(pid)
        if held is not None:
            held.close()
        return held is None

    def _lock_file(self, pid: int) -> Path:
        return self.path.with_name(f"{self.path.name}-turns") / str(pid)

    def _held(self, pid: int) -> IO[bytes] | None:
        path = self._lock_file(pid)
        path.parent.mkdir(exist_ok=True)
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def keep(self, data: bytes, kind: str) -> str:
        """Keep something that is no text, a picture, in a file beside the log, before an event names it; its name."""
        name = f"{hashlib.sha256(data).hexdigest()}.{kind}"
        path = self.kept(name)
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        return name

    def kept(self, name: str) -> Path:
        """Where it is. KernelError for what is no name of `keep`."""
        if not _KEPT.fullmatch(name):
            raise KernelError(f"{name!r} is no picture of {self.path}", "twofile replay shows their names")
        return self.path.with_name(f"{self.path.name}-kept") / name

    def _insert(self, pid: int, kind: str, body: Mapping[str, Any]) -> Event:
        now = time.time()
        text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace").decode()
        done = self._base.execute("INSERT INTO event (pid, kind, body, at) VALUES (?, ?, ?, ?)", (pid, kind, text, now))
        assert done.lastrowid is not None
        return Event(done.lastrowid, pid, kind, json.loads(text), now)

    def events(self, pid: int, after: int = 0) -> list[Event]:
        """The events of a process in their order, those that it has from its parent first; `after`: only later ones.
        KernelError where there is no such process."""
        line: list[tuple[int, int | None]] = []  # it and what it is a branch of, each with the last event that counts
        ahead, most = pid, None
        while True:
            try:
                rows = self._database.rows("SELECT parent, upto FROM process WHERE pid = ?", ahead)
            except sqlite3.DatabaseError as error:
                words = f"what {self.path} says of process {pid} is damaged ({error})"
                raise KernelError(words, "twofile ps") from error
            except OverflowError:
                rows = []
            if not rows:
                raise KernelError(f"there is no process {pid}", "twofile ps")
            line.append((ahead, most))
            parent, upto = rows[0]
            if parent is None:
                break
            most = upto if most is None else most if upto is None else min(most, upto)
            ahead = parent
        return [
            event
            for one, last in reversed(line)
            for event in self._read(one, after)
            if last is None or event.seq <= last
        ]

    def _read(self, pid: int, after: int) -> list[Event]:
        query = f"SELECT {_EVENT} FROM event WHERE pid = ? AND seq > ? ORDER BY seq"
        try:
            return [_event(row) for row in self._database.rows(query, pid, after)]
        except (sqlite3.DatabaseError, ValueError):  # of a page, or of what an event says
            if not self.only_read:
                self.only_read = "it is damaged; what can be read is shown"
        found: list[Event] = []  # one by one, past what cannot be read
        (last,) = self._database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'event'")[0]
        for seq in range(after + 1, int(last) + 1):
            try:
                found += map(
                    _event, self._database.rows(f"SELECT {_EVENT} FROM event WHERE seq = ? AND pid = ?", seq, pid)
                )
            except (sqlite3.DatabaseError, ValueError):
                continue
        return found

    def processes(self) -> list[tuple[int, int | None, float]]:
        """Number, parent and beginning of each process."""
        try:
            return self._database.rows("SELECT pid, parent, at FROM process WHERE pid > 0 ORDER BY pid")
        except sqlite3.DatabaseError as error:
            raise KernelError(f"the list of processes in {self.path} is damaged ({error})", "move it away") from error

    def outline(self) -> list[tuple[int, int | None, float, str]]:
        """Number, parent, last event's time and first words of a user of each process, without reading the rest."""
        return self._database.rows(
            "SELECT p.pid, p.parent, MAX(e.at), (SELECT json_extract(f.body, '$.text') FROM event f WHERE f.pid = p.pid"
            " AND f.kind = 'user' ORDER BY f.seq LIMIT 1) FROM process p JOIN event e ON e.pid = p.pid WHERE p.pid > 0"
            " GROUP BY p.pid ORDER BY p.pid"
        )

    def messages(self, pids: Iterable[int]) -> list[tuple[int, int, str]]:
        """Process, number and kind of the messages that processes have written themselves, in their order."""
        wanted = ", ".join(str(int(pid)) for pid in pids)
        kinds = "('user', 'assistant', 'result')"
        query = f"SELECT pid, seq, kind FROM event WHERE pid IN ({wanted}) AND kind IN {kinds} ORDER BY seq"
        return self._database.rows(query)

    def branches(self) -> dict[int, tuple[int | None, int | None]]:
        """What each process is a branch of, and up to which event; a branch comes after what it is one of."""
        rows = self._database.rows("SELECT pid, parent, upto FROM process WHERE pid > 0 ORDER BY pid")
        return {pid: (parent, upto) for pid, parent, upto in rows}

    def saying(self, words: str) -> set[int]:
        """The processes in which somebody said these words, capital or not."""
        escaped = re.sub(r"([%_\\])", r"\\\1", words)
        query = (
            "SELECT DISTINCT pid FROM event WHERE kind IN ('user', 'assistant') AND json_extract(body, '$.text') LIKE ?"
        )
        return {pid for (pid,) in self._database.rows(f"{query} ESCAPE '\\'", f"%{escaped}%")}

    def forget(self, pids: Iterable[int]) -> None:
        """Delete processes with all that was said in them, from the disk too, and the pictures that they alone show.
        What is a branch of one of them must be among them. KernelError where somebody speaks with one."""
        gone = sorted({int(pid) for pid in pids})
        if busy := [pid for pid in gone if self.busy(pid)]:
            raise KernelError(f"process {busy[0]} is speaking", "stop it first")
        these = f"({', '.join(map(str, gone))})"
        with self._writing():
            shown = self._base.execute(f"SELECT body FROM event WHERE pid IN {these} AND kind IN ('user', 'result')")
            pictures = {name for (body,) in shown for name in _pictures(json.loads(body))}
            self._base.execute(f"DELETE FROM event WHERE pid IN {these}")
            about = "kind = 'title' AND json_extract(body, '$.process')"
            self._base.execute(f"DELETE FROM event WHERE pid = 0 AND {about} IN {these}")
            self._base.execute(f"DELETE FROM process WHERE pid IN {these}")
            for name in pictures:
                if not self._base.execute("SELECT 1 FROM event WHERE instr(body, ?) LIMIT 1", (name,)).fetchone():
                    self.kept(name).unlink(missing_ok=True)
        self._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        for pid in gone:
            self._lock_file(pid).unlink(missing_ok=True)

    def end(self, pid: int) -> int:
        """The last event of a process that is its own: what `append` wants to know. KernelError where there is none."""
        ((last,),) = self._database.rows("SELECT MAX(seq) FROM event WHERE pid = ?", pid)
        if last is None:
            raise KernelError(f"there is no process {pid}", "twofile ps")
        return int(last)

    def fork(self, pid: int, upto: int | None = None) -> Event:
        """A branch of a process, which begins with its events up to `upto`: one of them, else the last that is more
        than a word of its state. KernelError where it has no such event."""
        events = [event for event in self.events(pid) if upto is None or event.seq <= upto]
        if not events:
            raise KernelError(f"process {pid} has no event {upto}", f"twofile replay {pid} shows their numbers")
        last = next((event.seq for event in reversed(events) if event.kind != "state"), events[-1].seq)
        return self.begin("fork", {"of": pid}, parent=pid, upto=last)

    def above(self, pid: int) -> tuple[int, ...]:
        """The processes that it comes from: what it is a branch of, and whose child."""
        found: list[int] = []
        ahead = [pid]
        while ahead:
            at = ahead.pop()
            parents = [parent for (parent,) in self._database.rows("SELECT parent FROM process WHERE pid = ?", at)]
            parents += [event.body.get("parent") for event in self._read(at, 0) if event.kind == "begin"]
            for parent in parents:
                if parent and parent not in found:
                    found.append(parent)
                    ahead.append(parent)
        return tuple(found)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self.only_read:
            raise KernelError(f"{self.path} cannot be written: {self.only_read}", "name another file")
        with self._database.writing():
            yield


def _pictures(body: Mapping[str, Any]) -> Iterator[str]:
    """The pictures that a result gave, or that a user attached."""
    for one in body.get("images", ()):
        yield one["name"]
    for one in (body.get("shown") or {}).get("files", ()):
        if one.get("picture"):
            yield one["picture"]


def _event(row: tuple[int, int, str, str, float]) -> Event:
    seq, pid, kind, body, at = row
    return Event(seq, pid, kind, json.loads(body), at)
