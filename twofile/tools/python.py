"""The driver `python`: programs of the model, in a sandbox, with variables and files that last between calls.

Each process of the kernel has an interpreter of its own; the few that were used last are kept. Guarantee: nothing is
run outside a sandbox (`sandbox.interpreter`), and no interpreter serves two processes. Where a program is stopped, what
it defined stays; where it had to be ended, the result says that it is gone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twofile.kernel.driver import Context, Part, image
from twofile.kernel.label import Label, join
from twofile.tools.sandbox.interpreter import Interpreter, Ran
from twofile.tools.sandbox.tiers import LIMITS, Limits, Tier

__all__ = ["Python"]

_KEPT = 4  # interpreters
_MARGIN = 0.1  # of the time of a call, for the answer that it took too long


class Python:
    """The driver. `read`: folders and files that programs may read, which makes what they give the user's own; `tier`:
    None, the best that works. Close it when done."""

    name = "python"
    about = "Runs a program and gives what it prints."
    pure = False
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
        "additionalProperties": False,
    }

    def __init__(self, read: Iterable[Path] = (), limits: Limits = LIMITS, tier: Tier | None = None) -> None:
        self.read, self.limits, self.tier = [path.resolve() for path in read], limits, tier
        self._held: OrderedDict[int, Interpreter] = OrderedDict()
        self._lock = threading.Lock()

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ("py:exec", *(f"fs:read:{path}" for path in self.read))

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return join(
            [Label.of("tool:python"), *(Label.of(f"file:{path}", ["user"]) for path in self.read)]
        )  # what one call read, a later one may say

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        interpreter, fresh = self._of(context.process)
        seconds = max(0.1, context.seconds * (1 - _MARGIN) - _MARGIN)
        ran = interpreter.run(str(arguments["code"]), seconds, stop=context.cancelled.is_set)
        yield from _told(ran, fresh)

    def _of(self, process: int) -> tuple[Interpreter, bool]:
        """The interpreter of a process, and whether it takes the place of one that ended."""
        with self._lock:
            held = self._held.pop(process, None)
            gone = held is not None and held.over
            if held is None or gone:
                if held is not None:
                    held.close()
                held = Interpreter(self.tier, self.limits, self.read)
            self._held[process] = held
            while len(self._held) > _KEPT:
                self._held.popitem(last=False)[1].close()
            return held, gone

    def close(self) -> None:
        """End all interpreters."""
        with self._lock:
            while self._held:
                self._held.popitem()[1].close()


def _told(ran: Ran, fresh: bool) -> Iterable[Part | str]:
    """What the model reads."""
    said = [ran.output.rstrip("\n"), ran.value]
    if ran.dropped:
        said.insert(1, f"[{ran.dropped:,} more bytes were printed]")
    if ran.swept:
        said.append(f"[{ran.swept} processes were still running, and were ended]")
    if ran.lost:
        said.append("[what was defined before is gone]")
    if fresh:
        said.append("[the interpreter is a new one: what was defined before is gone]")
    words = "\n".join(one for one in said if one)
    if words or not (ran.images or ran.error):
        yield (words or "[it printed nothing]") + ("\n" if ran.images else "")
    for data, about in ran.images:
        yield image(data, "image/png", about)
    if ran.error:
        yield "\n" if words else ""
        raise ValueError(ran.error.strip())
