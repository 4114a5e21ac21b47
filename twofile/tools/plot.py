"""The driver `plot`: data in, a picture out, and what it shows in words, so that a model that cannot see knows it too.

Lines, points, bars; a straight trend by least squares where it is asked for, drawn on to a later x. The words are made
of the data, not of the picture. Guarantee: sizes are bounded, and texts are drawn as they are (no markup is read).
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from twofile.errors import ToolError
from twofile.kernel.driver import Context, Part, image
from twofile.kernel.label import Label

__all__ = ["Plot"]

_SERIES, _POINTS, _TEXT = 12, 5000, 120
_DRAWING = threading.Lock()  # matplotlib's caches of fonts are not for several threads

_NUMBERS = {"type": "array", "items": {"type": "number"}, "maxItems": _POINTS}


class Plot:
    """The driver."""

    name = "plot"
    about = "Draws numbers as lines, points or bars, with a trend where it is asked for, and says what is seen."
    pure = True
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["line", "scatter", "bar"]},
            "series": {
                "type": "array",
                "maxItems": _SERIES,
                "items": {
                    "type": "object",
                    "properties": {
                        "label": {"type": "string"},
                        "x": {"type": "array", "items": {"type": ["number", "string"]}, "maxItems": _POINTS},
                        "y": _NUMBERS,
                    },
                    "required": ["y"],
                    "additionalProperties": False,
                },
            },
            "title": {"type": "string"},
            "x": {"type": "string", "description": "What the x axis is."},
            "y": {"type": "string", "description": "What the y axis is."},
            "trend": {"type": "boolean", "description": "Draw the straight line that fits best."},
            "until": {"type": "number", "description": "The x up to which the trend is drawn on."},
        },
        "required": ["series"],
        "additionalProperties": False,
    }

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label()  # made of what it was given alone: the caller joins that

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        found = [_series(number, one) for number, one in enumerate(arguments["series"], 1)]
        if not found:
            raise ValueError("there is nothing to draw: series has to have one at least")
        words = [f"{len(y)} points, {_said(label, x, y)}" for label, x, y in found]
        fits = []
        if arguments.get("trend"):
            for label, x, y in found:
                fits.append(_fit(label, x, y, arguments.get("until")))
                words.append(fits[-1][2])
        title = str(arguments.get("title", ""))[:_TEXT]
        about = f"a plot{f' “{title}”' if title else ''}: {'; '.join(words)}"
        yield image(_drawn(arguments, found, fits), "image/png", about)


Series = tuple[str, list[Any], list[float]]
Fit = tuple[list[float], list[float], str]


def _series(number: int, given: Mapping[str, Any]) -> Series:
    y = [float(value) for value in given["y"]]
    x = list(given.get("x") or range(1, len(y) + 1))
    if not y or len(x) != len(y):
        raise ValueError(f"series {number} has {len(x)} x and {len(y)} y: as many of both are needed, and one at least")
    if len(y) > _POINTS or not all(map(math.isfinite, y)):
        raise ValueError(f"series {number} has a y that is no number, or more than {_POINTS} of them")
    if any(isinstance(value, str) for value in x):
        x = [str(value)[:_TEXT] for value in x]
    elif not all(map(math.isfinite, x)):
        raise ValueError(f"series {number} has an x that is no number")
    return str(given.get("label", ""))[:_TEXT], x, y


def _number(value: float) -> str:
    return f"{value:.6g}"


def _said(label: str, x: list[Any], y: list[float]) -> str:
    """What a series does, in words."""
    low, high = int(np.argmin(y)), int(np.argmax(y))
    named = f"{label}: " if label else ""
    shown = [one if isinstance(one, str) else _number(one) for one in x]
    return (
        f"{named}from {_number(y[0])} at {shown[0]} to {_number(y[-1])} at {shown[-1]}, "
        f"lowest {_number(y[low])} at {shown[low]}, highest {_number(y[high])} at {shown[high]}"
    )


def _fit(label: str, x: list[Any], y: list[float], until: float | None) -> Fit:
    """The straight line of least squares: its ends, and what it says."""
    at = list(range(1, len(y) + 1)) if isinstance(x[0], str) else x
    if len(set(at)) < 2:
        raise ValueError("a trend needs two different x at least")
    slope, start = (float(value) for value in np.polyfit(np.asarray(at, float), np.asarray(y, float), 1))
    last = max(at) if until is None else float(until)
    ends = [float(min(at)), float(last)]
    words = f"trend{f' of {label}' if label else ''}: y = {_number(slope)} * x + {_number(start)}"
    if until is not None:
        words += f", {_number(slope * last + start)} at {_number(last)}"
    return ends, [slope * one + start for one in ends], words


def _drawn(arguments: Mapping[str, Any], found: Sequence[Series], fits: Sequence[Fit]) -> bytes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        hint = "pip install 'twofile[tools]'"
        raise ToolError("plots are drawn with matplotlib, which is not installed", hint) from error
    kind = arguments.get("kind", "line")
    with _DRAWING:
        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for number, (label, x, y) in enumerate(found):
            named: dict[str, Any] = {"label": _plain(label)} if label else {}
            if kind == "bar":
                wide = 0.8 / len(found)
                places = np.arange(len(y)) + wide * (number - (len(found) - 1) / 2)
                axes.bar(places, y, wide, **named)
                axes.set_xticks(range(len(y)), [_plain(str(one)) for one in x])
            elif kind == "scatter":
                axes.scatter(x, y, **named)
            else:
                axes.plot(x, y, marker="o" if len(y) <= 50 else None, **named)
        for x, y, _ in fits:
            shift = -1 if kind == "bar" or isinstance(found[0][1][0], str) else 0
            axes.plot([one + shift for one in x], y, linestyle="--", color="gray", label="trend")
        for text, put in ((arguments.get("title"), axes.set_title), (arguments.get("x"), axes.set_xlabel),
                          (arguments.get("y"), axes.set_ylabel)):  # fmt: skip
            if text:
                put(_plain(str(text)[:_TEXT]))
        if any(label for label, *_ in found) or fits:
            axes.legend()
        axes.grid(alpha=0.3)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _plain(text: str) -> str:
    """Not read as mathematics."""
    return text.replace("$", r"\$")
