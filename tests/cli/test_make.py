"""Recipes of several steps: each is done once, and again where it or what stands before it has changed."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import pytest

from tests.cli.test_main import call, twofile
from twofile.params.parameters import Parameters

ROOT = Path(__file__).resolve().parent.parent.parent

RECIPE = """
[given]
word = "one"
[[step]]
makes = "a.txt"
python = "{here}/write.py a.txt {word}"
[[step]]
makes = ["b.txt"]
python = "{here}/write.py b.txt two a.txt"
"""
WRITE = """
import sys
from pathlib import Path
into, word, *others = sys.argv[1:]
if word == "fail":
    sys.exit(3)
count = Path(into + ".count")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
if word != "nothing":
    Path(into).write_text(word + "".join(Path(other).read_text() for other in others))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "write.py").write_text(WRITE)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def counts(into: Path) -> tuple[int, int]:
    a, b = (int((into / f"{name}.txt.count").read_text()) for name in "ab")
    return a, b


def test_each_step_once(recipe: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    assert call("make", str(recipe), "--into", str(into), "--dry-run") == 0
    assert not into.exists()
    assert call("make", str(recipe), "--into", str(into)) == 0
    assert (into / "b.txt").read_text() == "twoone"
    assert call("make", str(recipe), "--into", str(into)) == 0
    assert counts(into) == (1, 1)
    (into / "b.txt").unlink()
    assert call("make", str(recipe), "--into", str(into)) == 0
    assert counts(into) == (1, 2)
    assert call("make", str(recipe), "--into", str(into), "--set", "word=three") == 0
    assert counts(into) == (2, 3)  # what comes after is made again
    assert (into / "b.txt").read_text() == "twothree"


def test_what_cannot_be(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(text: str, *args: str) -> str:
        recipe.write_text(text)
        assert call("make", str(recipe), "--into", str(tmp_path / "into"), *args) != 0
        return capsys.readouterr().err

    assert "ended with status 3" in told(RECIPE.replace('"one"', '"fail"'))
    assert "did not make a.txt" in told(RECIPE.replace('"one"', '"nothing"'))
    assert "names no place" in told(RECIPE.replace("{word}", "{nowhere}"))
    assert "give --data" in told(RECIPE.replace("{word}", "{data}/x"))
    assert "step 2 must have" in told(RECIPE.replace('makes = ["b.txt"]', ""))
    assert "has no [[step]]" in told("steps = 3")
    assert "cannot be read" in told("[")
    assert "gives word" in told(RECIPE, "--set", "other=1")


def stories(into: Path, count: int) -> None:
    """Little stories, made up, where those of the shared data lie."""
    draw = random.Random(1)
    names, things = ("Tom", "Mia", "Ben", "Sue"), ("ball", "kite", "boat", "drum", "lamp", "stone", "shell", "apple")
    rows = []
    for _ in range(count):
        a, b, c = draw.sample(things, 3)
        who = draw.choice(names)
        rows.append(
            f"Once upon a time {who} found a {a} near the river. {who} put the {a} beside the {b} and smiled. "
            f"Then a friend came with a {c}. They played until the evening and were happy."
        )
    (into / "pretrain").mkdir(parents=True)
    with lzma.open(into / "pretrain" / "tinystories_train.jsonl.xz", "wt") as file:
        file.write("".join(json.dumps({"text": row}) + "\n" for row in rows))


def test_the_assistant_at_toy_size(tmp_path: Path) -> None:
    """The whole way of recipes/assistant.toml, in a minute: a corpus in, a tuned model and its report card out."""
    stories(tmp_path / "data", 400)
    into = tmp_path / "into"
    given = {"talks": 300, "stories": 200, "base": 0.15, "tune": 0.15, "reinforce": 0.1, "context": 512, "limit": 2}
    numbers = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    args = [
        "make",
        str(ROOT / "recipes/assistant.toml"),
        "--data",
        str(tmp_path / "data"),
        "--into",
        str(into),
        *numbers,
    ]
    made = twofile(*args)
    assert made.returncode == 0, made.stderr
    with Parameters.open(into / "assistant.gguf") as file:
        stages = [stage.split()[0] for stage in file.provenance.stages]
        assert stages == ["pretrain", "sft", "grpo"]
        assert all((cost := file.provenance.cost(i)) and cost.seconds > 0 and cost.flops > 0 for i in range(3))
    card = (into / "assistant.md").read_text()
    assert "| measure | n | base | sft | assistant |" in card
    assert "## What got worse" in card
    assert "sums, without tools" in card
    assert "report card" in (into / "assistant.html").read_text()
    again = twofile(*args)
    assert again.returncode == 0
    assert again.stderr.count("is there") == 5
