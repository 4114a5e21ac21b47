"""A run on the terminal, live: a bar, the figures, a small curve of the loss, the newest dream.

Draws only when a step calls, at most four times a second, so that no other thread takes time from training. Text from a
model is shown with its control characters spelled out: it may not command the terminal.
"""

from __future__ import annotations

import time
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from twofile.html.figures import percent, quantity, span
from twofile.train.watch import Now

__all__ = ["View", "draw"]

_EVERY = 0.25  # seconds
_BLOCKS = "▁▂▃▄▅▆▇█"
_DREAM_LINES = 6


class View:
    """The live view on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._began = time.monotonic()
        self._shown = 0.0

    def start(self) -> None:
        self._live.start()

    def show(self, now: Now) -> None:
        if time.monotonic() - self._shown >= _EVERY:
            self._draw(now)

    def say(self, text: str) -> None:
        self._console.print(Text(_plain(text)))

    def stop(self, now: Now) -> None:
        self._draw(now)
        self._live.stop()

    def _draw(self, now: Now) -> None:
        self._shown = time.monotonic()
        self._live.update(draw(now, self._shown - self._began, self._console.width), refresh=True)


def draw(now: Now, gone: float, width: int) -> RenderableType:
    """The view of a moment; `gone`: seconds since this process began to train."""
    times = f" {now.progress:.0%}  {span(gone)} gone" + (f", {span(now.left)} left" if now.left is not None else "")
    bar = Table.grid(expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(ProgressBar(total=1.0, completed=min(1.0, now.progress)), Text(times))
    parts: list[RenderableType] = [bar, _figures(now, wide=width >= 72), *_bits(now)]
    if now.dream is not None:
        step, text = now.dream
        parts.append(Text(f"\na dream at step {step:,}", style="dim"))
        parts.append(_first_lines(Text(_plain(text).strip(), style="italic"), width - 4))
    return Panel(Group(*parts), title=now.name, title_align="left", border_style="dim")


def _figures(now: Now, wide: bool) -> Table:
    """Pairs of a word and a figure, two pairs a row where there is room."""
    get = now.values.get
    step, tokens, loss, share = get("step"), get("tokens"), get("loss"), get("share")
    of = f" of {now.steps:,}" if now.steps else ""
    pairs: list[tuple[str, RenderableType]] = [
        ("step", Text(f"{step or 0:,}{of}")),
        ("loss", Text.assemble(f"{loss:.4f}  " if loss is not None else "", (_curve(now.losses), "cyan"))),
        ("tokens", Text(f"{(tokens or 0) / 1e6:,.2f} M")),
        ("learning rate", Text(f"{get('rate') or 0:.0%} of its peak")),
        ("speed", Text(f"{now.speed:,.0f} tokens/s" if now.speed else "...")),
        ("gradient", Text(f"{get('norm') or 0:.3g}")),
        ("matrix peak", _share(share, now.peak)),
        ("memory", Text(f"{now.memory / 1e9:.2f} GB")),
    ]
    table = Table.grid(padding=(0, 2), expand=False)
    columns = 2 if wide else 1
    for start in range(0, len(pairs), columns):
        row: list[RenderableType] = []
        for word, figure in pairs[start : start + columns]:
            row += [Text(word, style="dim"), figure]
        table.add_row(*row)
    return table


def _share(share: float | None, peak: float | None) -> Text:
    if not share or not peak:
        return Text("not measured", style="dim")
    filled = min(10, round(10 * share))
    return Text.assemble(
        f"{percent(share)} ", ("■" * filled, "green"), ("■" * (10 - filled), "dim"), f" of {quantity(peak, 'FLOP/s')}"
    )


def _bits(now: Now) -> list[Text]:
    """Bits per byte of all sources and of each, and how they moved since the validation before."""
    found = {key: value for key, value in now.values.items() if key.startswith("bpb") and value is not None}
    if not found:
        return []
    text = Text("\nbits per byte ", style="dim")
    for key in sorted(found, key=lambda key: (key != "bpb", key)):
        name = "" if key == "bpb" else f" {_plain(key[4:])} "
        text.append(name, style="dim").append(f"{found[key]:.4f}", style="bold" if key == "bpb" else "default")
        if key in now.before:
            change = found[key] - now.before[key]
            text.append(f" ({change:+.4f})", style="green" if change < 0 else "yellow")
        text.append(" ")
    return [text]


def _curve(losses: list[float], width: int = 24) -> str:
    """The losses so far as a row of blocks, each the mean of its part of the run."""
    if len(losses) < 2:
        return ""
    width = min(width, len(losses))
    edges = [i * len(losses) // width for i in range(width + 1)]
    means = [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def _first_lines(text: Text, width: int) -> Text:
    """As much of a text as a few lines hold."""
    room = max(20, width) * _DREAM_LINES
    lines = text.split("\n", allow_blank=True)[:_DREAM_LINES]
    cut = Text("\n").join(lines)
    if len(cut) < len(text) or len(cut) > room:
        cut.truncate(room, overflow="ellipsis")
    return cut


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
