"""What the commands share on the screen: words on stderr, progress bars, sizes for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TextIO

import click

Progress = Callable[[int, int], None]


def note(text: str, *, newline: bool = True) -> None:
    """A remark beside the output proper: dim, on stderr; control characters in it are spelled out."""
    click.echo(click.style(plain(text), dim=True), err=True, nl=newline)


def standard_input() -> TextIO:
    """stdin as UTF-8; bytes that are none become U+FFFD rather than an error."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return sys.stdin


def lines() -> Iterator[str]:
    """What the user types, until the end; with editing and a history of this session where there is a terminal."""
    stdin = standard_input()
    terminal = stdin.isatty()
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  (gives input() line editing)
    while True:
        try:
            line = input("> ") if terminal else stdin.readline()
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            note("\n/quit or Ctrl-D leaves")
            continue
        if not terminal and not line:
            return
        if terminal or line.strip():
            yield line.rstrip("\r\n")


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def plain(text: str) -> str:
    """A text from outside, with control characters spelled out: a file or a model may not command the terminal."""
    return text.translate(_CONTROLS)


def stream(text: str) -> None:
    """Show a piece of a model's text at once; as it is where stdout is no terminal."""
    click.echo(plain(text) if sys.stdout.isatty() else text, nl=False)
    sys.stdout.flush()


@contextmanager
def progress(description: str) -> Iterator[Progress]:
    """A bar on stderr for work counted in bytes, gone when it is done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def size(count: float, unit: str = "B") -> str:
    """1234567 as "1.2 MB" (powers of a thousand)."""
    for prefix in ("", "k", "M", "G", "T"):
        if count < 999.5 or prefix == "T":
            break
        count /= 1000
    return f"{count:.0f} {prefix}{unit}" if count >= 99.5 or not prefix else f"{count:.1f} {prefix}{unit}"


def table(rows: Sequence[tuple[str, ...]], indent: str = "  ") -> str:
    """Columns of text, each as wide as its widest cell."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    return "\n".join(
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))).rstrip()
        for row in rows
    )
