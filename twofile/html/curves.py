"""Curves as SVG, in HTML that needs nothing else: fluid in width, labels that keep their size, colours by the page.

A plot is an SVG that is stretched to its box (strokes are not), with the labels of its axes as HTML beside it, so that
it can be read on a telephone as on a desk without any script. The page's script, where it runs, reads the values back
from the paths: x from `data-x`, y from `data-y` ("low high log?").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import median

from twofile.html.figures import quantity, short_span

__all__ = ["Curve", "Scale", "limits", "plot", "smooth"]

_WIDTH, _HEIGHT = 1000, 300  # of the drawing; what a screen makes of it is the page's business
_BAR = 9
_DOTS = 32  # a curve of no more points shows them

Words = Callable[[float], str]


@dataclass(frozen=True)
class Curve:
    """A line through points in order of x; `colour` is a number of the page's palette.

    `lows` and `highs` make a pale band around it, `raw` a pale line behind it (both as long as `xs`)."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()
    raw: Sequence[float] = ()
    shape: str = "line"  # "points" and "bars" are not joined, and `lows` to `highs` are their intervals


@dataclass(frozen=True)
class Scale:
    """An axis: from values to 0..1."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            if value <= 0:
                return -1.0
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, steps: Sequence[float] = (1, 2, 5, 10), most: int = 5) -> list[float]:
        """Round values on the axis, at most about `most`."""
        if self.log and self.high / self.low >= 8:
            return self._decades(most)
        least = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(least))
        step = next((unit * s for s in steps if unit * s >= least * 0.999), 10 * unit)
        return self._multiples(step)

    def times(self, most: int = 5) -> list[float]:
        """Round times on the axis, in seconds."""
        least = (self.high - self.low) / most
        units = [
            n * u
            for u, ns in ((60, (1, 2, 5, 10, 15, 30)), (3600, (1, 2, 3, 6, 12)), (86400, (1, 2, 5, 10)))
            for n in ns
        ]
        step = next((unit for unit in units if unit >= least), 0)
        if least <= 30 or not step:
            return self.ticks((1, 2, 3, 5, 10) if least <= 30 else (1, 2, 5, 10), most)
        return self._multiples(step)

    def _multiples(self, step: float) -> list[float]:
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _decades(self, most: int) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = max(1, math.ceil((high - low) / most))
        factors = (1, 2, 5) if (high - low) * 3 <= most + 3 else (1, 3) if (high - low) * 2 <= most + 2 else (1,)
        found = [f * 10.0**e for e in range(low, high + 1, every) for f in factors]
        return [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]


def smooth(values: Sequence[float], share: float = 0.02) -> list[float]:
    """The running median over `share` of the values, narrower at the beginning: it neither smears a spike nor lags
    behind a fall."""
    half = max(1, round(len(values) * share / 2))
    windows = (values[i - min(half, i) : i + min(half, i) + 1] for i in range(len(values)))
    return [median(window) for window in windows]


def limits(curves: Sequence[Curve], *, log: bool = False, zero: bool = False, early: float = 0.0) -> Scale | None:
    """A scale that holds the curves, but for the first `early` of their points (a loss begins far above where it stays)
    and the highest hundredth of bands and raw lines. None where there is nothing to show."""
    lows: list[float] = []
    highs: list[float] = []
    for curve in curves:
        start = min(math.ceil(len(curve.ys) * early), len(curve.ys) - 1) if len(curve.ys) > 20 else 0
        noise = sorted(curve.highs[start:] or curve.raw[start:])
        highs += [
            *curve.ys[start:],
            *noise[: len(noise) - (len(noise) // 100 if curve.shape == "line" and not log else 0)],
        ]
        lows += [*curve.ys, *curve.lows, *curve.raw]
    if log:
        lows, highs = [x for x in lows if x > 0], [x for x in highs if x > 0]
    if not lows or not highs:
        return None
    low, high = min(lows), max(highs)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    if log:
        room = (high / low) ** 0.06 if high > low else 1.2
        return Scale(low / room, high * room, True)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low if zero and low == 0 else low - room, high + room)


def plot(
    curves: Sequence[Curve],
    x: Scale,
    y: Scale,
    *,
    kind: str,
    unit: str = "",
    marks: Sequence[tuple[float, int | None]] = (),
    label: str = "",
) -> str:
    """The HTML of a plot. `kind`: what x is, "tokens", "seconds", "flops", "nats"; `unit`: of y, for who points at it;
    "%" shows shares as per cent; `marks`: vertical lines, (x, colour); `label`: for who cannot see it."""
    words: Words = short_span if kind == "seconds" else quantity
    x_ticks = x.times() if kind == "seconds" else x.ticks()
    y_ticks = y.ticks()
    grid = "".join(f"M0 {_y(y, tick)}H{_WIDTH}" for tick in y_ticks)
    drawn = [f'<path class="grid" d="{grid}"/>']
    for at, colour in marks:
        drawn.append(f'<path class="mark{"" if colour is None else f" c{colour}"}" d="M{_x(x, at)} 0V{_HEIGHT}"/>')
    drawn += [_pale(curve, x, y) for curve in curves]
    drawn += [_line(curve, x, y) for curve in curves]
    y_labels = "".join(
        f'<span style="top:{100 - 100 * y(t):.2f}%">{_figure(t, unit, y_ticks, y.log)}</span>' for t in y_ticks
    )
    x_labels = "".join(f'<span style="left:{100 * x(t):.2f}%">{escape(words(t))}</span>' for t in x_ticks)
    return (
        f'<div class="plot" data-kind="{kind}" data-unit="{escape(unit)}" data-x="{_data(x)}" data-y="{_data(y)}">'
        f'<div class="y">{y_labels}</div><div class="area"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg></div>'
        f'<div class="x">{x_labels}</div></div>'
    )


def _data(scale: Scale) -> str:
    return f"{scale.low:.9g} {scale.high:.9g} {int(scale.log)}"


def _figure(value: float, unit: str, ticks: Sequence[float], log: bool) -> str:
    if unit == "%":
        return f"{100 * value:.3g}%"
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=abs(value) or 1.0)
    if max(map(abs, ticks), default=0) >= 1000:
        return quantity(value)
    if log:
        return f"{value:g}"
    places = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    return f"{value:.{places}f}" if value or places else "0"


def _x(scale: Scale, value: float) -> str:
    return _coordinate(_WIDTH * scale(value))


def _y(scale: Scale, value: float) -> str:
    return _coordinate(_HEIGHT * (1 - scale(value)))


def _coordinate(value: float) -> str:
    """Two digits behind the point; far outside is as good as near outside."""
    return f"{max(-_WIDTH, min(2 * _WIDTH, value)):.2f}".rstrip("0").rstrip(".")


def _points(x: Scale, y: Scale, xs: Sequence[float], ys: Sequence[float]) -> list[str]:
    return [f"{_x(x, a)} {_y(y, b)}" for a, b in zip(xs, ys, strict=True)]


def _pale(curve: Curve, x: Scale, y: Scale) -> str:
    """What lies behind a curve: the band of a group's smallest and largest, or each step."""
    drawn = ""
    if curve.lows and curve.shape == "line":
        there = _points(x, y, curve.xs, curve.highs)
        back = _points(x, y, curve.xs[::-1], curve.lows[::-1])
        drawn += f'<path class="band c{curve.colour}" d="M{"L".join([*there, *back])}Z"/>'
    if curve.raw:
        drawn += f'<path class="raw c{curve.colour}" d="M{"L".join(_points(x, y, curve.xs, curve.raw))}"/>'
    if curve.lows and curve.shape != "line":
        bars = (
            f"M{_x(x, a)} {_y(y, low)}V{_y(y, high)}"
            for a, low, high in zip(curve.xs, curve.lows, curve.highs, strict=True)
        )
        drawn += f'<path class="interval c{curve.colour}" d="{"".join(bars)}"/>'
    return drawn


def _line(curve: Curve, x: Scale, y: Scale) -> str:
    points = _points(x, y, curve.xs, curve.ys)
    if not points:
        return ""
    dots = "".join(f"M{point}h0" for point in points)
    name = f'data-name="{escape(curve.name)}" data-colour="{curve.colour}"'
    if curve.shape == "points":
        return f'<path class="points c{curve.colour}" {name} d="{dots}"/>'
    if curve.shape == "bars":
        bars = "".join(f"M{point}h{_BAR}m-{2 * _BAR} 0h{_BAR}" for point in points)
        return f'<path class="bars c{curve.colour}" {name} d="{bars}"/>'
    line = f'<path class="line c{curve.colour}" {name} d="M{"L".join(points)}"/>'
    return line + (f'<path class="dots c{curve.colour}" d="{dots}"/>' if len(points) <= _DOTS else "")
