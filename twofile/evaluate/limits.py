"""What this machine can do at most, measured: bytes read a second, multiply-accumulates a second, on so many threads.

A speed means something beside the limit of the same minute: memory on shared machines is twice as fast at one time as
at another. `Machine` compiles limits.c once and measures whenever it is asked, a tenth of a second for each figure.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twofile.engine.build import HINT, build
from twofile.errors import EngineError

__all__ = ["KINDS", "Limits", "Machine", "processor"]

SOURCE = Path(__file__).with_name("limits.c")
_JOBS = {"fill": 0, "read": 1, "int8": 2, "bf16": 3, "f32": 4}  # the numbers of limits.c
KINDS = ("int8", "bf16", "f32")
"""What is multiplied."""

_LARGEST = 1 << 30  # bytes: larger than any cache, and a larger buffer reads no faster
_SMALLEST = 1 << 12  # a thread
_SECONDS = 0.1


@dataclass(frozen=True)
class Limits:
    """Figures of one minute: bytes a second, multiply-accumulates a second; 0 for what the processor cannot."""

    read: float
    int8: float
    bf16: float
    f32: float


class Machine:
    """The limits of this machine with `threads` threads; one measurement at a time.

    Raises EngineError, with what to do, where limits.c cannot be compiled."""

    def __init__(self, threads: int) -> None:
        built = build(source=SOURCE)
        if built.path is None:
            raise EngineError(f"the limits cannot be measured: {built.reason}", HINT)
        c = ctypes.CDLL(str(built.path))
        self._measure, self._words = c.tl_measure, c.tl_instructions
        self._measure.restype, self._words.restype = ctypes.c_double, ctypes.c_char_p
        self._measure.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_double, ctypes.c_void_p, ctypes.c_size_t]
        self.threads = threads
        self._buffer = np.empty(0, np.uint8)

    def limits(self, size: int) -> Limits:
        """All of them; reading is that of `size` bytes, again and again: from the caches, where they hold so much."""
        return Limits(self.read(size), *(self.multiply(kind) for kind in KINDS))

    def read(self, size: int) -> float:
        """Bytes a second. Keeps a buffer of `size` bytes, at most 1 GiB, for the next time."""
        size = max(min(size, _LARGEST), _SMALLEST * self.threads)
        if len(self._buffer) != size:
            self._buffer = np.empty(0, np.uint8)
            room = np.empty(size + 4096, np.uint8)
            self._buffer = room[-room.ctypes.data % 4096 :][:size]
            self._run("fill", 0.0)
        return self._run("read", _SECONDS)

    def multiply(self, kind: str) -> float:
        """Multiply-accumulates a second of one of KINDS; 0 where the processor has no instruction for it."""
        return self._run(kind, _SECONDS)

    def instructions(self, kind: str) -> str:
        """What a kind is multiplied with; "" where there is no such instruction (or no choice, as for f32)."""
        return str(self._words(_JOBS[kind]).decode())

    def _run(self, job: str, seconds: float) -> float:
        buffer = self._buffer
        rate = float(self._measure(_JOBS[job], self.threads, seconds, buffer.ctypes.data, len(buffer)))
        if rate < 0:
            raise EngineError(f"the limits cannot be measured: {self.threads} threads cannot be started")
        return rate


def processor() -> str:
    """The processor's name, as it calls itself."""
    if sys.platform == "darwin":
        import subprocess

        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return done.stdout.strip() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{found[0] if found else platform.processor() or 'unknown'} ({platform.machine()})"
