"""Items to label and the labels that people gave them, in one SQLite file.

Guarantees: a label that was acknowledged is on disk (a transaction with synchronous=FULL); a label has the id that its
sender chose, so that sending it again changes nothing; a labeller has one label an item that stands. Undoing takes a
label back and keeps it in the file. Every method may be called from several threads and several processes. Cost: one
flush of the disk a label, some milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from twofile.database import Database
from twofile.errors import LabelError

if TYPE_CHECKING:
    pass

__all__ = ["Item", "Label", "Outcome", "Store", "Verdict"]

Verdict = Literal["first", "second", "tie", "text", "skip"]
"""The better reply; neither; a text was written instead; the item was passed over."""

Outcome = Literal["kept", "known", "other"]
"""A label was kept; it was there already; the labeller has another one for this item."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, messages TEXT NOT NULL, tools TEXT NOT NULL,
    replies TEXT NOT NULL, source TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS label (
    id TEXT PRIMARY KEY, item INTEGER NOT NULL REFERENCES item (id), labeller TEXT NOT NULL, verdict TEXT NOT NULL,
    text TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL, undone INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS undo (id TEXT PRIMARY KEY, label TEXT NOT NULL REFERENCES label (id));
CREATE UNIQUE INDEX IF NOT EXISTS standing ON label (item, labeller) WHERE undone = 0;
"""
_ITEM, _LABEL = "id, messages, tools, replies, source", "id, item, labeller, verdict, text, reason, at"


@dataclass(frozen=True)
class Item:
    """A conversation to label. Without `replies` an answer is to be written, with one a correction of it, with two the
    better is to be chosen."""

    messages: tuple[Mapping[str, Any], ...]
    replies: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    id: int = 0

    @property
    def key(self) -> str:
        """What tells it from others, whatever file it came from."""
        whole = json.dumps([self.messages, self.replies, self.tools], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Label:
    """What a labeller said of an item. `text`: the ideal answer, where one was written."""

    id: str
    item: int
    labeller: str
    verdict: Verdict
    text: str = ""
    reason: str = ""
    at: float = 0.0


class Store:
    """Opens or makes a file of labels. LabelError where it is something else. Close it when done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.execute("PRAGMA foreign_keys = ON")
            self._base.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise LabelError(f"{path} is no file of labels ({error})", "name another with --into") from error
        self._database = Database(self._base)

    def add(self, items: Iterable[Item]) -> int:
        """Put items in; how many were not there yet."""
        rows = [
            (one.key, _json(one.messages), _json(one.tools), _json(one.replies), one.source, time.time())
            for one in items
        ]
        with self._database.writing():
            before = self._base.total_changes
            self._base.executemany(
                "INSERT OR IGNORE INTO item (key, messages, tools, replies, source, at) VALUES (?, ?, ?, ?, ?, ?)", rows
            )
            return self._base.total_changes - before

    def items(self) -> list[Item]:
        """All of them, in the order in which they came."""
        return [_item(row) for row in self._database.rows(f"SELECT {_ITEM} FROM item ORDER BY id")]

    def item(self, number: int) -> Item:
        """One of them. LabelError where there is none of this number."""
        rows = self._database.rows(f"SELECT {_ITEM} FROM item WHERE id = ?", number)
        if not rows:
            raise LabelError(f"there is no item {number}")
        return _item(rows[0])

    def next(self, labeller: str, each: int = 1, without: Sequence[int] = ()) -> Item | None:
        """The item that a labeller is to see: one that has not `each` labels yet and none of theirs; those that others
        have begun come first, so that agreement can be told, those in `without` (others see them now) last."""
        chosen = ",".join(str(int(number)) for number in without) or "NULL"
        rows = self._database.rows(
            f"""SELECT {_ITEM} FROM item AS i
            LEFT JOIN (SELECT item, SUM(verdict <> 'skip') AS n, MAX(labeller = ?) AS mine FROM label WHERE undone = 0
            GROUP BY item)
            AS l ON l.item = i.id
            WHERE COALESCE(mine, 0) = 0 AND COALESCE(n, 0) < ?
            ORDER BY i.id IN ({chosen}), -COALESCE(n, 0), i.id LIMIT 1""",
            labeller,
            each,
        )
        return _item(rows[0]) if rows else None

    def submit(self, label: Label) -> Outcome:
        """Keep a label; when this returns it is on disk. LabelError for an item that there is not."""
        self.item(label.item)
        values = (
            label.id,
            label.item,
            label.labeller,
            label.verdict,
            label.text,
            label.reason,
            label.at or time.time(),
        )
        with self._database.writing():
            if self._base.execute("SELECT 1 FROM label WHERE id = ?", (label.id,)).fetchone():
                return "known"
            try:
                self._base.execute(f"INSERT INTO label ({_LABEL}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError:
                return "other"
        return "kept"

    def undo(self, labeller: str, id: str = "") -> Label | None:
        """Take back the labeller's last label; None where none stands. `id`: as with labels, one that the sender chose:
        sent again, it takes back nothing more and gives the same label."""
        with self._database.writing():
            known = self._base.execute(
                f"SELECT {_LABEL} FROM label WHERE id = (SELECT label FROM undo WHERE id = ?)", (id,)
            ).fetchone()
            if known:
                return Label(*known)
            rows = self._base.execute(
                f"SELECT {_LABEL} FROM label WHERE labeller = ? AND undone = 0 ORDER BY at DESC, rowid DESC LIMIT 1",
                (labeller,),
            ).fetchall()
            if not rows:
                return None
            self._base.execute("UPDATE label SET undone = 1 WHERE id = ?", (rows[0][0],))
            if id:
                self._base.execute("INSERT INTO undo (id, label) VALUES (?, ?)", (id, rows[0][0]))
        return Label(*rows[0])

    def labels(self) -> list[Label]:
        """Those that stand, in the order in which they came."""
        return [
            Label(*row)
            for row in self._database.rows(f"SELECT {_LABEL} FROM label WHERE undone = 0 ORDER BY at, rowid")
        ]

    def counts(self, labeller: str, each: int = 1) -> dict[str, int]:
        """Of items, of those with enough labels, of labels that stand, of this labeller's."""
        (row,) = self._database.rows(
            """SELECT (SELECT COUNT(*) FROM item),
            (SELECT COUNT(*) FROM (SELECT item FROM label WHERE undone = 0 AND verdict <> 'skip'
            GROUP BY item HAVING COUNT(*) >= ?)),
            (SELECT COUNT(*) FROM label WHERE undone = 0),
            (SELECT COUNT(*) FROM label WHERE undone = 0 AND labeller = ?)""",
            each,
            labeller,
        )
        return dict(zip(("items", "done", "labels", "mine"), row, strict=True))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _item(row: tuple[Any, ...]) -> Item:
    number, messages, tools, replies, source = row
    return Item(tuple(json.loads(messages)), tuple(json.loads(replies)), tuple(json.loads(tools)), source, number)
