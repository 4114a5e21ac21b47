"""`twofile bench`: how fast a parameters file runs here, and how near that is to what the machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from twofile.cli.console import note, plain, size, table
from twofile.cli.options import find
from twofile.errors import EngineError

if TYPE_CHECKING:
    from twofile.evaluate.limits import Machine
    from twofile.evaluate.speed import Report, Result, Spread


@click.command("bench")
@click.argument("name")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="0: one a core.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each figure is taken.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=0.3, show_default=True, help="For each figure in a round, at least."
)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write everything to this file.")
def bench_command(name: str, threads: int, rounds: int, seconds: float, out: Path | None) -> None:
    """Measure the model NAME: tokens a second decoding, reading a prompt, and in many sessions at once; start; memory.

    Beside each speed stands its share of what the machine allowed in the same minute. A busy machine measures little:
    look at the lowest and highest.
    """
    import json

    from twofile.evaluate.speed import Ours, environment, measure

    ours = Ours(find(name), threads)
    machine = limits(ours.threads)
    note(
        f"measuring on {ours.threads} threads, about {rounds * 7 * max(seconds, 0.1) + 10:.0f} s; a large model longer"
    )
    report = measure(ours.path, [ours], machine, rounds=rounds, seconds=seconds)
    click.echo(describe(report, machine))
    if out:
        out.write_text(json.dumps({**environment(ours.threads), "reports": [report.to_json()]}, indent=1) + "\n")
        note(f"written to {out}")


def limits(threads: int) -> Machine | None:
    """What measures the machine's limits; None, and a remark, where it cannot be compiled."""
    from twofile.evaluate.limits import Machine

    try:
        return Machine(threads)
    except EngineError as error:
        note(f"{error.message}; {error.hint}")
        return None


def describe(report: Report, machine: Machine | None) -> str:
    """A report for people: the limits, ours, each peer with our ratio to it, our share of the limits."""
    from twofile.evaluate.speed import spread

    head = (
        f"{plain(report.model)}: {size(report.parameters, '').replace(' ', '')} parameters, {size(report.bytes)}, "
        f"of which a pass reads {size(report.work.weights)}"
    )
    ours, *peers = report.results
    starts = ("load", "first token", "memory")
    columns = [("tokens/s", *(figure.cell.name for figure in ours.figures), *starts), _column(ours, report)]
    for peer in peers:
        pairs = zip(ours.figures, peer.figures, strict=True)
        ratios = [[a / b for a, b in zip(mine.rates, theirs.rates, strict=True)] for mine, theirs in pairs]
        empty = [""] * len(starts)
        columns += [_column(peer, report), ("ratio", *(_spread(spread(values), "{:.2f}") for values in ratios), *empty)]
    if report.limits:
        shares = [f"{spread(figure.shares).median:.0%} of {figure.bound}" for figure in ours.figures]
        columns.append(("of the limit", *shares, *[""] * len(starts)))
    return "\n".join((head, *_limits(report, machine), table(list(zip(*columns, strict=True)))))


def _limits(report: Report, machine: Machine | None) -> list[str]:
    """One line, or none where they were not measured."""
    from twofile.evaluate.speed import spread

    if not machine or not report.limits:
        return []
    read = spread([found.read for found in report.limits])
    words = [f"limits: read {size(read.median)}/s ({size(read.low)} to {size(read.high)})"]
    for kind in ("int8", "bf16", "f32"):
        peak = spread([getattr(found, kind) for found in report.limits])
        name = " ".join(filter(None, (kind, machine.instructions(kind))))
        words.append(f"{name} {_rate(peak.median / 1e9)} GMAC/s" if peak.median else f"no {kind}")
    return ["; ".join(words)]


def _column(result: Result, report: Report) -> tuple[str, ...]:
    """What one program did: its speeds, its start."""
    from twofile.evaluate.speed import spread

    speeds = [_spread(figure.rate) for figure in result.figures]
    if not result.starts:
        return result.program, *speeds, "", "", ""
    load, first = (spread([getattr(start, name) for start in result.starts]).median for name in ("load", "first"))
    memory = spread([start.memory for start in result.starts]).median
    ends = (
        f"{load * 1000:,.1f} ms",
        f"{first * 1000:,.1f} ms",
        f"{size(memory)}, {memory / report.bytes:.2f} of the file",
    )
    return result.program, *speeds, *ends


def _spread(found: Spread, form: str = "") -> str:
    """ "370 (334 to 555)", or "370" of one round."""
    median, low, high = (form.format(x) if form else _rate(x) for x in found)
    return f"{median} ({low} to {high})" if found.low < found.high else median


def _rate(x: float) -> str:
    return f"{x:,.1f}" if x < 100 else f"{x:,.0f}"
