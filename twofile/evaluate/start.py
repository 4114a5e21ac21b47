"""How a program begins: the time until a file is open and has given its first logits, and the memory that takes.

    python -m twofile.evaluate.start FILE THREADS        # one JSON object, for this program

Each measurement is a process of its own, in which the libraries are loaded beforehand: what is measured is the file. It
comes from the page cache, and its mapped pages count as memory once they are touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import LAST, Backend
from twofile.errors import EngineError

__all__ = ["Read", "Start", "begin", "fresh"]

Read = Callable[[NDArray[np.int32]], object]
"""Reads tokens and computes the logits of the last."""

_FIRST = 16  # tokens that are read before the first one comes


@dataclass(frozen=True)
class Start:
    """A process that opens a file and reads 16 tokens; nothing of Python's own start is counted."""

    load: float  # seconds
    first: float  # seconds, from the beginning to the first logits
    memory: int  # bytes by which the process grew, at its peak


def fresh(command: Sequence[str]) -> Start:
    """Run a command that prints what `begin` gives, as `python -m twofile.evaluate.start FILE THREADS` does."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode:
        raise EngineError(f"a fresh process ends with {done.returncode}: {done.stderr.strip()[-300:]}")
    return Start(**json.loads(done.stdout.splitlines()[-1]))


def begin(open_file: Callable[[], Read]) -> None:
    """Print the Start of this process as JSON: `open_file` gives what reads 16 tokens and computes logits."""
    ids = np.zeros(_FIRST, np.int32)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    before = _memory("VmRSS")
    began = time.perf_counter()
    read = open_file()
    opened = time.perf_counter()
    read(ids)
    ended = time.perf_counter()
    print(json.dumps(asdict(Start(opened - began, ended - began, max(0, _memory("VmHWM") - before)))))


def _memory(key: str) -> int:
    """Bytes of this process, now or at their peak; without /proc always at their peak."""
    with suppress(OSError):  # a child's ru_maxrss begins with its parent's on Linux
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _begin_ours(path: Path, threads: int) -> None:
    from twofile.engine import library
    from twofile.engine.reference import Reference

    program: library.Library | None = None
    with suppress(EngineError):
        program = library.load_program()

    def open_file() -> Read:
        backend: Backend = program.open(path, threads) if program else Reference(path)
        return lambda ids: backend.evaluate([(backend.cache(), ids, LAST)])

    begin(open_file)


if __name__ == "__main__":
    _begin_ours(Path(sys.argv[1]), int(sys.argv[2]))
