"""A ladder of tiny models, whole: climbed, stopped, gone on with, fitted, foretold, verified."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.train.tiny import write_corpus
from twofile.errors import TrainError
from twofile.train.corpus.sources import Source
from twofile.train.history import last_with
from twofile.train.pretrain import ladder as ladders
from twofile.train.pretrain.dial import Dial, Machine, derive
from twofile.train.pretrain.ladder import Ladder, Rung, largest, rungs, sizes_for
from twofile.train.pretrain.recipe import Draft

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
    draft = Draft("tiny", (source,), given=GIVEN)
    return Ladder(draft, tmp_path, tmp_path / "ladder", lambda: MACHINE, lambda _: None)


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


def never() -> Machine:
    raise AssertionError("a ladder's machine is measured once")


def test_the_next_call_has_the_machine_and_the_rungs_of_the_first(ladder: Ladder) -> None:
    first = ladder.wanted(SIZES, RATIOS, 2)
    again = Ladder(ladder.draft, ladder.data, ladder.folder, never, ladder.say)
    assert again.machine == MACHINE  # bfloat16, compiling and speed follow from it
    assert again.wanted() == first
    assert again.wanted(seeds=1) == rungs(SIZES, RATIOS)
    assert Ladder(ladder.draft, ladder.data, ladder.folder, never, ladder.say).wanted() == rungs(SIZES, RATIOS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 3}, "seed was 0"),
        ({"given": GIVEN | {"matrix_rate": 0.04}}, "matrix_rate was not given"),
        ({"given": GIVEN | {"batch": 4}}, "batch was 8"),
        ({"given": GIVEN | {"within_documents": False}}, "within_documents was not given"),
        ({"sources": (Source("stories.txt", "stories", split=r"\n\n"),)}, "stories.held_out was 0.2"),
    ],
)
def test_another_draft_is_refused(ladder: Ladder, change: dict[str, Any], named: str) -> None:
    other = dataclasses.replace(ladder.draft, **change)
    with pytest.raises(TrainError, match=named):
        Ladder(other, ladder.data, ladder.folder, never)


def test_another_text_and_another_folder_are_refused(ladder: Ladder) -> None:
    elsewhere = ladder.data / "elsewhere"
    elsewhere.mkdir()
    text = (ladder.data / "stories.txt").read_text()
    (elsewhere / "stories.txt").write_text(text)
    Ladder(ladder.draft, elsewhere, ladder.folder, never)  # the same text in another place
    (elsewhere / "stories.txt").write_text(text + "More.")
    with pytest.raises(TrainError, match=r"stories\.texts was"):
        Ladder(ladder.draft, elsewhere, ladder.folder, never)
    with pytest.raises(TrainError, match="other things"):
        Ladder(ladder.draft, ladder.data, elsewhere, never)


def test_names_tell_sizes_and_lengths_apart(ladder: Ladder) -> None:
    """Rounded, two lengths of one model would share a folder, and the second would be taken for trained."""
    found = [ladder.derive(Rung(60_000, tokens, seed), {}) for tokens in (1e6, 1.001e6) for seed in (0, 1)]
    assert len({recipe.name for recipe, _ in found}) == 4
    for recipe, derived in found:
        assert recipe.name.startswith(f"{recipe.hyper.n_parameters}-{derived.tokens:.0f}")


def test_what_a_recipe_says_of_its_size_and_length_is_ignored_aloud(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    source = Source("stories.txt", "stories", held_out=0.2, split=r"\n\n")
    given = GIVEN | {"dim": 64, "steps": 7, "minutes": 9.0}
    said: list[str] = []
    ladder = Ladder(Draft("x", (source,), given=given), tmp_path, tmp_path / "l", lambda: MACHINE, said.append)
    assert not ladder.draft.given.keys() & {"dim", "n_layers", "steps", "minutes"}
    assert "steps is ignored" in said[0]
    assert "give way" in said[1]
    assert len(ladder.wanted()) == 12
    ladder.wanted()
    assert "minutes is ignored" in said[-1]


def test_an_outcome_behind_a_torn_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert last_with(tmp_path, bool) is None
    log.touch()
    assert last_with(tmp_path, bool) is None
    lines = ['{"step": 1, "seconds": 3}', '{"step": 2, "bpb": 1.5, "finished": true}', '{"event": "saved"}']
    log.write_text("\n".join([*lines, '{"step": 3, "lo']))
    assert ladders._outcome(tmp_path) == 1.5
    assert last_with(tmp_path, lambda line: line.get("step") == 1) == {"step": 1, "seconds": 3}
    assert last_with(tmp_path, lambda line: line.get("step") == 3) is None


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
    short, long = (sizes_for(minutes, MACHINE, (5, 10, 20)) for minutes in (40, 640))
    assert long[0] / short[0] == pytest.approx(4, rel=0.4)  # cost goes with the square
    assert short[0] / short[-1] == 8


def test_little_time_still_makes_a_family_of_sizes() -> None:
    slow = Machine("a slow one", "cpu", ((128, 1e9), (512, 1e9)), 8e9, compiles=False, bfloat16=False)
    sizes = sizes_for(0.5, slow, (5.0, 20.0))
    assert [round(a / b) for a, b in itertools.pairwise(sizes)] == [2, 2, 2]
    shapes = {derive(Dial(params=size, tokens=10 * size), 0, slow).hyper.n_parameters for size in sizes}
    assert len(shapes) == 4


def test_one_size_is_refused_before_anything_is_trained(ladder: Ladder) -> None:
    with pytest.raises(TrainError, match="all runs would be of one size"):
        ladder.climb(ladder.wanted((10_000.0, 11_000.0), (0.02, 0.05), 1))
    assert not list(ladder.folder.glob("*/log.jsonl"))
