"""Stories with given words: the oracle's points worked out, and data of which nothing held out is learned."""

from __future__ import annotations

import itertools
import json
import lzma
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPE = Path(__file__).parents[1] / "recipes" / "wordstories.py"
GOOD = "A dog saw a red ball in the park. He ran and ran, until the girl took it home for tea."


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(RECIPE))


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        (GOOD, 5.0),
        (GOOD.rstrip("."), 4.0),  # it does not end
        (GOOD.replace("tea", "supper"), 4.0),
        ("dog ball tea", 4.0),  # all the words, and no story
        ("dog ball tea " * 10 + ".", 4.0),  # the same again and again
        ("", 0.0),
        ("123", 0.0),
    ],
)
def test_oracle(recipe: dict[str, Any], reply: str, points: float) -> None:
    assert recipe["gold"]([], reply, {"words": ["dog", "ball", "tea"]}) == pytest.approx(points)


def test_a_story_is_cut_between_sentences(recipe: dict[str, Any]) -> None:
    story = 'One two. "Three!" she said.\nFour? ' + "five " * 60 + "end."
    assert recipe["beginning"](story) == 'One two. "Three!" she said.\nFour?'


def test_nothing_held_out_is_learned(tmp_path: Path) -> None:
    nouns = ("apple", "bucket", "candle", "donkey", "engine", "feather", "garden", "hammer", "island", "jacket")
    story = "Once there was a {} and a {} by the {}. They played all day until it was dark. Then they slept."
    rows = [{"text": story.format(*three)} for three in itertools.product(nouns, repeat=3)]
    path = tmp_path / "stories.jsonl.xz"
    path.write_bytes(lzma.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    code = f"import runpy, sys; sys.argv = ['x', '--stories', {str(path)!r}, '--into', {str(tmp_path)!r}];"
    code += f"m = runpy.run_path({str(RECIPE)!r}); m['main'].__globals__['COMMON'] = 12; m['main']()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    talks, prompts = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("talks", "prompts")
    )
    assert talks
    assert prompts
    for row in talks:
        assert all(word in row["messages"][1]["content"].lower() for word in row["words"])
    learned = {_phrasing(row) for row in talks}
    assert not learned & {_phrasing(row) for row in prompts}


def _phrasing(row: dict[str, Any]) -> str:
    text: str = row["messages"][0]["content"]
    for word in row["words"]:
        text = text.replace(word, "*")
    return text
