"""What JSON holds, as HTML tables: for files whose shape is not this page's business (recipes, data cards).

Everything is escaped; a table shows at most `_ROWS` rows and says how many it leaves out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["differences", "rows", "show"]

_ROWS = 200
_COLUMNS = 12
_DEEP = 4
_HASH = re.compile(r"[0-9a-f]{40,128}")


def show(value: Any, deep: int = 0) -> str:
    """A value as HTML: pairs as a table of two columns, like things as a table with a row for each."""
    if isinstance(value, Mapping) and value and deep < _DEEP:
        return _mapping(value, deep)
    if isinstance(value, Sequence) and not isinstance(value, str) and value and deep < _DEEP:
        if all(isinstance(item, Mapping) for item in value):
            return _grid(_level([("", item) for item in value]))
        return ", ".join(cell(item) for item in value[:_ROWS]) + _more(len(value))
    return cell(value)


def _mapping(value: Mapping[str, Any], deep: int) -> str:
    plain = {key: item for key, item in value.items() if not isinstance(item, Mapping | list) or not item}
    plain |= {key: item for key, item in value.items() if isinstance(item, list) and item and not _tables(item)}
    shapes = {shape for shape, n in Counter(_shape(item) for item in value.values()).items() if shape and n > 1}
    parts = [rows([(key, show(item, deep + 1)) for key, item in plain.items()])] if plain else []
    alike = [key for key, item in value.items() if key not in plain and _shape(item) and _shape(item) in shapes]
    if alike:
        parts.append(_grid([(_words(key), value[key]) for key in alike]))
    for key, item in value.items():
        if key not in plain and key not in alike:
            like = isinstance(item, Mapping) and item and all(isinstance(x, Mapping) and x for x in item.values())
            body = _grid(_level(list(item.items()))) if like else show(item, deep + 1)
            parts.append(f'<section class="part"><h4>{escape(_words(key))}</h4>{body}</section>')
    return "".join(parts)


def _shape(item: Any) -> tuple[str, ...]:
    """The keys of a table of plain values; () for anything else."""
    if not isinstance(item, Mapping) or any(isinstance(x, Mapping) for x in item.values()):
        return ()
    return tuple(item)


def _tables(items: list[Any]) -> bool:
    return all(isinstance(item, Mapping) for item in items)


def rows(pairs: Sequence[tuple[str, str]]) -> str:
    """Names over their values, beside one another; the values are HTML."""
    body = "".join(f"<div><dt>{escape(_words(name))}</dt><dd>{html}</dd></div>" for name, html in pairs[:_ROWS])
    return f'<dl class="pairs">{body}</dl>{_more(len(pairs))}'


def _grid(items: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A row for each item, a column for each key that any of them has."""
    columns = list(dict.fromkeys(key for _, item in items[:_ROWS] for key in item))[:_COLUMNS]
    named = any(name for name, _ in items)
    kinds = {key: all(_is_number(item.get(key, 0)) for _, item in items[:_ROWS]) for key in columns}

    kind = {key: ' class="n"' if kinds[key] else "" for key in columns}

    def row(name: str, item: Mapping[str, Any]) -> str:
        cells = "".join(f"<td{kind[key]}>{cell(item[key]) if key in item else ''}</td>" for key in columns)
        return f"<tr>{f'<th>{escape(name)}</th>' if named else ''}{cells}</tr>"

    head = "".join(f"<th{kind[key]}>{escape(_words(key))}</th>" for key in columns)
    body = "".join(row(name, item) for name, item in items[:_ROWS])
    table = f"<table><thead><tr>{'<th></th>' if named else ''}{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>{_more(len(items))}'


def _level(items: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Tables within the rows as columns, where all rows have the same; else they stay, each in a cell."""

    def alike(key: str) -> bool:
        return len({tuple(x) if isinstance(x := item[key], Mapping) else () for _, item in items if key in item}) == 1

    same = {key: alike(key) for _, item in items for key in item}
    return [
        (name, {k: v for key, x in item.items() for k, v in (flat({key: x}) if same[key] else {key: x}).items()})
        for name, item in items
    ]


def differences(named: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Where several tables differ: a row for each key, a column for each table; "" where they do not."""
    flats = [flat(value) for _, value in named]
    keys = [key for key in dict.fromkeys(k for f in flats for k in f) if len({str(f.get(key)) for f in flats}) > 1]
    if not keys:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in named)
    body = ""
    for key in keys[:_ROWS]:
        cells = "".join(f"<td>{cell(f.get(key))}</td>" for f in flats)
        body += f"<tr><th>{escape(_words(key))}</th>{cells}</tr>"
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>{_more(len(keys))}'


def flat(value: Mapping[str, Any], before: str = "", deep: int = 0) -> dict[str, Any]:
    """Tables within tables as one, with names joined by a dot."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item and deep < _DEEP:
            found |= flat(item, f"{before}{key}.", deep + 1)
        else:
            found[f"{before}{key}"] = item
    return found


def cell(value: Any) -> str:
    """A value in a cell, escaped."""
    if value is None or value == "" or value == [] or value == {}:
        return '<span class="soft">–</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{float(value):.4g}" if abs(value) < 10**300 else "huge"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 and abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value[:20])) + (" …" if len(value) > 20 else "")
    if isinstance(value, Mapping):
        pairs = [f"{escape(_words(key))} {cell(item)}" for key, item in list(value.items())[:20]]
        return ", ".join(pairs) + (" …" if len(value) > 20 else "")
    text = str(value)
    if _HASH.fullmatch(text):
        return f'<code title="{text}">{text[:12]}…</code>'
    return escape(text if len(text) <= 2000 else f"{text[:2000]} …")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(key: str) -> str:
    return str(key).replace("_", " ").replace(".", ", ")


def _more(count: int) -> str:
    return f'<p class="soft">and {count - _ROWS:,} more</p>' if count > _ROWS else ""
