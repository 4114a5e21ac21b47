"""A Python interpreter in a sandbox, from outside: programs go in, what they print, draw and give comes out.

Guarantees: nothing is run where no sandbox works, and which one works is found by trying to get out of it; what is
defined lasts until `close`, or until a program had to be ended by force, which is said; processes that a program left
running are ended with it and counted; after `close` none is left. What comes out is bounded: text past the limit is
counted and dropped. Cost: 0.1 seconds of start, then 10 milliseconds a program.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from twofile.errors import ToolError
from twofile.tools.sandbox.keeper import Charge
from twofile.tools.sandbox.tiers import HINT, LIMITS, Limits, Tier, prepare

__all__ = ["Interpreter", "Ran", "which"]

_REPLY = 1 << 26  # bytes of a reply: pictures
_FLOOD = 1 << 28  # bytes of output after which a program is stopped
_GRACE = 1.0  # seconds that a program has after it was told to stop
_PNG = b"\x89PNG\r\n\x1a\n"
_KEEPER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from sandbox.keeper import main; main()"
_WHY = {
    "memory": "the limit of memory ({memory} MB, of all its processes together)",
    "disk": "the limit of its disk ({disk} MB)",
}


@dataclass(frozen=True)
class Ran:
    """What a program came to. `output`: what was printed, by it and what it started; `dropped`: bytes of it that are
    not here; `value`: its last expression; `error`: a traceback, or why it was ended; `swept`: processes that it left;
    `lost`: what was defined is gone."""

    output: str = ""
    value: str = ""
    error: str = ""
    images: tuple[tuple[bytes, str], ...] = ()
    dropped: int = 0
    swept: int = 0
    lost: bool = False
    seconds: float = 0.0


class _Output:
    """What is printed, up to `most` bytes."""

    def __init__(self, fd: int, most: int) -> None:
        self._fd, self._most, self._kept, self.dropped, self._flood = fd, most, bytearray(), 0, _FLOOD

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "ignore" if self.dropped else "replace")

    @property
    def flooded(self) -> bool:
        return self.dropped > self._flood

    def go_on(self) -> None:
        """Take as much once more: until the program has heard that it must stop."""
        self._flood = self.dropped + _FLOOD

    def take(self) -> bool:
        """Read what there is; whether there was something."""
        given = _some(self._fd)
        room = self._most - len(self._kept)
        self._kept += given[:room]
        self.dropped += len(given[room:])
        return bool(given)

    def drain(self) -> None:
        """Read all that is there."""
        while not self.flooded and self.take():
            pass


class Interpreter:
    """A context manager. `tier`: None, the best that works here; `read`: what programs may read of this machine.

    ToolError where there is no sandbox. One program at a time; another thread may close it."""

    def __init__(self, tier: Tier | None = None, limits: Limits = LIMITS, read: Iterable[Path] = ()) -> None:
        self.tier, self.limits = tier or which(), limits
        asked, give = os.pipe()
        hear, told = os.pipe()
        seen, print_ = os.pipe()
        self._ends, self._number, self._over = [give, hear, seen], 0, ""
        try:
            place = prepare(self.tier, (asked, told), limits, read)
            self._folder = place.folder
            self._keeper = _keep(place.charge, (asked, told), print_)
        except BaseException:
            self._shut()
            raise
        finally:
            for fd in (asked, told, print_):
                os.close(fd)
        for fd in (hear, seen):
            os.set_blocking(fd, False)
        self._give, self._hear, self._seen = give, hear, seen
        self._heard, self._orders = b"", b""
        self._lock = threading.Lock()
        output = _Output(seen, 4096)
        try:
            ready = self._listen(time.monotonic() + limits.start, output)
            if not (isinstance(ready, dict) and ready.get("ready")):
                output.drain()
                said = output.text.strip()[-400:] or str(ready)
                raise ToolError(f"the sandbox ({self.tier}) does not start: {said}", HINT)
            self._order("base")
        except BaseException:
            self.close()
            raise

    def run(
        self, code: str, seconds: float = 60.0, most: int = 1 << 16, stop: Callable[[], bool] = lambda: False
    ) -> Ran:
        """Run a program. `most`: bytes of output that are kept; `stop`: asked now and then, True ends it."""
        with self._lock:
            if self._over:
                return Ran(error=f"the interpreter has ended: {self._over}", lost=True)
            begun, output = time.monotonic(), _Output(self._seen, most)
            self._number += 1
            number = self._number
            self._tell("busy")
            self._ask({"code": code, "number": number})
            said = self._listen(begun + seconds, output, stop, number)
            why = ""
            if isinstance(said, str) and not self._over:  # told to stop: what was defined stays, if it listens
                why = said
                output.go_on()
                self._ask({"stop": True})
                said = self._listen(time.monotonic() + _GRACE, output, number=number)
            swept = 0
            if isinstance(said, dict):
                swept = int(self._order("sweep").get("swept", 0))
            else:
                self._end(why or said)
            output.drain()
            took = time.monotonic() - begun
            if not isinstance(said, dict):
                return Ran(output.text, "", f"it was ended: {self._over}", (), output.dropped, 0, True, took)
            error = f"it was stopped: {why}" if why else str(said.get("error", ""))
            value, lost = str(said.get("value", "")), bool(self._over)
            return Ran(output.text, value, error, _images(said), output.dropped, swept, lost, took)

    def close(self) -> None:
        """End all that is in it, a program that is being run too. Closing twice is fine."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._keeper.stdin.close()  # the keeper ends all, and who waits for a program hears of it
        with self._lock:
            if not self._over:
                self._end("closed")
            self._shut()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def over(self) -> bool:
        """Whether nothing can be run in it any more."""
        return bool(self._over) or self._keeper.poll() is not None

    @property
    def pid(self) -> int:
        """Of its keeper."""
        return self._keeper.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: dict[str, Any]) -> None:
        """Send a request; one that is not taken is missed by `_listen`."""
        raw = json.dumps(what).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            while raw:
                raw = raw[os.write(self._give, raw) :]

    def _tell(self, order: str) -> None:
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._keeper.stdin.write(order.encode() + b"\n")
            self._keeper.stdin.flush()

    def _order(self, order: str) -> dict[str, Any]:
        """Tell the keeper, and hear its answer."""
        self._tell(order)
        return self._answer(10.0)

    def _answer(self, seconds: float) -> dict[str, Any]:
        """The keeper's next word. Why it is over is kept, as it was said first."""
        assert self._keeper.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._keeper.stdout, selectors.EVENT_READ)
            while b"\n" not in self._orders:
                if not waiting.select(max(0.0, deadline - time.monotonic())):
                    return {}
                given = os.read(self._keeper.stdout.fileno(), 4096)
                if not given:
                    self._over = self._over or "its keeper is gone"
                    return {}
                self._orders += given
        line, _, self._orders = self._orders.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        if "ended" in said:
            self._over = self._over or self._reason(said)
        return said

    def _reason(self, said: dict[str, Any]) -> str:
        why = str(said["ended"])
        sizes = {"memory": self.limits.memory >> 20, "disk": self.limits.disk >> 20}
        if why == "exit":
            return f"the interpreter left with status {said.get('status')}"
        return _WHY.get(why, why).format(**sizes)

    def _listen(
        self,
        deadline: float,
        output: _Output,
        stop: Callable[[], bool] = lambda: False,
        number: int | None = None,
    ) -> dict[str, Any] | str:
        """A reply, or why there is none."""
        assert self._keeper.stdout is not None
        with selectors.DefaultSelector() as waiting:
            for fd in (self._hear, self._seen, self._keeper.stdout.fileno()):
                waiting.register(fd, selectors.EVENT_READ)
            while True:
                while b"\n" in self._heard:
                    line, _, self._heard = self._heard.partition(b"\n")
                    try:
                        said = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(said, dict) and (number is None or said.get("number") == number):
                        return said
                left = deadline - time.monotonic()
                if left <= 0:
                    return "it took too long"
                if stop():
                    return "nobody waits for it any more"
                for key, _ in waiting.select(min(left, 0.05)):
                    if key.fd == self._seen:
                        output.take()
                        if output.flooded:
                            return f"it printed more than {_FLOOD >> 20} MB"
                    elif key.fd == self._hear:
                        if given := _some(self._hear):
                            self._heard += given
                            if len(self._heard) > _REPLY:
                                return "its reply is too large"
                        else:
                            waiting.unregister(self._hear)
                    else:
                        self._answer(1.0)
                        if self._over:
                            return self._over

    def _end(self, why: str) -> None:
        """End all, and wait until none is left."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._keeper.stdin.close()
        self._over = self._over or why
        while self._answer(10.0):
            pass
        try:
            self._keeper.wait(10)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def _shut(self) -> None:
        for fd in self._ends:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._ends = []
        if hasattr(self, "_keeper"):
            for stream in (self._keeper.stdin, self._keeper.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _keep(charge: Charge, fds: tuple[int, ...], output: int) -> subprocess.Popen[bytes]:
    """Start a keeper."""
    room = str(Path(__file__).resolve().parents[1])
    program = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _KEEPER, room, charge.to_json()]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        program, env={}, pass_fds=fds, stdin=pipe, stdout=pipe, stderr=output, start_new_session=True
    )


def _some(fd: int) -> bytes:
    """What there is to read; nothing at the end or where there is nothing yet."""
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""


def _images(said: dict[str, Any]) -> tuple[tuple[bytes, str], ...]:
    """The pictures of a reply, of which nothing is believed."""
    found = []
    for one in said.get("images") or ():
        with contextlib.suppress(Exception):
            data = base64.b64decode(one["data"], validate=True)
            if data.startswith(_PNG):
                found.append((data, str(one["about"])[:1000]))
    return tuple(found)


@lru_cache(maxsize=1)
def which() -> Tier:
    """The best sandbox that works on this machine, found by trying. ToolError where none does: nothing is run then."""
    said = []
    tiers: tuple[Tier, ...] = ("bubblewrap", "landlock")
    for tier in tiers:
        try:
            with tempfile.TemporaryDirectory() as folder, Interpreter(tier) as tried:
                Path(folder).chmod(0o755)
                (there := Path(folder, "file")).write_text("anybody could read this")
                ran = tried.run(_TRIAL.format(there=str(there)), 10)
            if ran.error or ran.value != "[]":
                raise ToolError(f"it does not hold: {ran.error.strip().splitlines()[-1:] or ran.value}")
            return tier
        except (ToolError, OSError) as error:
            said.append(f"{tier}: {error}")
    raise ToolError(f"there is no sandbox here, and without one nothing is run ({'; '.join(said)})", HINT)


_TRIAL = """
import os, socket, ctypes
def tried(act):
    try:
        act()
        return True
    except Exception:
        return False
[name for name, act in {{
    "network": lambda: socket.socket(),
    "files": lambda: open("/etc/passwd").read(),
    "a folder": lambda: open({there!r}).read(),
    "root": lambda: os.setuid(0) if os.getuid() else None,
    "writes": lambda: open("/usr/.twofile", "w"),
    "namespaces": lambda: 1 / (ctypes.CDLL(None).unshare(0x10000000) == 0),
}}.items() if tried(act)]
"""
