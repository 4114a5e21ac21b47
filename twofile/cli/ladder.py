"""`twofile train --ladder`: what a person reads while a ladder is climbed, and the table at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, table

if TYPE_CHECKING:
    from twofile.train.pretrain.dial import Machine
    from twofile.train.pretrain.recipe import Draft


def climb(
    draft: Draft,
    data: Path,
    into: Path,
    sizes: tuple[float, ...] | None,
    ratios: tuple[float, ...] | None,
    seeds: int | None,
    predict: tuple[tuple[float, ...], ...],
    verify: bool,
    machine: Callable[[], Machine],
) -> None:
    """Train what is missing of the ladder in `into`, fit, predict, verify; print points, law and predictions."""
    from twofile.train.pretrain.ladder import Ladder, Rung, largest

    if any(len(pair) != 2 for pair in predict):
        raise click.UsageError("--predict takes PARAMS,TOKENS, like 8M,160M")
    ladder = Ladder(draft, data, into, machine, note)
    wanted = ladder.wanted(sizes, ratios, seeds)
    note(f"{len(wanted)} runs")
    law = ladder.climb(wanted)
    told = [Rung(params, tokens) for params, tokens in predict] or [largest(wanted)]
    for rung in told:
        ladder.predict(law, rung, verify=verify)
    found = ladder.read()
    rows: list[tuple[str, ...]] = [("parameters", "tokens", "bits a byte", "95%")]
    rows += [_row(point, point["loss"], *point["interval"]) for point in found["points"]]
    click.echo(table(rows))
    click.echo(
        f"\nL = {law.law.E:.3f} + {law.law.A:.3g} / N^{law.law.alpha:.3f} + {law.law.B:.3g} / D^{law.law.beta:.3f}\n"
    )
    rows = [("predicted", "tokens", "bits a byte", "95%", "outcome")]
    for entry in found["predictions"]:
        outcome = entry["outcome"]
        off = "" if outcome is None else f"{outcome:.4f} ({outcome / entry['predicted'] - 1:+.1%})"
        rows.append((*_row(entry, entry["predicted"], entry["low"], entry["high"]), off))
    click.echo(table(rows))
    note(f"twofile report {into} draws it")


def _row(entry: dict[str, Any], loss: float, low: float, high: float) -> tuple[str, str, str, str]:
    from twofile.html.figures import quantity

    return quantity(entry["params"]), quantity(entry["tokens"]), f"{loss:.4f}", f"{low:.4f} to {high:.4f}"
