"""Saved pages of twenty kinds: what a person reads of them is what the reading view has (F1 over words)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("trafilatura", reason="trafilatura is not installed")

from twofile.tools.browser import reading

PAGES = Path(__file__).parent / "pages"
NAMES = sorted(path.stem for path in PAGES.glob("*.html"))
_WORD = re.compile(r"[^\W_㐀-鿿]+|[㐀-鿿]")  # a Chinese character is a word


def f1(found: str, wanted: str) -> float:
    one, other = (Counter(_WORD.findall(text.lower())) for text in (found, wanted))
    same = sum((one & other).values())
    return 2 * same / max(1, one.total() + other.total())


def read(name: str) -> str:
    page = reading.read(reading.decoded((PAGES / f"{name}.html").read_bytes()), f"https://example.com/{name}")
    return re.sub(r"\[\d+\]", " ", page.text)


def test_there_are_twenty_kinds() -> None:
    assert len(NAMES) >= 20
    assert all((PAGES / f"{name}.txt").read_text(encoding="utf-8").strip() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read(name: str) -> None:
    assert f1(read(name), (PAGES / f"{name}.txt").read_text(encoding="utf-8")) >= 0.9


def test_all_in_all() -> None:
    found = {name: f1(read(name), (PAGES / f"{name}.txt").read_text(encoding="utf-8")) for name in NAMES}
    mean, least = sum(found.values()) / len(found), min(found, key=found.__getitem__)
    print(f"\n{len(found)} pages: F1 {mean:.3f} in the mean, {found[least]:.3f} at least ({least})")
    assert mean >= 0.95
