"""`twofile train`: what it prints, makes, refuses, ignores aloud and goes on with; a ladder from the command line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.cli.test_files import call
from twofile.cli import train as command
from twofile.train.pretrain import calibrate
from twofile.train.pretrain.dial import Machine

MACHINE = Machine("test", "cpu", ((128, 1e11), (512, 3e11)), 8e9, compiles=False, bfloat16=False)
TINY = ("--layers", "1", "--dim", "32", "--vocab", "300", "--context", "32", "--batch", "4", "--ffn", "64")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "calibrate", lambda: MACHINE)
    monkeypatch.setattr(calibrate, "unmeasured", lambda: MACHINE)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder, random = tmp_path / "texts", Random(0)
    folder.mkdir()
    words = ["".join(random.choices("aeioubcdfgklmnprst", k=random.randint(2, 9))) for _ in range(300)]
    for i in range(60):
        (folder / f"{i}.txt").write_text(" ".join(random.choices(words, k=200)))
    return folder


def test_dry_run_prints_every_number_and_makes_nothing(
    texts: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = call(capsys, "train", texts, "--minutes", "5", "--dry-run")
    for words in ("dim", "matrix_rate", "arXiv:2401.02954", "arXiv:2203.15556", "FLOP/s", "16 times the text"):
        assert words in out
    assert "note: the text is learned 16 times over" in err
    assert not (own_home / "runs").exists()
    out, _ = call(capsys, "train", texts, "--params", "1.5M", "--decay", "0.25", "--dry-run")
    assert "the nearest to the size asked for" in out
    (decay,) = [line for line in out.splitlines() if line.strip().startswith("decay")]
    assert decay.split() == ["decay", "0.25", "given"]


def test_a_folder_of_texts_becomes_a_model(texts: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = call(capsys, "train", texts, "--out", "mine", *TINY, "--steps", "3")
    assert out.strip() == str(own_home / "models" / "mine.gguf")
    assert "bpb" in err
    run = own_home / "runs" / "mine"
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["plan"]["steps"], recipe["model"]["dim"]) == (3, 32)
    assert {"name": "dim", "value": "32", "law": "given", "source": ""} in recipe["derived"]

    _, err = call(capsys, "train", "--out", "mine", "--resume", "--steps", "5", "--dim", "64", "--decay", "0.4")
    assert "dim 64 is ignored: a run that is resumed stays 32" in err
    assert "decay" not in err  # it is what it was
    assert json.loads((run / "recipe.json").read_text())["plan"]["steps"] == 5
    assert "--dry-run is for a new run" in call(capsys, "train", "--out", "mine", "--resume", "--dry-run", status=2)[1]
    assert "pretrain 5 steps" in call(capsys, "show", "mine")[0]


def test_a_recipe_and_texts_in_place_of_its_own(
    texts: Path, tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.toml"
    path.write_text("[dial]\ndepth = 1\n[plan]\nsteps = 2\n[model]\nvocab_size = 300\ncontext_length = 32\n")
    assert "names no texts" in call(capsys, "train", path, "--out", "a", status=1)[1]
    out, _ = call(capsys, "train", path, texts / "*.txt", "--dry-run")
    assert "of the depth asked for" in out
    path.write_text(path.read_text() + '[[source]]\nname = "gone"\npath = "gone.txt"\n')
    _, err = call(capsys, "train", path, texts, "--dry-run")
    assert "give way to the texts named here" in err
    _, err = call(capsys, "train", path, "--split", "x", "--data", tmp_path, "--dry-run", status=1)
    assert "--split is ignored" in err
    assert "gone.txt" in err


@pytest.mark.parametrize(
    ("args", "words", "status"),
    [
        ((), "give texts", 2),
        (("TEXTS", "b.toml"), "a recipe stands first", 2),
        (("nothing.toml",), "no recipe", 2),
        (("nothing.txt",), "nothing.txt does not exist", 1),
        (("TEXTS", "--type", "Q3"), "no type Q3", 2),
        (("TEXTS", "--params", "many"), "5M", 2),
        (("TEXTS", "--params", "1M", "--depth", "3"), "both say", 1),
        (("TEXTS", "--into", "x"), "--into is for --ladder", 2),
        (("TEXTS", "--into", "x", "--ladder", "--dry-run"), "--dry-run is for one run", 2),
        (("TEXTS", "--heads", "3", "--kv-heads", "2"), "n_heads 3", 1),
    ],
)
def test_wrong_calls(
    args: tuple[str, ...], words: str, status: int, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = call(capsys, "train", *(texts if arg == "TEXTS" else arg for arg in args), "--out", "x", status=status)
    assert words in err
    assert out == ""


def test_under_torchrun_it_is_refused(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, err = call(capsys, "train", texts, "--out", "x", status=1)
    assert "-m twofile.train.pretrain" in err


def test_no_run_and_an_earlier_run(texts: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run to go on with" in call(capsys, "train", texts, "--out", "one", "--resume", status=1)[1]
    call(capsys, "train", texts, "--out", "one", *TINY, "--steps", "1")
    assert "earlier run" in call(capsys, "train", texts, "--out", "one", "--steps", "2", "--force", status=1)[1]


def test_one_text_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.txt").write_text("a b c. " * 5000)
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(b"a b c. " * 5000))
    for name in ("one.txt", "packed.txt.gz"):
        _, err = call(capsys, "train", tmp_path / name, "--dry-run")
        assert "none is held out" in err
    _, err = call(capsys, "train", tmp_path / "one.txt", "--split", "b", "--dry-run")
    assert "none is held out" not in err


def test_a_ladder(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "ladder"
    tiny = ("--layers", "1", "--vocab", "300", "--context", "32", "--batch", "4", "--head-dim", "16")
    sizes = ("--sizes", "70k,170k", "--ratios", "0.01,0.02,0.04")
    call(capsys, "train", texts, "--ladder", status=2)
    out, err = call(capsys, "train", texts, "--ladder", "--into", into, *tiny, *sizes, "--steps", "3")
    assert "steps is ignored" in err
    assert "6 runs" in err
    assert "L = " in out
    found = json.loads((into / "ladder.json").read_text())
    assert len(found["points"]) == 6
    assert found["predictions"][0]["outcome"] is None
    out, err = call(capsys, "train", texts, "--ladder", "--into", into, *tiny, "--predict", "300k,4k", "--verify")
    assert "going on with the ladder" in err
    told = json.loads((into / "ladder.json").read_text())
    assert told["points"] == found["points"]
    assert told["predictions"][-1]["outcome"] is not None
    _, err = call(capsys, "train", texts, "--ladder", "--into", into, *tiny, "--seed", "4", status=1)
    assert "seed was 0" in err
    assert "%)" in out


def test_train_without_torch_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    code = f"""
import sys
sys.modules["torch"] = None
from twofile.cli.main import main
main(["train", {str(tmp_path / "a.txt")!r}, "--out", "x"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: training needs torch, which is not installed\nhint: pip install 'twofile[train]'\n"


def test_quantities() -> None:
    kind = command.Quantity()
    for text, number in (("5M", 5e6), ("1.5k", 1500), ("2e6", 2e6), ("0.1g", 1e8), ("7", 7)):
        assert kind.convert(text, None, None) == number
    assert command.Quantities().convert("1k,2M", None, None) == (1e3, 2e6)
