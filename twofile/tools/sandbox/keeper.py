"""What watches a sandbox from outside: ends it when it takes too much memory or disk, and leaves nothing behind.

Started with one argument, the JSON of `Charge`. It runs the program, is the parent of whatever that leaves behind
(PR_SET_CHILD_SUBREAPER), looks at the memory of the whole tree twenty times a second while something is run, twice
otherwise, and reads orders from standard input, a line each: "base" (those that are there now belong to it), "busy"
(something is run), "sweep" (it is over: end all others). It answers "base" and "sweep" with a line of JSON on standard
output. At the end of its input, or when the program has ended, all are ended. Guarantee: when it has said "ended", no
process of the tree is left. A process that forks faster than it can be ended is stopped first. Cost: a look reads
/proc, 20 microseconds a process of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

__all__ = ["Charge", "main"]

_EVERY, _IDLE = 0.05, 0.5  # seconds between two looks
_ROUNDS = 400  # of ending: a bomb is over after a few
_SUBREAPER = 36


class Charge(NamedTuple):
    """`memory`: bytes of the whole tree; `folder`: what it writes to, "" where the system bounds that; `disk`: bytes of
    it; `fds`: descriptors that the program gets; `environment`: all of it."""

    program: tuple[str, ...]
    environment: dict[str, str]
    fds: tuple[int, ...]
    memory: int
    folder: str
    disk: int

    def to_json(self) -> str:
        return json.dumps(self._asdict())


def main() -> None:
    charge = Charge(**json.loads(sys.argv[1]))
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: who called decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    child = subprocess.Popen(
        charge.program, env=charge.environment, pass_fds=charge.fds, stdin=subprocess.DEVNULL, stdout=2, cwd="/"
    )
    for fd in charge.fds:
        os.close(fd)
    why = "closed"
    try:
        why = _watch(charge, child)
    finally:
        end(partial(strangers, set()))
        with contextlib.suppress(BrokenPipeError, OSError):
            _say({"ended": why, "status": child.poll()})


def _watch(charge: Charge, child: subprocess.Popen[bytes]) -> str:
    """Until it is over; why."""
    base: set[tuple[int, str]] = set()
    rest, every = b"", _EVERY
    while True:
        if select.select([0], [], [], every)[0]:
            given = os.read(0, 4096)
            if not given:
                return "closed"
            *lines, rest = (rest + given).split(b"\n")
            for line in lines:
                every = _EVERY if line == b"busy" else _IDLE
                if line == b"base":
                    base = {(pid, born(pid)) for pid in tree(os.getpid())}
                    _say({"base": len(base)})
                elif line == b"sweep":
                    others = strangers(base)
                    if others and not end(partial(strangers, base)):
                        return "processes that cannot be ended"
                    _say({"swept": len(others)})
        mine = tree(os.getpid())
        reap(child)
        if child.poll() is not None:
            return "exit"
        if sum(map(memory, mine)) > charge.memory:
            return "memory"
        if charge.folder and disk(charge.folder, mine) > charge.disk:
            return "disk"


def _say(what: dict[str, object]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def reap(child: subprocess.Popen[bytes] | None = None) -> None:
    """Forget those that ended, but for the program, whose status is asked for."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or (child is not None and found.si_pid == child.pid):
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)


def tree(root: int) -> list[int]:
    """All that come from a process and are alive, itself not."""
    children: dict[int, list[int]] = {}
    dead = set()
    for name in _names("/proc"):
        if name.isdigit():
            state, parent, *_ = _read(f"/proc/{name}/stat").rpartition(")")[2].split() or ("Z", "0")
            children.setdefault(int(parent), []).append(int(name))
            if state in "ZX":
                dead.add(int(name))
    found, todo = list[int](), [root]
    while todo:
        mine = children.get(todo.pop(), [])
        todo += mine
        found += [pid for pid in mine if pid not in dead]
    return found


def strangers(base: set[tuple[int, str]]) -> list[int]:
    """All below this process that do not belong to it."""
    return [pid for pid in tree(os.getpid()) if (pid, born(pid)) not in base]


def end(those: Callable[[], list[int]]) -> bool:
    """End processes until `those()` finds none; whether that came about."""
    for turn in range(_ROUNDS):
        reap()
        left = those()
        if not left:
            return True
        for kind in (signal.SIGSTOP, signal.SIGKILL) if turn else (signal.SIGKILL,):
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, kind)
        time.sleep(0.001 if turn < 20 else 0.01)
    return False


def born(pid: int) -> str:
    """When it began, in ticks: a number of a process may be used again."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def memory(pid: int) -> int:
    """Bytes that it keeps in memory of its own or shares with others without a file."""
    total = 0
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(("RssAnon:", "RssShmem:", "VmSwap:")):
            total += int(line.split()[1]) * 1024
    return total


def disk(folder: str, pids: list[int]) -> int:
    """Bytes of a folder, and of files that have no name any more and are open."""
    total, seen = 0, set()
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
        total += 4096
    for pid in pids:
        for fd in _names(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{fd}")
                if found.st_nlink == 0 and (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
    return total


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

