"""Print the table CHARACTERS of `twofile/run.c`: which characters the pre-tokenizers call letters, numbers and so on.

    python tools/unicode_tables.py      # then paste it into run.c

Each class is a list of ranges, delta-coded: how many characters lie between the last range and this one, then how many
this one has. The categories are those of the installed `regex` package (their Unicode version: see its PyPI page),
because the Python tokenizer asks the same package. Needs: regex.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable

import regex

from twofile.engine.reference_tokenizer import DEEPSEEK_CASED, DEEPSEEK_HAN, DEEPSEEK_MARKS

WIDTH = 130
CLASSES = {
    "LETTER": r"\p{L}",
    "NUMBER": r"\p{N}",
    "PUNCTUATION": r"\p{P}",
    "SPACE": r"\s",
    "CASED": f"[{DEEPSEEK_CASED}]",
    "MARK": f"[{DEEPSEEK_MARKS}]",
    "HAN": f"[{DEEPSEEK_HAN}]",
}


def having(pattern: str) -> set[int]:
    """The characters that match a pattern."""
    match: Callable[[str], object] = regex.compile(pattern).match
    return {point for point in range(0x110000) if match(chr(point))}


def ranges(points: Iterable[int]) -> list[tuple[int, int]]:
    """First and one past the last of each run of neighbours."""
    runs: list[list[int]] = []
    for point in sorted(points):
        if runs and runs[-1][1] == point:
            runs[-1][1] = point + 1
        else:
            runs.append([point, point + 1])
    return [(first, end) for first, end in runs]


def rows(name: str, pattern: str) -> list[str]:
    """The rows of one class: its name, how many ranges, then gaps and lengths."""
    found, last = ranges(having(pattern)), 0
    numbers: list[object] = [name, len(found)]
    for first, end in found:
        numbers += [first - last, end - first]
        last = end
    return [f"    {row.replace(' ', ',')}," for row in textwrap.wrap(" ".join(map(str, numbers)), WIDTH - 5)]


def main() -> None:
    print("static const uint16_t CHARACTERS[] = {")
    for name, pattern in CLASSES.items():
        print(*rows(name, pattern), sep="\n")
    print("};")


if __name__ == "__main__":
    main()
