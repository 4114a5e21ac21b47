"""The log: what was appended is there after any kill, branches, two writers, newer and damaged files."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from twofile.errors import KernelError
from twofile.kernel.log import VERSION, Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "kernel.db")


def test_events_and_branches(log: Log) -> None:
    first = log.begin("begin", {"n": 1})
    second = log.append(first.pid, "user", {"text": "a\ud800b"}, first.seq)  # half a character
    assert second.body == {"text": "a?b"}
    branch = log.begin("fork", {}, parent=first.pid, upto=second.seq)
    third = log.append(first.pid, "user", {"text": "c"}, second.seq)
    assert [event.seq for event in log.events(first.pid)] == [first.seq, second.seq, third.seq]
    assert [event.kind for event in log.events(branch.pid)] == ["begin", "user", "fork"]
    twig = log.begin("fork", {}, parent=branch.pid, upto=branch.seq)
    assert [event.kind for event in log.events(twig.pid)] == ["begin", "user", "fork", "fork"]
    assert log.events(first.pid, after=second.seq) == [third]
    assert [pid for pid, _, _ in log.processes()] == [1, 2, 3]
    with pytest.raises(KernelError, match="no process 9"):
        log.events(9)
    with pytest.raises(KernelError, match="no process 9"):
        log.append(9, "user", {}, 0)


def test_two_writers_do_not_interleave(log: Log) -> None:
    other = Log(log.path)
    begun = log.begin("begin", {})
    log.append(begun.pid, "user", {}, begun.seq)
    with pytest.raises(KernelError, match="another client"):
        other.append(begun.pid, "user", {}, begun.seq)
    assert len(other.events(begun.pid)) == 2
    with pytest.raises(KernelError, match="another client"):
        other.append(begun.pid, "a", {}, begun.seq)
    assert len(log.events(begun.pid)) == 2


def test_newer_and_other_files_are_not_written(log: Log, tmp_path: Path) -> None:
    begun = log.begin("begin", {"n": 1})
    log.close()
    with sqlite3.connect(log.path) as base:
        base.execute("UPDATE meta SET value = ? WHERE key = 'version'", (str(VERSION + 1),))
    newer = Log(log.path)
    assert "pip install -U" in newer.only_read
    assert newer.events(begun.pid)[0].body == {"n": 1}
    with pytest.raises(KernelError, match="cannot be written"):
        newer.append(begun.pid, "user", {}, begun.seq)
    (tmp_path / "text.db").write_text("something else\n" * 10)
    with pytest.raises(KernelError, match="no log of processes"):
        Log(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as base:
        base.execute("CREATE TABLE mine (a)")
    with pytest.raises(KernelError, match="something else"):
        Log(tmp_path / "other.db")


def test_a_damaged_page(log: Log) -> None:
    event = log.begin("begin", {})
    for i in range(400):
        event = log.append(event.pid, "user", {"n": i, "text": "x" * 400}, event.seq)
    log._base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.close()
    size = log.path.stat().st_size
    with log.path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    damaged = Log(log.path)
    assert "damaged" in damaged.only_read
    found = damaged.events(event.pid)
    assert 100 < len(found) < 401
    assert all(one.body.get("text", "x" * 400) == "x" * 400 for one in found)


WRITER = """
import sys
from pathlib import Path
from twofile.kernel.log import Log
log = Log(Path(sys.argv[1]))
event = log.begin("begin", {})
print(event.pid, flush=True)
while True:
    event = log.append(event.pid, "user", {"n": event.seq}, event.seq)
    print(event.seq, flush=True)
"""


def test_killed_while_writing(log: Log) -> None:
    """Whatever was given back is there."""
    draw = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(log.path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        told = [int(process.stdout.readline()) for _ in range(draw.randint(1, 20))]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines()]
        process.wait()
        process.stdout.close()
        there = [event.seq for event in Log(log.path).events(pid)]
        assert set(told) <= set(there)
        assert there == sorted(there)
