"""Our server over pipes with drivers that are hard to serve: one writes to the output in every way there is, one waits
until it is given up, one talks without end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twofile.kernel.driver import Context, Part
from twofile.kernel.label import Label
from twofile.tools.mcp.generate import Generate
from twofile.tools.mcp.server import Given, serve_stdio


class Hard:
    """A driver that has no capabilities."""

    about = "Is hard to serve."
    pure = False
    schema: Mapping[str, Any] = {"type": "object"}

    def __init__(self, name: str) -> None:
        self.name = name

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        match self.name:
            case "prints":
                print("printed", flush=True)
                os.write(1, b"written\n")
                subprocess.run(["/bin/echo", "of a child"], check=True)
                return ("said: ", sys.stdin.read())
            case "waits":
                note = Path(os.environ["LEFT"])
                note.write_text("begun")
                note.write_text("given up" if context.wait(60) else "out of time")
                return ()
            case "breaks":
                raise SystemExit(3)
        return iter(lambda: b"x" * 1000, b"")

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label()


def speaks(model: str, messages: object) -> Iterator[str]:
    """Piece by piece; it leaves a note of how many there were."""
    count = 0
    try:
        while True:
            count += 1
            yield "word "
            time.sleep(0.02)
    finally:
        Path(os.environ["LEFT"]).write_text(str(count))


if __name__ == "__main__":
    hard = [Hard(name) for name in ("prints", "waits", "breaks", "endless")]
    serve_stdio(
        Given([*hard, Generate(["endless"], speaks)], lambda wanted: False, seconds=float(sys.argv[1]), most=5000)
    )
