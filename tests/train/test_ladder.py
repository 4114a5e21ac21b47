"""A ladder of tiny models, whole: climbed, stopped, gone on with, fitted, foretold, verified."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.train.tiny import write_corpus
from twofile.errors import TrainError
from twofile.train import ladder as ladders
from twofile.train.corpus import Source
from twofile.train.dial import Machine
from twofile.train.ladder import Ladder, Rung, largest, rungs, sizes_for
from twofile.train.recipe import Draft

MACHINE = Machine("test", "cpu", ((128, 1e11), (512, 3e11)), 8e9, compiles=False, bfloat16=False)
GIVEN = {
    "vocab_size": 288,
    "context_length": 32,
    "head_dim": 16,
    "n_heads": 2,
    "n_kv_heads": 1,
    "ffn_dim": 32,
    "n_layers": 1,
    "tied": True,
    "batch": 8,
}
SIZES, RATIOS = (22_000.0, 60_000.0), (0.02, 0.05, 0.15)


@pytest.fixture
def ladder(tmp_path: Path) -> Ladder:
    write_corpus(tmp_path)
    source = Source("stories.txt", "stories", held_out=0.2, split=r"\n\n", licence="CC0")
    (tmp_path / "ladder").mkdir()
    return Ladder(Draft("tiny", (source,), given=GIVEN), tmp_path, tmp_path / "ladder", MACHINE, lambda _: None)


def test_a_whole_ladder(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    real = ladders.pretrain

    def count(recipe: Any, data: Path, run: Path, say: Any) -> Any:
        if len(trained) == 4 and "stop" not in trained:
            trained.append("stop")
            raise TrainError("the lights went out")
        trained.append(run.name)
        return real(recipe, data, run, say)

    monkeypatch.setattr(ladders, "pretrain", count)
    wanted = rungs(SIZES, RATIOS)
    assert len(wanted) == 6
    with pytest.raises(TrainError, match="lights"):
        ladder.climb(wanted)
    law = ladder.climb(wanted)
    assert len(trained) == 7  # six runs and one interruption: nothing twice
    told = ladder.read()
    assert [point["run"] for point in told["points"]] == [name for name in trained if name != "stop"]
    assert set(told["points"][0]) == {"params", "tokens", "loss", "interval", "run"}
    for point in told["points"]:
        assert point["interval"][0] <= point["loss"] <= point["interval"][1]
        run = ladder.folder / point["run"]
        assert json.loads((run / "recipe.json").read_text())["plan"]["steps"] * 8 * 32 == point["tokens"]
        assert os.stat(run / "train.npy").st_ino == os.stat(ladder.folder / "text" / "train.npy").st_ino
    assert set(told["fit"]) >= {"E", "A", "alpha", "B", "beta", "scatter"}
    # more training is better here: nothing of this is near its end
    by_size: dict[int, list[float]] = {}
    for point in told["points"]:
        by_size.setdefault(point["params"], []).append(point["loss"])
    assert len(by_size) == 2
    assert all(losses == sorted(losses, reverse=True) for losses in by_size.values())

    rung = Rung(90_000, 15_000)
    entry = ladder.predict(law, rung)
    assert entry["low"] <= entry["predicted"] <= entry["high"]
    assert ladder.read()["predictions"] == [entry]
    assert entry["outcome"] is None
    seen: list[Any] = []
    monkeypatch.setattr(ladders, "pretrain", lambda *args: (seen.append(ladder.read()), real(*args))[1])
    verified = ladder.predict(law, rung, verify=True)
    assert seen[0]["predictions"] == [entry]  # written down before it was trained
    assert verified == {**entry, "outcome": verified["outcome"]}
    assert 0 < verified["outcome"] < 8
    assert ladder.read()["predictions"] == [verified]
    assert ladder.predict(law, rung, verify=True) == verified
    assert len(seen) == 1


def test_too_few_different_runs(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    point = {"params": 1, "tokens": 2, "loss": 1.0, "run": "same"}
    monkeypatch.setattr(Ladder, "_train", lambda *_: point)
    with pytest.raises(TrainError, match="1 different runs are too few"):
        ladder.climb(rungs(SIZES, RATIOS))


def test_rungs_and_sizes() -> None:
    found = rungs((1e6, 5e5), (5, 20), seeds=2)
    assert len(found) == 8
    costs = [rung.params * rung.tokens for rung in found]
    assert costs == sorted(costs)
    top = largest(found)
    assert top.params * top.tokens == pytest.approx(8 * 1e6 * 2e7)
    short, long = (sizes_for(minutes, MACHINE, (5, 10, 20)) for minutes in (10, 160))
    assert long[0] / short[0] == pytest.approx(4, rel=0.4)  # cost goes with the square
    assert short[0] / short[-1] == 8
