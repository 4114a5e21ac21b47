"""A passage: what a search finds, a piece of a document with the place where it stands.

A document comes as blocks (a paragraph, a heading, a row of a table) in their order. Blocks of one place, the same page
or the same heading, are joined until there are about 150 words; a longer one is cut after a sentence, or after a word.
No passage overlaps another or reaches over a page or a heading. A character of Chinese, Japanese or Korean counts as
half a word; what has no spaces at all is cut after so many characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from twofile.tools.search.text import SCRIPT

__all__ = ["LONGEST", "Block", "Document", "Passage", "passages"]

WORDS = 150
"""Of a passage, about."""

LONGEST = 2000
"""Characters of a passage."""

_SCRIPT = re.compile(f"[{SCRIPT}]")
_WORD = re.compile(r"\S+")
_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


@dataclass(frozen=True)
class Block:
    """A piece of a document that is not cut without need. `place`: the page or heading it is under, or ""; `lines`: the
    first and the last of it, from 1, or None where there are no lines to speak of."""

    text: str
    place: str = ""
    lines: tuple[int, int] | None = None


@dataclass(frozen=True)
class Passage:
    """A text and its place: "page 3", "Setup > Linux", "lines 10-24", or "" for a document that has no places."""

    text: str
    place: str


@dataclass(frozen=True)
class Document:
    """What was read. `note`: what of it was not, in words, or ""."""

    title: str
    passages: tuple[Passage, ...]
    note: str = ""


def passages(blocks: Iterable[Block]) -> Iterator[Passage]:
    """The passages of a document."""
    held: list[Block] = []
    words = characters = 0.0
    for block in blocks:
        for piece in _pieces(block):
            size = _size(piece.text)
            full = words + size > WORDS * 1.2 or characters + len(piece.text) > LONGEST or words >= WORDS
            if held and (full or piece.place != held[-1].place):
                yield _joined(held)
                held, words, characters = [], 0, 0
            held.append(piece)
            words, characters = words + size, characters + len(piece.text) + 1
    if held:
        yield _joined(held)


def _joined(blocks: list[Block]) -> Passage:
    text = "\n".join(block.text for block in blocks)
    place, lines = blocks[0].place, [line for block in blocks for line in block.lines or ()]
    if not place and lines:
        first, last = min(lines), max(lines)
        place = f"line {first}" if first == last else f"lines {first}-{last}"
    return Passage(text, place)


def _size(text: str) -> float:
    """Words, about."""
    script = len(_SCRIPT.findall(text))
    return script / 2 + len(_WORD.findall(_SCRIPT.sub(" ", text) if script else text))


def _pieces(block: Block) -> Iterator[Block]:
    """A block, or the parts of it when it is longer than a passage."""
    text = block.text.strip()
    if not text:
        return
    if len(text) <= LONGEST and _size(text) <= WORDS * 1.2:
        yield Block(text, block.place, block.lines)
        return
    first, counted, at = (block.lines or (0, 0))[0], 0, 0
    for start, end in _cuts(text):
        counted, at = counted + text.count("\n", at, start), start
        lines = (first + counted, first + counted + text.count("\n", start, end)) if block.lines else None
        yield Block(text[start:end].strip(), block.place, lines)


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """Where to cut a long text: spans of about a passage, which end with a sentence where one does."""
    start = 0
    while start < len(text):
        limit, script = start, 0.0
        for word in _WORD.finditer(text, start, min(len(text), start + LONGEST)):
            script += _size(word[0])
            if script > WORDS and limit > start:
                break
            limit = word.end()
        if limit - start > 2 * WORDS and script > WORDS * 1.5:  # no spaces: so many characters
            limit = min(limit, start + 2 * WORDS)
        if limit < len(text):
            ends = [found.start() for found in _END.finditer(text, start + 1, limit) if found.start() > start]
            if ends and ends[-1] - start > (limit - start) / 3:
                limit = ends[-1]
        yield start, limit
        start = limit
        while start < len(text) and text[start].isspace():
            start += 1
