"""`twofile train --ladder`: what a person reads while a ladder is climbed, and the table at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, table

if TYPE_CHECKING:
    from twofile.train.recipe import Draft

MINUTES = 30.0


def climb(
    draft: Draft,
    given: dict[str, Any],
    data: Path,
    into: Path,
    sizes: tuple[float, ...] | None,
    ratios: tuple[float, ...] | None,
    seeds: int,
    predict: tuple[tuple[float, ...], ...],
    verify: bool,
) -> None:
    """Train what is missing of the ladder in `into`, fit, predict, verify; print points, law and predictions."""
    from twofile.train.calibrate import calibrate, unmeasured
    from twofile.train.ladder import RATIOS, Ladder, Rung, largest, rungs, sizes_for

    if any(len(pair) != 2 for pair in predict):
        raise click.UsageError("--predict takes PARAMS,TOKENS, like 8M,160M")
    minutes = given.pop("minutes", None) or draft.dial.minutes or MINUTES
    for name in ("params", "depth", "tokens", "steps"):
        if given.pop(name, None) is not None:
            note(f"{name} is ignored: a ladder has --sizes and --ratios")
    draft = draft.with_options(given)
    ratios = ratios or RATIOS
    known = _known(into)
    if sizes is None and known:
        sizes, ratios, seeds = known
        note("going on with the ladder that is there")
    machine = unmeasured() if sizes else calibrate()
    if sizes is None:
        sizes = tuple(sizes_for(minutes, machine, ratios, seeds))
    into.mkdir(parents=True, exist_ok=True)
    _remember(into, sizes, ratios, seeds)
    wanted = rungs(sizes, ratios, seeds)
    note(f"{len(wanted)} runs")
    ladder = Ladder(draft, data, into, machine, note)
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
    from twofile.train.laws import quantity

    return quantity(entry["params"]), quantity(entry["tokens"]), f"{loss:.4f}", f"{low:.4f} to {high:.4f}"


def _known(into: Path) -> tuple[tuple[float, ...], tuple[float, ...], int] | None:
    """The sizes of a ladder that was begun, so that a second call means the same runs."""
    import json

    path = into / "rungs.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return tuple(found["sizes"]), tuple(found["ratios"]), found["seeds"]


def _remember(into: Path, sizes: tuple[float, ...], ratios: tuple[float, ...], seeds: int) -> None:
    import json

    from twofile.params.atomic import atomic_path

    with atomic_path(into / "rungs.json") as temporary:
        temporary.write_text(json.dumps({"sizes": sizes, "ratios": ratios, "seeds": seeds}), encoding="utf-8")
