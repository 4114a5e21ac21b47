"""A report card as one HTML page: the lineage as a graph, figures, changes, samples. It loads nothing."""

from __future__ import annotations

from html import escape
from itertools import pairwise

from twofile.evaluate.card import words
from twofile.evaluate.card.card import Card, Effect
from twofile.html.figures import quantity
from twofile.html.page import page

__all__ = ["card_page"]

_BOX, _GAP, _HEIGHT = 190, 46, 92  # of a box of the graph, in its own units
_STYLE = """<style>
.graph{overflow-x:auto}.graph svg{display:block;height:auto;min-width:560px}
.graph rect{fill:var(--card);stroke:var(--line);stroke-width:1.5}.graph .file{stroke:var(--c0)}
.graph text{fill:var(--ink);font-size:13px}.graph .pale{fill:var(--soft);font-size:11.5px}
.graph path{stroke:var(--soft);fill:none;stroke-width:1.5}
.better{color:var(--good)}.worse{color:var(--c6)}
.said{white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0 12px}
</style>"""


def card_page(card: Card) -> str:
    """The whole document."""
    last = card.members[-1]
    about = f'<p class="soft">{escape(last.provenance.description)}</p>' if last.provenance.description else ""
    header = f"<h1>Report card of {escape(last.name)}</h1>{about}"
    tiles = [
        (quantity(last.parameters), "parameters"), (quantity(last.bytes, "B"), "file"),
        (str(last.stages), "stages"), (last.provenance.license or "not said", "licence"),
    ]  # fmt: skip
    inside = "".join(f'<div class="tile"><b>{escape(figure)}</b><span>{word}</span></div>' for figure, word in tiles)
    parts = [
        _STYLE,
        f'<div class="tiles" style="--columns:{len(tiles)}">{inside}</div>',
        "<h2>Where it comes from</h2>",
        f'<div class="card graph">{_graph(card)}</div>',
        _stages(card),
        _figures(card),
        _worse(card),
        _samples(card),
        f"<footer><p>{escape(_small(card))}</p></footer>",
    ]
    return page(f"{last.name} – report card", header, "".join(parts))


def _graph(card: Card) -> str:
    """Data above, stages in a row, the files that are at hand below."""
    rows = list(words.stages(card.members))
    width = max(1, len(rows)) * (_BOX + _GAP) - _GAP + 4
    drawn = []
    for i, (stage, took, data, file) in enumerate(rows):
        x = i * (_BOX + _GAP) + 2
        middle = x + _BOX / 2
        if data:
            names = data.split(", ")
            shown = [*names[:4], f"and {len(names) - 4} more"] if len(names) > 4 else names
            for k, name in enumerate(shown):
                drawn.append(_text(middle, 96 - 16 * (len(shown) - k), name[:30], "pale"))
            drawn.append(f'<path d="M{middle} 88V106"/>')
        drawn.append(f'<rect x="{x}" y="108" width="{_BOX}" height="{_HEIGHT}" rx="10"/>')
        for k, line in enumerate([*_lines(stage, 27)[:2], *_lines(took, 31)[:3]]):
            drawn.append(_text(middle, 128 + 17 * k, line, "" if k < len(_lines(stage, 27)[:2]) else "pale"))
        if i + 1 < len(rows):
            drawn.append(f'<path d="M{x + _BOX} {108 + _HEIGHT / 2}h{_GAP - 3}m-7 -5l7 5l-7 5"/>')
        if file:
            drawn.append(f'<path d="M{middle} {108 + _HEIGHT}v22"/>')
            drawn.append(
                f'<rect class="file" x="{x + 20}" y="{130 + _HEIGHT}" width="{_BOX - 40}" height="30" rx="15"/>'
            )
            drawn.append(_text(middle, 150 + _HEIGHT, file[:22], ""))
    label = escape("; ".join(f"{stage}{f' gives {file}' if file else ''}" for stage, _, _, file in rows))
    box = f'viewBox="0 0 {width} {166 + _HEIGHT}" width="{width}"'
    return f'<svg {box} role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle"{f" class={kind}" if kind else ""}>{escape(text)}</text>'


def _lines(text: str, longest: int) -> list[str]:
    """A text cut at its commas and spaces."""
    found = [""]
    for word in text.split():
        if found[-1] and len(found[-1]) + len(word) >= longest:
            found.append("")
        found[-1] = f"{found[-1]} {word}".strip()
    return [line for line in found if line]


def _table(head: list[str], body: list[list[str]]) -> str:
    """Of HTML cells, the first of a row its name."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    rows = "".join(f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in body)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def _stages(card: Card) -> str:
    rows = [[escape(cell) for cell in row] for row in words.stages(card.members)]
    return f'<div class="card">{_table(["stage", "took", "learned from", "file"], rows)}</div>'


def _figures(card: Card) -> str:
    if not card.measures:
        return ""
    names = [member.name for member in card.members]
    head = ["measure", "n", *names, *(f"{a} to {b}" for a, b in pairwise(names))]
    body = []
    for measure in card.measures:
        row = [escape(measure.name), str(measure.n)]
        row += [escape(words.figure(measure.of(i), measure.is_share)) for i in range(len(names))]
        effects = [effect for effect in card.effects if effect.measure == measure.name]
        row += [_change(effect, measure.is_share) for effect in effects]
        body.append(row)
    note = "95% intervals; a change is the mean of paired differences, above zero is better."
    table = _table([escape(cell) for cell in head], body)
    return f'<h2>What each stage changed</h2><div class="card">{table}<p class="soft">{note}</p></div>'


def _change(effect: Effect, as_share: bool) -> str:
    kind = effect.verdict if effect.verdict in ("better", "worse") else "soft"
    return f'<span class="{kind}">{escape(words.change(effect, as_share))}</span>'


def _worse(card: Card) -> str:
    if not card.measures:
        return ""
    shares = {measure.name: measure.is_share for measure in card.measures}
    items = "".join(
        f"<li>{escape(e.measure)}, from {escape(e.before)} to {escape(e.after)}: {_change(e, shares[e.measure])}</li>"
        for e in words.worse(card)
    )
    body = f"<ul>{items}</ul>" if items else "<p>Nothing that these measures show.</p>"
    return f'<h2>What got worse</h2><div class="card">{body}</div>'


def _samples(card: Card) -> str:
    parts = ""
    for sample in card.samples:
        replies = "".join(
            f'<p class="soft">{escape(member.name)}</p><p class="said">{escape(words.said(reply))}</p>'
            for member, reply in zip(card.members, sample.replies, strict=True)
        )
        question = f'<p class="said">{escape(words.asked(sample.question))}</p>'
        parts += f'<details class="card" open><summary>{escape(sample.measure)}</summary>{question}{replies}</details>'
    return f"<h2>Samples</h2>{parts}" if parts else ""


def _small(card: Card) -> str:
    last = card.members[-1]
    settings = ", ".join(f"{name} {value}" for name, value in card.settings.items())
    return f"{settings}. {last.path.name}: sha256 {last.sha256}."
