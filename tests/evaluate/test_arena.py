"""Ratings worked out, an arena that goes on, judges that are programs, reward models and people."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_main import call
from tests.tiny import tiny_parameters
from twofile.errors import TaskError
from twofile.evaluate.arena import Arena, Asked
from twofile.evaluate.ratings import Comparison, ratings
from twofile.serve.label.store import Label, Store


def test_two_players_worked_out() -> None:
    """The likelihood of 7.5 wins of 10, and half a win each way against an average player, is largest where its
    gradient is zero."""
    met = [Comparison(str(i), "a", "b", score) for i, score in enumerate([1.0] * 7 + [0.5] + [0.0] * 2)]
    first, second = ratings(met)
    assert (first.name, first.wins, first.comparisons) == ("a", 7.5, 10)
    assert first.rating + second.rating == pytest.approx(2000)
    apart = math.log(10) / 400 * (first.rating - second.rating)
    p, q = 1 / (1 + math.exp(-apart)), 1 / (1 + math.exp(-apart / 2))
    assert 7.5 - 10 * p + 0.5 - q == pytest.approx(0, abs=1e-6)
    assert first.low < first.rating < first.high
    assert second.high < first.low + 200


def test_true_strengths_are_found() -> None:
    draw, true = np.random.default_rng(0), {"a": 1200.0, "b": 1050.0, "c": 950.0, "d": 800.0}
    met = []
    for i in range(400):
        for one, other in itertools.combinations(true, 2):
            p = 1 / (1 + 10 ** ((true[other] - true[one]) / 400))
            met.append(Comparison(str(i), one, other, float(draw.random() < p)))
    found = ratings(met)
    assert [one.name for one in found] == ["a", "b", "c", "d"]
    assert all(abs(one.rating - true[one.name]) < 40 for one in found)
    assert sum(one.low <= true[one.name] <= one.high for one in found) >= 3


def test_who_never_lost_has_a_finite_rating() -> None:
    (best, worst) = ratings([Comparison(str(i), "a", "b", 1.0) for i in range(5)])
    assert math.isfinite(best.rating)
    assert best.rating > worst.rating
    assert ratings([]) == []


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"once upon {i}"}) + "\n" for i in range(6)))
    return path


@pytest.fixture
def judge(tmp_path: Path) -> str:
    path = tmp_path / "judge.py"
    code = (
        "def long(messages, reply, row):\n    assert row['prompt'] == messages[-1]['content']\n    return len(reply)\n"
    )
    path.write_text(code)
    return f"{path}:long"


def test_command(tmp_path: Path, prompts: Path, judge: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, three = (str(tiny_parameters("qwen3", "F32", i, tmp_path / f"m{i}.gguf")) for i in range(3))
    into = tmp_path / "arena.jsonl"
    options = ["--prompts", str(prompts), "--judge", judge, "--into", str(into), "--longest", "8"]
    assert call("arena", one, two, *options) == 0
    out, told = capsys.readouterr()
    assert "6 comparisons" in told
    assert "m0" in out
    with into.open("a") as file:
        file.write('{"torn": ')  # by a kill
    assert call("arena", one, three, *options, "--json") == 0
    out, told = capsys.readouterr()
    assert ": 0 answers, 6 were there" in told
    assert "12 comparisons" in told
    (rows,) = json.loads(out).values()
    assert [row["comparisons"] for row in rows] == [12, 12, 12]
    arena = Arena(into)
    ((by, *_), *_) = arena.comparisons
    for found in arena.of(by):
        lengths = [len(arena.answers[found.round, name]) for name in (found.first, found.second)]
        assert found.score == 0.5 + 0.5 * np.sign(lengths[0] - lengths[1])
    assert call("arena", "--into", str(into)) == 0
    assert "m2" in capsys.readouterr().out
    assert call("arena", one) == 2
    assert call("arena", one, *options[:-1], "9") == 1
    assert "with longest 8, seed 0, not longest 9" in capsys.readouterr().err
    tiny_parameters("qwen3", "F32", 9, Path(one))  # another model under the same name
    assert call("arena", one, *options) == 0
    assert ": 6 answers, 0 were there" in capsys.readouterr().err
    Path(judge.partition(":")[0]).write_text("def long(messages, reply, row):\n    return -len(reply)\n")
    assert call("arena", one, *options) == 0
    assert "36 comparisons" in capsys.readouterr().err  # another judge


def test_people_judge(tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(tiny_parameters("qwen3", "F32", i, tmp_path / f"m{i}.gguf")) for i in range(2)]
    options = ["--prompts", str(prompts), "--judge", "people", "--into", str(tmp_path / "a.jsonl"), "--longest", "8"]
    assert call("arena", *models, *options) == 0
    assert "wait for people" in capsys.readouterr().err
    store = Store(tmp_path / "a.labels.db")
    items = store.items()
    answers = Arena(tmp_path / "a.jsonl").answers
    best = next(name for _, name in answers if name.startswith("m1"))
    for item in items[1:]:
        better = "first" if answers[Asked(item.messages, {}).key, best] == item.replies[0] else "second"
        store.submit(Label(str(item.id), item.id, "ann", better))  # type: ignore[arg-type]
    store.submit(Label("x", items[0].id, "ann", "skip"))
    store.close()
    assert call("arena", *models, *options, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["people"]
    assert rows[0]["name"] == best
    assert rows[0]["wins"] >= len(items) - 1
    assert rows[0]["low"] < rows[0]["rating"] < rows[0]["high"]  # though every round ended alike
    assert call("arena", "--into", str(tmp_path / "a.jsonl"), "--json") == 0  # the same, of what is there
    assert json.loads(capsys.readouterr().out)["people"] == rows
    assert rows[0]["comparisons"] == len(prompts.read_text().splitlines()) - 1  # what was passed over is open


def test_what_is_no_arena(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for text in (
        "[1]\n",
        "x\n",
        '{"text": "a"}\n',
        '{"score": 1}\n',
        "GGUF, and precious",
        "notes\nof mine",
        "{'a': 1}",
    ):
        path.write_text(text)
        with pytest.raises(TaskError, match="no file of an arena"):
            Arena(path)
        assert path.read_text() == text  # what is not ours stays as it is
    arena = Arena(tmp_path / "new" / "b.jsonl")
    assert list(arena.open("j", ["a", "b"], [Asked(({"role": "user", "content": "x"},), {})])) == []
