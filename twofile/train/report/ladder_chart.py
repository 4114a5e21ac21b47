"""A ladder of runs on a page: the losses that were fitted, what the law predicted, and what came out.

Reads what `twofile train --ladder` writes: `{"points": [{"params", "tokens", "loss", "interval"}], "fit": {...},
"predictions": [{"params", "tokens", "predicted", "low", "high", "outcome"}]}`. The x axis is the work of training,
6 floating-point operations a parameter and token (arXiv:2001.08361); the loss is bits per byte of held-out text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from twofile.html import tables
from twofile.html.curves import Curve, limits, plot
from twofile.html.figures import quantity
from twofile.train.history import number

__all__ = ["section"]


@dataclass(frozen=True)
class _Rung:
    """A run of the ladder: trained and fitted (`predicted` is None), or predicted."""

    params: float
    tokens: float
    loss: float | None  # what came out
    predicted: float | None
    low: float | None  # of the interval around the one of them that a fit or a repetition gives
    high: float | None

    @property
    def work(self) -> float:
        return 6 * self.params * self.tokens


def section(name: str, ladder: Mapping[str, Any]) -> str:
    """The section of a report; "" where the table holds no point and no prediction that can be read."""
    points = [rung for entry in _entries(ladder, "points") if (rung := _point(entry)) is not None]
    predictions = [rung for entry in _entries(ladder, "predictions") if (rung := _prediction(entry)) is not None]
    if not points and not predictions:
        return ""
    fit = ladder.get("fit")
    law = f"<h4>The law</h4>{tables.show(fit)}" if isinstance(fit, dict) and fit else ""
    return (
        f"<h2>Scaling: prediction and outcome, {escape(name)}</h2>{_chart(points, predictions)}"
        f'<div class="card" style="margin-top:12px">{_table(predictions)}{law}</div>'
    )


def _entries(ladder: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = ladder.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _size(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    params, tokens = number(entry.get("params")), number(entry.get("tokens"))
    return (params, tokens) if params and tokens and params > 0 and tokens > 0 else None


def _point(entry: Mapping[str, Any]) -> _Rung | None:
    """An interval is two ends, or what lies on either side."""
    size, loss, interval = _size(entry), number(entry.get("loss")), entry.get("interval")
    if size is None or loss is None:
        return None
    if isinstance(interval, list) and len(interval) == 2:
        return _Rung(*size, loss, None, number(interval[0]), number(interval[1]))
    side = number(interval)
    return _Rung(*size, loss, None, *((None, None) if side is None else (loss - side, loss + side)))


def _prediction(entry: Mapping[str, Any]) -> _Rung | None:
    size = _size(entry)
    predicted, low, high, outcome = (number(entry.get(key)) for key in ("predicted", "low", "high", "outcome"))
    return None if size is None or predicted is None else _Rung(*size, outcome, predicted, low, high)


def _chart(points: list[_Rung], predictions: list[_Rung]) -> str:
    curves = [
        _curve("fitted", [(rung, rung.loss, rung.low, rung.high) for rung in points], 0, "points"),
        _curve("predicted", [(rung, rung.predicted, rung.low, rung.high) for rung in predictions], 1, "bars"),
        _curve("outcome", [(rung, rung.loss, None, None) for rung in predictions], 2, "points"),
    ]
    curves = [curve for curve in curves if curve.xs]
    works = [x for curve in curves for x in curve.xs]
    x, y = limits([Curve("", works, works)], log=True), limits(curves, log=True)
    if x is None or y is None:
        return ""
    legend = "".join(f'<li><span class="swatch c{c.colour}"></span>{c.name}</li>' for c in curves)
    drawing = plot(curves, x, y, kind="flops", label="Loss against the work of training: fitted, predicted, outcome")
    about = "bits per byte of held-out text, against the floating-point operations of training; bars are intervals"
    return (
        f'<figure class="large"><figcaption><h3>Loss</h3><p>{about}</p></figcaption>'
        f'<ul class="legend">{legend}</ul><div>{drawing}</div></figure>'
    )


def _curve(
    name: str, found: list[tuple[_Rung, float | None, float | None, float | None]], colour: int, shape: str
) -> Curve:
    """Points with their intervals, in order of work; without an interval the point stands for its ends."""
    placed = sorted(
        (rung.work, y, y if low is None else low, y if high is None else high)
        for rung, y, low, high in found
        if y is not None
    )
    xs, ys, lows, highs = ([row[i] for row in placed] for i in range(4))
    return Curve(name, xs, ys, colour, lows, highs, shape=shape)


def _table(predictions: list[_Rung]) -> str:
    listing = [
        {
            "parameters": quantity(rung.params),
            "tokens": quantity(rung.tokens),
            "predicted": f"{rung.predicted:.4f}",
            "interval": f"{rung.low:.4f} to {rung.high:.4f}" if rung.low is not None and rung.high is not None else "",
            "outcome": f"{rung.loss:.4f}" if rung.loss is not None else "not trained yet",
            "error": f"{(rung.predicted or 0) / rung.loss - 1:+.2%}" if rung.loss else "",
        }
        for rung in predictions
    ]
    return tables.show(listing) if listing else '<p class="soft">Nothing was predicted.</p>'
