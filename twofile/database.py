"""A SQLite connection for several threads: whole reads, and writes that happen whole or not at all."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

__all__ = ["Database"]


class Database:
    """Wraps a connection that is in autocommit mode and may be used by any thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._lock = threading.RLock()

    def rows(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with self._lock, closing(self.connection.execute(query, values)) as found:
            return found.fetchall()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction: kept as a whole at the end, or undone as a whole where something is raised."""
        with self._lock:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self.connection.close()
