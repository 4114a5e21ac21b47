"""Print the table CHARACTERS of `twofile/run.c`: which characters the pre-tokenizers call letters, numbers and so on.

    python tools/unicode_tables.py      # then paste it into run.c

Each class is a list of ranges, delta-coded: how many characters lie between the last range and this one, then how many
this one has; a number is written in base 26 with letters, its last digit as a capital. The categories are those of the
installed `regex` package (their Unicode version: see its PyPI page), because the Python tokenizer asks the same one.
Needs: regex.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable

import regex

from twofile.engine.reference_tokenizer import DEEPSEEK_CASED, DEEPSEEK_HAN, DEEPSEEK_MARKS

WIDTH = 140
CLASSES = {
    "LETTER": r"\p{L}",
    "NUMBER": r"\p{N}",
    "PUNCTUATION": r"\p{P}",
    "INDENT": r"[^\S\r\n]",
    "NEWLINE": r"[\r\n]",
    "BLANK": "[ ]",
    "DIGIT": "[0-9]",
    "SIGN": r"[$+<=>^~|`]",
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


def spelled(number: int) -> str:
    """In base 26; a capital is the last digit."""
    text = chr(ord("A") + number % 26)
    while number := number // 26:
        text = chr(ord("a") + number % 26) + text
    return text


def row(name: str, pattern: str) -> str:
    """One class: its name, then gaps and lengths."""
    coded, last = "", 0
    for first, end in ranges(having(pattern)):
        coded += spelled(first - last) + spelled(end - first)
        last = end
    return f"    {{{name}, " + "\n     ".join(f'"{line}"' for line in textwrap.wrap(coded, WIDTH)) + "},"


def main() -> None:
    print("static const struct { uint16_t class; const char *ranges; } CHARACTERS[] = {")
    for name, pattern in CLASSES.items():
        print(row(name, pattern))
    print("};")


if __name__ == "__main__":
    main()
