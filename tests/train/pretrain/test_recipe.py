"""Recipes: the shipped ones read, parts that are missing are derived, wrong keys are named, recipe.json comes back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.train.tiny import recipe as tiny_recipe
from tests.train.tiny import write_corpus
from twofile.errors import TrainError
from twofile.train.pretrain.dial import Machine
from twofile.train.pretrain.recipe import Draft, complete, load, read_draft, read_recipe, save, text_bytes

ROOT = Path(__file__).resolve().parents[3]
STEPS = "[[step]]"  # of a recipe of several steps: twofile make
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.toml") if STEPS not in path.read_text())
LAPTOP = Machine("laptop", "cpu", ((128, 1.2e11), (512, 3.0e11)), 8e9)


def never() -> Machine:
    raise AssertionError("nothing here follows from the machine's speed")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shipped_recipes_read(path: Path) -> None:
    found = read_recipe(path, machine=LAPTOP)
    assert found.name
    assert found.description
    assert found.licence
    assert all(source.licence and source.attribution for source in found.sources)
    assert len({source.name for source in found.sources}) == len(found.sources)


def test_the_shipped_recipes_are_what_they_say() -> None:
    read = {path.stem: read_recipe(path, machine=LAPTOP) for path in RECIPES}
    assert read["minutes"].plan.minutes == 5
    assert read["laptop-hour"].plan.minutes == 60
    assert read["h100-30min"].plan.minutes == 25
    for name in ("gpt2-124m", "gpt2-8xh100"):
        one = read[name]
        assert one.hyper.n_parameters == pytest.approx(124e6, rel=0.01)
        assert one.batch * one.hyper.context_length == 1 << 19
        assert all((one.batch // one.micro) % processes == 0 for processes in (1, 2, 4, 8, 16))
        text = (ROOT / "recipes" / f"{name}.toml").read_text()
        assert all(word in text for word in ("torchrun", "Slurm", "srun", "Ray", "ray job submit"))
    assert (read["gpt2-124m"].plan.steps or 0) * 2**19 == pytest.approx(2.5e9, rel=0.01)
    assert (read["gpt2-8xh100"].plan.steps or 0) * 2**19 == pytest.approx(1e10, rel=0.01)


def test_numbers_given_need_no_measurement() -> None:
    found, derived = complete(read_draft(ROOT / "recipes" / "bundled.toml"), None, never)
    assert (found.hyper.dim, found.plan.steps, found.plan.vector_rate) == (384, 1850, 0.01)
    assert (found.batch, found.micro) == (24, 12)
    assert next(line for line in derived.lines if line.name == "dim").law == "given"


def test_minutes_need_the_speed_of_the_machine() -> None:
    """The batch, warm-up and decay of a model of given size follow from how many steps the time has."""
    draft = read_draft(ROOT / "recipes" / "bundled.toml")
    timed = draft.with_options({"minutes": 60.0})
    in_plan = dataclasses.replace(draft, given={**draft.given, "minutes": 60.0})
    for one in (timed, in_plan):
        asked: list[Machine] = []
        complete(one, None, lambda asked=asked: asked.append(LAPTOP) or LAPTOP)
        assert asked == [LAPTOP]


def test_a_guessed_machine_still_measures_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    from twofile.train.pretrain import calibrate

    for faster in (False, True):
        monkeypatch.setattr(calibrate, "faster_in_bfloat16", lambda _, faster=faster: faster)
        draft = Draft("x", tiny_recipe().sources, given={"dim": 64, "n_layers": 2, "steps": 3})
        assert complete(draft, None, never)[0].plan.bfloat16 == faster


def test_no_compiler_no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    from twofile.train.pretrain import calibrate

    for device, compiler in (("cpu", "clang++"), ("cuda", "gcc")):
        monkeypatch.setattr(calibrate.importlib.util, "find_spec", lambda _: object())
        monkeypatch.setattr(calibrate.shutil, "which", lambda name, one=compiler: one if name == one else None)
        assert calibrate._compiles(torch.device(device))
        monkeypatch.setattr(calibrate.shutil, "which", lambda _: None)
        assert not calibrate._compiles(torch.device(device))


def test_a_draft_tells_what_a_run_depends_on(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    draft = Draft("x", tiny_recipe().sources, given={"steps": 3})
    renamed = dataclasses.replace(draft, name="y", description="z", remarks=("w",))
    assert renamed.told(tmp_path) == draft.told(tmp_path)
    assert draft.with_options({"decay": 0.1}).told(tmp_path) == {**draft.told(tmp_path), "decay": 0.1}
    assert draft.told()["stories.path"] == "stories.txt"
    before = draft.told(tmp_path)
    (tmp_path / "stories.txt").write_text("other")
    assert {key for key, value in draft.told(tmp_path).items() if value != before[key]} == {"stories.texts"}


def test_what_is_missing_is_derived(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    path = tmp_path / "part.toml"
    path.write_text(
        "[dial]\nminutes = 3\n[model]\nvocab_size = 300\n[plan]\nmatrix_rate = 0.03\n"
        '[[source]]\nname = "stories"\npath = "stories.txt"\nsplit = "\\n\\n"\n'
    )
    found, derived = complete(read_draft(path), tmp_path, LAPTOP)
    assert found.name == "part"
    assert (found.hyper.vocab_size, found.plan.matrix_rate, found.plan.minutes) == (300, 0.03, 3)
    assert found.hyper.n_layers >= 2
    assert found.plan.steps is not None
    assert "16 times" in derived.remarks[0]  # so little text


def test_options_take_the_place_of_numbers() -> None:
    draft = read_draft(ROOT / "recipes" / "bundled.toml")
    assert read_recipe(ROOT / "recipes" / "bundled.toml", minutes=3, steps=None).plan.minutes == 3
    smaller = draft.with_options({"depth": 3, "decay": 0.5, "seed": 9, "micro": None})
    found, derived = complete(smaller, None, LAPTOP)
    assert (found.hyper.n_layers, found.hyper.dim) == (3, 192)
    assert (found.plan.decay, found.seed, found.micro) == (0.5, 9, 12)
    assert "dim, n_layers, n_heads, n_kv_heads, head_dim, ffn_dim give way to depth" in derived.remarks[0]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nmae = 'x'", "'nmae'", "name"),
        ("[plan]\nmatrix_rat = 1", r"in \[plan\].*'matrix_rat'", "matrix_rate"),
        ("[model]\nvocab = 300", r"in \[model\].*'vocab'", "vocab_size"),
        ("[dial]\nminute = 3", r"in \[dial\].*'minute'", "minutes"),
        ("[[source]]\nname = 's'\npath = 'x'\nshear = 2", "in the source 's'.*'shear'", "share"),
        ("[[sauce]]", "'sauce'", "source"),
        ("[dial]\nminutes = 0", "more than nothing", "bundled"),
        ("[dial]\nparams = 1\ndepth = 2", "both say", "one of them"),
        ("[plan", "broken.toml", "bundled"),
        ("model = 3", "broken.toml", "bundled"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(TrainError, match=message) as caught:
        read_draft(path)
    assert hint in caught.value.hint


def test_a_number_that_is_a_word_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "word.toml"
    path.write_text('[model]\ndim = "wide"\n[[source]]\nname = "s"\npath = "x"\n')
    with pytest.raises(TrainError, match=r"wide|str"):
        read_recipe(path)


def test_recipe_json_comes_back(tmp_path: Path) -> None:
    plain = tiny_recipe()
    source = dataclasses.replace(plain.sources[0], drop={"kind": "x"})
    whole = dataclasses.replace(plain, sources=(source,), within_documents=True)
    save(whole, tmp_path / "run", tmp_path)
    assert load(tmp_path / "run") == (whole, tmp_path)
    with pytest.raises(TrainError, match=r"recipe\.json"):
        load(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(TrainError, match=r"recipe\.json"):
        load(tmp_path)


def test_text_bytes_counts_distinct_training_text(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    whole = (tmp_path / "stories.txt").stat().st_size
    (source,) = tiny_recipe().sources
    for share, expected in ((1.0, 0.8), (3.0, 0.8), (0.5, 0.4), (0.0, 0.0)):
        assert text_bytes([dataclasses.replace(source, share=share)], tmp_path) == pytest.approx(whole * expected)


def test_a_draft_without_numbers_trains_ten_minutes() -> None:
    draft = Draft("x", tiny_recipe().sources)
    found, _ = complete(draft, None, LAPTOP)
    assert found.plan.minutes == 10
    by_steps, _ = complete(draft.with_options({"steps": 7}), None, LAPTOP)
    assert (by_steps.plan.minutes, by_steps.plan.steps) == (None, 7)
    assert by_steps.hyper == found.hyper
