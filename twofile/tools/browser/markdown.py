"""HTML as markdown for a reader: headings, lists, tables, code, and links that are numbered, with their targets kept.

What is hidden (`hidden.MARK`) is written as `[hidden: ...]`. Output, links and cells are bounded; depth too, below
which an element is its text alone. Targets are whole http and https addresses; others have no number.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from twofile.tools.browser.hidden import MARK, spelled

__all__ = ["Markdown"]

_BLOCKS = frozenset([
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hgroup", "hr", "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "search", "section",
    "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
])  # fmt: skip
_DEEPEST = 150
_BREAK = "\u2028"
_CELLS = 20_000
_LINKS = 3000


class Markdown:
    """One page being written. `links` are the targets, the first is [1]."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._numbers: dict[str, int] = {}
        self._cells = 0

    @property
    def links(self) -> list[str]:
        return list(self._numbers)

    def write(self, element: Any) -> str:
        """An element of an lxml tree."""
        return "\n\n".join(self._blocks(element, 0)).strip()

    def _blocks(self, element: Any, depth: int) -> list[str]:
        """The blocks of what is in an element."""
        blocks: list[str] = []
        line: list[str] = [_text(element.text)]

        def flush() -> None:
            said = _tidy("".join(line))
            if said:
                blocks.append(said)
            line.clear()

        for child in element:
            if isinstance(child.tag, str):
                if child.get(MARK) is None and _is_block(child):
                    flush()
                    blocks.extend(self._block(child, depth + 1))
                else:
                    line.append(self._inline(child, depth + 1))
            line.append(_text(child.tail))
        flush()
        return blocks

    def _block(self, element: Any, depth: int) -> list[str]:
        """An element that is a block by itself."""
        tag = element.tag
        if depth > _DEEPEST:
            said = _tidy(_text(_all(element)))
            return [said] if said else []
        if re.fullmatch("h[1-6]", tag):
            said = _tidy(self._inside(element, depth)).replace("\n", " ")
            return [f"{'#' * int(tag[1])} {said}"] if said else []
        if tag == "hr":
            return ["---"]
        if tag == "pre":
            said = spelled(_all(element)).strip("\n").rstrip()
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", said)), default=0))
            return [f"{fence}\n{said}\n{fence}"] if said else []
        if tag in ("ul", "ol", "menu"):
            return self._list(element, depth)
        if tag == "blockquote":
            return [_prefixed("\n\n".join(self._blocks(element, depth)), "> ", "> ")]
        if tag == "dd":
            return [_prefixed("\n\n".join(self._blocks(element, depth)), ": ", "  ")]
        if tag == "table":
            return self._table(element, depth)
        blocks = self._blocks(element, depth)
        if tag == "a" and blocks:
            blocks[-1] += self._number(element)
        return blocks

    def _inline(self, element: Any, depth: int) -> str:
        tag = element.tag
        if element.get(MARK) is not None:
            said = " ".join(spelled(" ".join(element.itertext())).split())
            return f" [hidden: {said}] " if re.search(r"\w", said) else ""
        if tag == "br":
            return _BREAK
        if tag == "img":
            said = " ".join(spelled(element.get("alt", "")).split())[:300]
            return f" [image: {said}] " if said else ""
        if depth > _DEEPEST:
            return _text(_all(element))
        said = self._inside(element, depth)
        if tag == "a" and said.strip():
            return said.rstrip() + self._number(element) + (" " if said != said.rstrip() else "")
        if tag in ("code", "kbd", "samp") and said.strip() and "`" not in said:
            return f"`{said.strip()}`"
        if tag == "sup" and said.strip().isdigit() and len(element) == 0:
            return f"^{said.strip()}"
        if tag in ("option", "rt", "wbr"):
            return f" {said} " if said else ""
        return said

    def _inside(self, element: Any, depth: int) -> str:
        said = [_text(element.text)]
        for child in element:
            if isinstance(child.tag, str):
                if child.get(MARK) is None and _is_block(child):
                    said.append(_BREAK + _BREAK.join(self._block(child, depth + 1)) + _BREAK)
                else:
                    said.append(self._inline(child, depth + 1))
            said.append(_text(child.tail))
        return "".join(said)

    def _number(self, element: Any) -> str:
        target = re.sub(r"[\x00-\x20\x7f]+", "", spelled(element.get("href") or ""))
        if not target or target.startswith("#"):
            return ""
        try:
            whole = urljoin(self._base, target)
            parts = urlsplit(whole)
        except ValueError:
            return ""
        if parts.scheme not in ("http", "https") or not parts.netloc or len(whole) > 2000:
            return ""
        if whole not in self._numbers and len(self._numbers) >= _LINKS:
            return ""
        return f"[{self._numbers.setdefault(whole, len(self._numbers) + 1)}]"

    def _list(self, element: Any, depth: int) -> list[str]:
        start = element.get("start", "")
        number = int(start) if re.fullmatch(r"\d{1,6}", start) else 1
        items = []
        for child in element:
            if not isinstance(child.tag, str):
                continue
            if child.get(MARK) is not None:
                said = self._inline(child, depth + 1).strip()
            else:
                said = "\n".join(self._blocks(child, depth + 1) if child.tag == "li" else self._block(child, depth + 1))
            if said:
                sign = f"{number}. " if element.tag == "ol" else "- "
                items.append(_prefixed(said, sign, " " * len(sign)))
                number += 1
            if child.tail and child.tail.strip():
                items.append(_tidy(_text(child.tail)))
        return ["\n".join(items)] if items else []

    def _table(self, element: Any, depth: int) -> list[str]:
        """A table of data as rows; one that only lays out, as what is in it."""
        rows = [row for row in element.iter("tr") if next(row.iterancestors("table")) is element]
        cells = [[cell for cell in row if cell.tag in ("td", "th") and cell.get(MARK) is None] for row in rows]
        above = [self._inline(row, depth).strip() for row in rows if row.get(MARK) is not None]
        cells = [kept for row, kept in zip(rows, cells, strict=True) if row.get(MARK) is None and kept]
        above += [_tidy(self._inside(child, depth)) for child in element if child.tag == "caption"]
        wide = max(map(len, cells), default=0)
        lays_out = next(element.iterdescendants("table"), None) is not None or any(
            len(_all(cell)) > 1500 for row in cells for cell in row
        )
        if lays_out or wide < 2 or element.get("role") in ("presentation", "none"):
            return [*above, *(block for row in cells for cell in row for block in self._blocks(cell, depth + 1))]
        grid: list[list[str]] = []
        below: dict[int, tuple[int, str]] = {}  # column -> how many rows more a cell reaches down, and its text
        for row in cells:
            line: list[str] = []
            for cell in row:
                self._fill(line, below)
                said = _tidy(self._inside(cell, depth)).replace("\n", " ").replace("|", "\\|")
                across, down = _span(cell, "colspan", 12), _span(cell, "rowspan", 60)
                for at in range(across):
                    if down > 1:
                        below[len(line)] = (down - 1, said if at == 0 else "")
                    line.append(said if at == 0 else "")
            self._fill(line, below)
            self._cells += len(line)
            if self._cells > _CELLS:
                break
            grid.append(line)
        wide = max(map(len, grid), default=0)
        written = ["| " + " | ".join(line + [""] * (wide - len(line))) + " |" for line in grid]
        written.insert(1, "|" + " --- |" * wide)
        return [*(said for said in above if said), "\n".join(written)] if grid else above

    @staticmethod
    def _fill(line: list[str], below: dict[int, tuple[int, str]]) -> None:
        """Put what reaches down from above into a row."""
        while len(line) in below:
            left, said = below.pop(len(line))
            if left > 1:
                below[len(line)] = (left - 1, said)
            line.append(said)


def _is_block(element: Any) -> bool:
    if element.tag in _BLOCKS:
        return True
    return any(child.tag in _BLOCKS for child in element.iterdescendants()) if len(element) else False


def _all(element: Any) -> str:
    """All the text in an element."""
    return "".join(element.itertext())


def _span(cell: Any, name: str, most: int) -> int:
    said = cell.get(name, "1")
    return max(1, min(most, int(said))) if re.fullmatch(r"\d{1,5}", said) else 1


def _text(said: str | None) -> str:
    return re.sub(r"[ \t\r\n\f\v]+", " ", spelled(said)) if said else ""


def _tidy(said: str) -> str:
    lines = [re.sub(" {2,}", " ", line).strip() for line in said.split(_BREAK)]
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip()


def _prefixed(said: str, first: str, rest: str) -> str:
    lines = said.split("\n")
    return "\n".join((first if at == 0 else rest if line else rest.rstrip()) + line for at, line in enumerate(lines))
