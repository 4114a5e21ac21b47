"""Where a run begins or goes on, under torchrun and for `twofile train`: shown, kept, compared, refused in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.tiny import write_corpus
from twofile.errors import TrainError
from twofile.train.pretrain import calibrate
from twofile.train.pretrain.begin import begin, go_on, settle
from twofile.train.pretrain.dial import Machine
from twofile.train.pretrain.recipe import load, read_draft

ROOT = Path(__file__).resolve().parents[3]
LAPTOP = Machine("laptop", "cpu", ((128, 1.2e11), (512, 3.0e11)), 8e9)
SOURCE = '[[source]]\nname = "stories"\npath = "stories.txt"\nsplit = "\\n\\n"\nheld_out = 0.2\n'
TINY = (
    "batch = 4\nmicro = 2\n[model]\nvocab_size = 288\ncontext_length = 32\ndim = 32\nn_layers = 1\nn_heads = 2\n"
    "n_kv_heads = 1\nhead_dim = 16\nffn_dim = 32\n[plan]\nsteps = 3\ncompile = false\n"
)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "calibrate", lambda: LAPTOP)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_corpus(tmp_path)
    path = tmp_path / "r.toml"
    path.write_text(f"[dial]\ndepth = 1\n[plan]\ndecay = 0.5\n{SOURCE}")
    return path


def test_a_new_run_is_shown_and_only_its_length_can_change(recipe: Path, tmp_path: Path) -> None:
    run, said = tmp_path / "run", []
    first = settle(recipe, tmp_path, run, say=said.append, steps=5)
    assert (first.hyper.n_layers, first.plan.steps) == (1, 5)
    assert "arXiv:2401.02954" in said[0]
    said.clear()
    assert settle(recipe, tmp_path, run, say=said.append, steps=5) == first
    assert said == []
    assert settle(recipe, tmp_path, run, say=said.append, minutes=2.0) == first.lasting(minutes=2.0)
    assert said == []
    recipe.unlink()
    assert settle(recipe, tmp_path, run) == first.lasting(minutes=2.0) == load(run)[0]
    assert json.loads((run / "recipe.json").read_text())["derived"]


def test_another_recipe_than_that_of_the_run_is_said(recipe: Path, tmp_path: Path) -> None:
    run, said = tmp_path / "run", []
    first = settle(recipe, tmp_path, run, say=said.append, steps=5)
    said.clear()
    text = f"seed = 3\n[dial]\ndepth = 2\n[plan]\nmatrix_rate = 0.04\n{SOURCE}share = 2\n"
    recipe.write_text(text)
    assert settle(recipe, tmp_path, run, say=said.append) == first
    assert said == [
        "decay stays 0.5, as the run was begun",
        "depth 2 is ignored: a run that is resumed stays 1",
        f"matrix_rate 0.04 is ignored: a run that is resumed stays {first.plan.matrix_rate}",
        "seed 3 is ignored: a run that is resumed stays 0",
        "steps stays 5, as the run was begun",
        "stories.share 2 is ignored: a run that is resumed stays 1.0",
    ]


def test_going_on_saves_the_new_length_and_the_tracker(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twofile.train import track

    run, said, asked = tmp_path / "run", [], []
    monkeypatch.setattr(track, "check", asked.append)
    first = begin(read_draft(recipe), tmp_path, run, lambda: LAPTOP, said.append)
    before = json.loads((run / "recipe.json").read_text())
    said.clear()
    found, data = go_on(run, {"steps": 9, "track": "wandb", "dim": 7}, said.append)
    assert (found.plan.steps, found.plan.track, data) == (9, "wandb", tmp_path)
    assert said == [f"dim 7 is ignored: a run that is resumed stays {first.hyper.dim}"]
    assert asked == ["wandb"]
    assert load(run)[0] == found
    after = json.loads((run / "recipe.json").read_text())
    assert {key for key in after if after[key] != before[key]} == {"plan"}


def test_what_cannot_be_trained_is_refused_before_anything_is_made(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe.write_text(f"[plan]\nsteps = 2\ntrack = 'nobody'\n{SOURCE}")
    with pytest.raises(TrainError, match="no tracker 'nobody'"):
        settle(recipe, tmp_path, run)
    recipe.write_text("[plan]\nsteps = 2\n")
    with pytest.raises(TrainError, match="names no texts"):
        settle(recipe, tmp_path, run)
    (tmp_path / "there.gguf").touch()
    with pytest.raises(TrainError, match="there already"):
        settle(recipe, tmp_path, run, out=tmp_path / "there.gguf")
    assert not run.exists()


def test_two_processes_make_a_file_or_say_why_not(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(TINY + SOURCE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "twofile.train.pretrain", str(recipe), "--data", str(tmp_path), "--into", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=120)

    out = tmp_path / "made.gguf"
    done = call("--out", str(out), "--type", "f32")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes()[:4] == b"GGUF"
    assert done.stdout.count("vocab_size") == 1  # every number, said once
    assert done.stdout.splitlines()[-1] == str(out)

    recipe.write_text(TINY.replace("n_kv_heads = 1", "n_kv_heads = 3") + SOURCE)
    command[-1] = str(tmp_path / "other")
    done = call()
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert "n_kv_heads 3" in done.stderr
    assert "twofile/train/pretrain/begin.py" not in done.stderr  # no traceback of ours
