"""The report of a run, or of several beside one another: one HTML page that needs nothing else.

    html = report([read(folder)])

Curves against tokens and against time, samples, the recipe, the data, the machine; where the folder has a
`ladder.json`, what was predicted beside what came out. Everything that comes from the folder is escaped. Costs less
than a second a run beside reading its log, and about 100 KB of page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from statistics import median
from typing import Any

from twofile.html import tables
from twofile.html.curves import Curve, Scale, limits, plot, smooth
from twofile.html.figures import percent, quantity, span
from twofile.html.page import COLOURS, page
from twofile.train.history import Group, History, Mark
from twofile.train.report import ladder_chart, usage

__all__ = ["curves", "report"]

_AXES = ("tokens", "seconds")
_EARLY = 0.03  # of a run: its first losses may leave the frame
_SHOWN = 12  # validations in a table


def report(runs: Sequence[History]) -> str:
    """The page. ValueError where there is no run at all."""
    if not runs:
        raise ValueError("a report of nothing")
    trained = [run for run in runs if run.groups]
    title = ", ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs"
    notes = [f"{run.name}: {run.unreadable} lines of the log could not be read" for run in runs if run.unreadable]
    notes += [f"{run.name}: {text}" for run in runs for text in run.warnings]
    parts = [
        _tiles(runs[0]) if len(runs) == 1 else _overview(runs),
        _charts(trained) if trained else '<p class="card">There is no step in the log yet.</p>',
        _validations(trained),
        *(ladder_chart.section(run.name, run.ladder) for run in runs if run.ladder),
        _samples(runs),
        _folders(runs, "The recipe", lambda run: run.recipe, tables.show),
        _folders(runs, "The data", _data, tables.show),
        _folders(runs, "The vocabulary", _vocabulary, usage.section),
        _folders(runs, "The machine", lambda run: run.machines, _machines),
        f"<footer>{''.join(f'<p>{escape(note)}</p>' for note in notes)}</footer>" if notes else "",
    ]
    return page(f"{title} – twofile report", _header(title, runs), "".join(parts))


def _header(title: str, runs: Sequence[History]) -> str:
    chip = ""
    if len(runs) == 1:
        done = runs[0].finished
        chip = f'<span class="chip{" done" if done else ""}">{"finished" if done else "not finished"}</span>'
    log = runs[0].folder / "log.jsonl"
    when = ""
    if log.is_file():
        written = datetime.fromtimestamp(log.stat().st_mtime, UTC)
        when = f"log last written {written:%-d %B %Y, %H:%M} UTC"
    again = len(runs[0].resumed) if len(runs) == 1 else 0
    times = f", resumed {'once' if again == 1 else f'{again} times'}" if again else ""
    return f'<h1>{escape(title)}</h1><p class="soft">{chip}{escape(when + times)}</p>'


def _figures(run: History) -> list[tuple[str, str]]:
    """What a run came to, in (figure, word)."""
    end, groups = run.end, run.groups
    found = [(f"{loss:.3f}", "loss, nats a token")] if (loss := _late(groups, "loss")) is not None else []
    if run.validations:
        bits = run.validations[-1][1]
        if "" in bits or len(bits) == 1:
            found.append(
                (f"{next(iter(bits.values())) if len(bits) == 1 else bits['']:.3f}", "bits per byte, held out")
            )
        else:
            found.append((f"{min(bits.values()):.3f} – {max(bits.values()):.3f}", "bits per byte, by source"))
    found += [(f"{end.step:,}", "steps"), (quantity(end.tokens), "tokens"), (span(end.seconds), "training")]
    if speeds := _speeds(groups):
        found.append((f"{median([speed for _, speed in speeds]):,.0f}", "tokens/s, median"))
    shares = [group.of["share"].mean for group in groups if "share" in group.of]
    if shares:
        found.append((percent(median(shares)), "of the matrix peak, median"))
    if memory := [group.of["memory"].high for group in groups if "memory" in group.of]:
        found.append((f"{max(memory) / 1e9:.2f} GB", "memory, most"))
    return found


def _tiles(run: History) -> str:
    figures = _figures(run)
    tiles = "".join(f'<div class="tile"><b>{escape(figure)}</b><span>{word}</span></div>' for figure, word in figures)
    columns = len(figures) if len(figures) <= 6 else math.ceil(len(figures) / 2)
    return f'<div class="tiles" style="--columns:{columns}">{tiles}</div>' if run.groups else ""


def _overview(runs: Sequence[History]) -> str:
    figures = [{word: figure for figure, word in _figures(run)} if run.groups else {} for run in runs]
    words = list(dict.fromkeys(word for found in figures for word in found))
    head = "".join(f'<th class="n">{word}</th>' for word in words)
    body = ""
    for i, (run, found) in enumerate(zip(runs, figures, strict=True)):
        cells = "".join(f'<td class="n">{escape(found.get(word, "–"))}</td>' for word in words)
        body += f'<tr><th class="c{i % COLOURS}"><span class="swatch"></span>{escape(run.name)}</th>{cells}</tr>'
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="card" style="margin-top:20px"><div class="wide">{table}</div></div>'


def curves(run: History) -> str:
    """The figures that one looks at while a run goes on, as HTML: its loss, its bits per byte, its speed. A `.tokens`
    and a `.seconds` part of each exclude one another; the colours are the page's."""
    return f"{_loss([run])}{_bits([run])}{_speed([run])}" if run.groups else ""


def _loss(runs: Sequence[History]) -> str:
    return _measure(runs, "loss", "Loss", "nats a token", large=True, early=_EARLY)


def _charts(runs: Sequence[History]) -> str:
    parts = [
        _loss(runs),
        _bits(runs),
        _measure(runs, "rate", "Learning rate", "share of its peak", unit="%", zero=True, plain=True),
        _measure(runs, "norm", "Gradient norm", "before clipping", log=True),
        _speed(runs),
        _measure(runs, "share", "Share of the matrix peak", "measured on the same machine", unit="%", zero=True),
        _measure(runs, "memory", "Memory", "GB", zero=True, plain=True, factor=1e-9),
    ]
    choice = '<label for="by-tokens">tokens</label><label for="by-seconds">time</label>'
    return f'<div class="axis"><span>against</span>{choice}</div><div class="charts">{"".join(parts)}</div>'


def _measure(
    runs: Sequence[History],
    key: str,
    title: str,
    about: str,
    *,
    unit: str = "",
    large: bool = False,
    log: bool = False,
    zero: bool = False,
    plain: bool = False,
    early: float = 0.0,
    factor: float = 1.0,
) -> str:
    """The chart of one measure of the steps; `plain`: as it is, without a running median."""

    def curves(axis: str) -> list[Curve]:
        found = []
        for i, run in enumerate(runs):
            groups = [group for group in run.groups if key in group.of]
            if groups:
                spreads = [group.of[key] for group in groups]
                xs, means = [getattr(group.at, axis) for group in groups], [factor * spread.mean for spread in spreads]
                if plain:
                    found.append(Curve(run.name, xs, means, i % COLOURS))
                    continue
                lows, highs = [factor * s.low for s in spreads], [factor * s.high for s in spreads]
                several = any(spread.n > 1 for spread in spreads)
                line = Curve(run.name, xs, smooth(means), i % COLOURS)
                found.append(replace(line, lows=lows, highs=highs) if several else replace(line, raw=means))
        return found

    first = curves("tokens")
    start = max((curve.highs or curve.raw or curve.ys)[0] for curve in first) if first else 0.0
    scale = limits(first, log=log, zero=zero, early=early)
    if early and scale is not None and start > scale.high:
        about += f"; begins at {start:.3g}"
    return _figure(title, about, curves, runs, unit=unit, large=large, scale=scale)


def _bits(runs: Sequence[History]) -> str:
    """Bits per byte: of one run by source; of several that of all sources, or where it is not known, by source."""
    names = list(dict.fromkeys(name for run in runs for _, bits in run.validations for name in bits))
    if "" in names and len(names) == 2:
        names = [""]  # all sources are one
    if len(runs) == 1:

        def by_source(axis: str) -> list[Curve]:
            ordered = sorted(names, key=lambda name: name != "")[:COLOURS]
            return [_validated(runs[0], name, axis, i, name or "all") for i, name in enumerate(ordered)]

        about = "of held-out text" + (", by source" if len(names) > 1 else "")
        about += f"; {COLOURS} of {len(names)} sources" if len(names) > COLOURS else ""
        return _figure("Bits per byte", about, by_source, runs, large=True) if names else ""

    def of_source(name: str) -> Callable[[str], list[Curve]]:
        return lambda axis: [
            _validated(run, name, axis, i % COLOURS, run.name)
            for i, run in enumerate(runs)
            if any(name in bits for _, bits in run.validations)
        ]

    shown = [""] if "" in names else names[:COLOURS]
    return "".join(
        _figure("Bits per byte", name or "of held-out text", of_source(name), runs, large=len(shown) == 1)
        for name in shown
    )


def _validated(run: History, name: str, axis: str, colour: int, words: str) -> Curve:
    found = [(getattr(at, axis), bits[name]) for at, bits in run.validations if name in bits]
    return Curve(words, [x for x, _ in found], [y for _, y in found], colour)


def _speed(runs: Sequence[History]) -> str:
    def curves(axis: str) -> list[Curve]:
        found = []
        for i, run in enumerate(runs):
            if speeds := _speeds(run.groups):
                xs, ys = [getattr(at, axis) for at, _ in speeds], [speed for _, speed in speeds]
                found.append(Curve(run.name, xs, smooth(ys), i % COLOURS, raw=ys))
        return found

    return _figure("Speed", "tokens a second", curves, runs, scale=limits(curves("tokens"), zero=True))


def _speeds(groups: Sequence[Group]) -> list[tuple[Mark, float]]:
    """Tokens a second: as logged, else from one group's end to the next (an older log has only the clock)."""
    logged = [(group.at, group.of["speed"].mean) for group in groups if "speed" in group.of]
    if logged:
        return logged
    steps = [(b.at, b.at.tokens - a.at.tokens, b.at.seconds - a.at.seconds) for a, b in pairwise(groups)]
    return [(at, tokens / seconds) for at, tokens, seconds in steps if seconds > 0 and tokens > 0]


def _figure(
    title: str,
    about: str,
    curves: Callable[[str], list[Curve]],
    runs: Sequence[History],
    *,
    unit: str = "",
    large: bool = False,
    scale: Scale | None = None,
) -> str:
    """A figure with both of its plots; "" where there is nothing to draw."""
    scale = scale or limits(curves("tokens"))
    if scale is None:
        return ""
    marks = [(mark, i % COLOURS if len(runs) > 1 else None) for i, run in enumerate(runs) for mark in run.resumed]
    plots = ""
    for axis in _AXES:
        drawn = curves(axis)
        end = max(getattr(run.end, axis) for run in runs)
        x = Scale(0.0, 1.015 * end if end > 0 else 1.0)
        label = "; ".join(f"{c.name}: from {c.ys[0]:.4g} to {c.ys[-1]:.4g}" for c in drawn)
        at = [(getattr(mark, axis), colour) for mark, colour in marks]
        drawing = plot(drawn, x, scale, kind=axis, unit=unit, marks=at, label=f"{title} against {axis}. {label}")
        plots += f'<div class="{axis}">{drawing}</div>'
    legend = _legend(drawn, bool(marks)) if large and (len(drawn) > 1 or marks) else ""
    words = f"<figcaption><h3>{escape(title)}</h3><p>{escape(about)}</p></figcaption>"
    return f"<figure{' class=large' if large else ''}>{words}{legend}{plots}</figure>"


def _legend(curves: Sequence[Curve], resumed: bool) -> str:
    items = ""
    for curve in curves if len(curves) > 1 else ():
        swatch = f'<span class="swatch c{curve.colour}"></span>'
        last = "" if curve.raw or curve.lows else f" <b>{quantity(curve.ys[-1], digits=4)}</b>"  # a median is no result
        items += f"<li>{swatch}{escape(curve.name)}{last}</li>"
    if resumed:
        items += '<li><span class="swatch dash"></span>resumed</li>'
    return f'<ul class="legend">{items}</ul>'


def _samples(runs: Sequence[History]) -> str:
    parts = ""
    for run in runs:
        name = f"{escape(run.name)}, " if len(runs) > 1 else ""
        for step, text in run.dreams[-1:]:
            parts += (
                f'<div class="card"><p class="soft">{name}step {step:,}</p><p class="dream">{_text(text)}</p></div>'
            )
        if earlier := run.dreams[:-1]:
            older = "".join(
                f'<p class="soft">step {step:,}</p><p class="dream">{_text(text)}</p>'
                for step, text in reversed(earlier)
            )
            words = f"{name}{len(earlier)} earlier"
            parts += f'<details class="card"><summary>{words}</summary>{older}</details>'
    return f"<h2>Samples</h2>{parts}" if parts else ""


def _text(text: str) -> str:
    return escape(text.strip()[:4000])


def _validations(runs: Sequence[History]) -> str:
    """Bits per byte as a table, for who wants figures."""
    parts = ""
    for run in runs:
        found = run.validations
        every = max(1, math.ceil(len(found) / _SHOWN))
        chosen = found[len(found) - 1 :: -every][::-1]
        names = sorted({name for _, bits in chosen for name in bits}, key=lambda name: (name != "", name))
        if not names:
            continue
        table = [
            {"step": at.step, "tokens": quantity(at.tokens), "time": span(at.seconds)}
            | {name or "all sources": f"{bits[name]:.4f}" for name in names if name in bits}
            for at, bits in chosen
        ]
        summary = f"Bits per byte in figures{f', {escape(run.name)}' if len(runs) > 1 else ''}"
        parts += f'<details class="card"><summary>{summary}</summary>{tables.show(table)}</details>'
    return f'<div style="margin-top:16px">{parts}</div>' if parts else ""


def _folders(runs: Sequence[History], title: str, get: Callable[[History], Any], show: Callable[[Any], str]) -> str:
    """A section about something that each run has; where there are several, what differs first."""
    having = [(run.name, found) for run in runs if (found := get(run))]
    if not having:
        return ""
    if len(runs) == 1:
        return f'<h2>{title}</h2><div class="card">{show(having[0][1])}</div>'
    parts = ""
    if all(isinstance(found, dict) for _, found in having) and (differ := tables.differences(having)):
        parts += f'<div class="card"><h4>Where they differ</h4>{differ}</div>'
    parts += "".join(
        f'<details class="card"><summary>{escape(name)}</summary>{show(found)}</details>' for name, found in having
    )
    return f"<h2>{title}</h2>{parts}"


def _data(run: History) -> dict[str, Any]:
    """What `corpus.json` says, without what has a section of its own or is for programs."""
    return {key: value for key, value in run.corpus.items() if key not in ("tokenizer", "made_from", "stamps")}


def _vocabulary(run: History) -> dict[str, Any]:
    found = run.corpus.get("tokenizer")
    return found if isinstance(found, dict) else {}


def _machines(machines: Sequence[dict[str, Any]]) -> str:
    parts = []
    for found in machines:
        pairs = []
        for key, value in found.items():
            words = tables.cell(value)
            if key.endswith("memory") and isinstance(value, int | float):
                words = f"{value / 1e9:.1f} GB"
            elif key == "peak" and isinstance(value, int | float):
                words = f"{quantity(value, 'FLOP/s')}, measured"
            pairs.append((key, words))
        parts.append(tables.rows(pairs))
    return "<hr>".join(parts)


def _late(groups: Sequence[Group], key: str) -> float | None:
    """The mean of the last fiftieth of a run."""
    spreads = [group.of[key] for group in groups[-max(1, len(groups) // 50) :] if key in group.of]
    return sum(s.total for s in spreads) / sum(s.n for s in spreads) if spreads else None
