"""Recipes, the run folder, and the way from there to a parameters file."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.tiny import HYPER, recipe, write_corpus
from twofile.errors import TrainError
from twofile.train.corpus import sources as corpus
from twofile.train.corpus.refine import Machines, Settings, refine
from twofile.train.pretrain import prepare as module
from twofile.train.pretrain import tokenizer
from twofile.train.pretrain.export import export, trained
from twofile.train.pretrain.prepare import prepare
from twofile.train.pretrain.recipe import Recipe, read_recipe
from twofile.train.pretrain.stage import Pretraining, pretrain

ROOT = Path(__file__).resolve().parents[3]


def test_the_bundled_recipe_reads() -> None:
    found = read_recipe(ROOT / "recipes" / "bundled.toml", minutes=3, steps=None)
    assert found.plan.minutes == 3
    assert 8e6 < found.hyper.n_parameters < 2e7
    assert {source.name for source in found.sources} >= {"tinystories", "storybooks", "fairytales"}
    assert all(source.licence for source in found.sources)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[plan]", "[plan", "recipe"),
        ("vocab_size = 6144", "vocab = 6144", "vocab"),
        ("n_heads = 6", "n_heads = 5", "n_heads 5"),
        ("batch = 24", "batch = 25", "multiple of micro"),
        ("share = 3", "shear = 3", "shear"),
        ("[[source]]", "[[sauce]]", "sauce|source"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (ROOT / "recipes" / "bundled.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new))
    with pytest.raises(TrainError, match=message):
        read_recipe(tmp_path / "bad.toml")


def test_prepare_once(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    run, said = tmp_path / "run", []
    vocabulary = prepare(recipe(), tmp_path, run, said.append)
    summary = json.loads((run / "corpus.json").read_text())
    valid = summary["sources"]["stories"]["valid"]
    assert summary["train"]["documents"] + valid["documents"] == 400
    assert summary["sources"]["stories"]["licence"] == "CC0"
    assert any("bytes a token" in line for line in said)
    assert summary["tokenizer"]["sources"]["stories"]["bytes_per_token"] > 1.2
    said.clear()
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert prepare(recipe(), tmp_path, run, said.append) == vocabulary
    os.utime(tmp_path / "stories.txt", ns=(1, 1))  # a copy of the same text
    assert prepare(recipe(), tmp_path, run, said.append) == vocabulary
    assert prepare(recipe(), tmp_path / "gone", run, said.append) == vocabulary
    assert said == []
    assert times == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def other(**changes: Any) -> Recipe:
    return dataclasses.replace(recipe(), sources=(dataclasses.replace(recipe().sources[0], **changes),))


def more_text(folder: Path) -> None:
    with (folder / "stories.txt").open("a") as stream:
        stream.write("\n\nOnce more, the cat sang.")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (dataclasses.replace(recipe(), hyper=dataclasses.replace(HYPER, vocab_size=280)), "has 288 tokens, not 280"),
        (other(share=2.0), "source stories had share 1.0, not 2.0"),
        (other(held_out=0.5), "held_out 0.2, not 0.5"),
        (other(name="tales"), "source stories is gone; source tales is new"),
        (recipe(), "the texts of source stories were others"),
    ],
)
def test_what_has_changed_is_prepared_anew(tmp_path: Path, what: Recipe, words: str) -> None:
    """As if it had never been otherwise."""
    write_corpus(tmp_path)
    run, new = tmp_path / "run", tmp_path / "new"
    said: list[str] = []
    prepare(recipe(), tmp_path, run, lambda _: None)
    if what == recipe():
        more_text(tmp_path)
    prepare(what, tmp_path, new, lambda _: None)
    prepare(what, tmp_path, run, said.append)
    assert any(words in line for line in said)
    made = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    assert made == sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
    assert all((run / path).read_bytes() == (new / path).read_bytes() for path in made)


def test_a_trained_run_keeps_its_text(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    run = tmp_path / "run"
    pretrain(recipe(steps=2), tmp_path, run, lambda _: None)
    packed = (run / "train.npy").read_bytes()
    with pytest.raises(TrainError, match=r"run has learned from something else: source stories had share 1\.0"):
        pretrain(other(share=2.0), tmp_path, run, lambda _: None)
    more_text(tmp_path)
    with pytest.raises(TrainError, match="the texts of source stories were others"):
        pretrain(recipe(steps=3), tmp_path, run, lambda _: None)
    (tmp_path / "stories.txt").unlink()
    assert pretrain(recipe(steps=3), tmp_path, run, lambda _: None)[2].step == 3
    assert (run / "train.npy").read_bytes() == packed


def test_what_is_linked_is_not_written_into(tmp_path: Path) -> None:
    """A run that shares the text of another gets its own when it wants another one."""
    write_corpus(tmp_path)
    shared, run = tmp_path / "shared", tmp_path / "run"
    prepare(recipe(), tmp_path, shared, lambda _: None)
    before = {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    run.mkdir()
    for path in shared.iterdir():
        (run / path.name).symlink_to(path)
    said: list[str] = []
    prepare(recipe(), tmp_path, run, said.append)
    assert said == []
    prepare(other(held_out=0.5), tmp_path, run, said.append)
    assert not any(path.is_symlink() for path in run.iterdir())
    assert before == {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}


def test_a_vocabulary_is_learned_from_so_much_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    learned: list[str] = []
    learn = tokenizer.learn
    monkeypatch.setattr(tokenizer, "learn", lambda texts, size: learn(learned.extend(texts) or learned, size))
    prepare(recipe(), tmp_path, tmp_path / "all", lambda _: None)
    whole = sum(map(len, learned))
    learned.clear()
    monkeypatch.setattr(module, "LEARNED", 4000.0)
    prepare(recipe(), tmp_path, tmp_path / "some", lambda _: None)
    assert 2000 < sum(map(len, learned)) < 6000 < whole
    counts = [json.loads((tmp_path / run / "corpus.json").read_text())["train"] for run in ("all", "some")]
    assert counts[0]["documents"] == counts[1]["documents"]  # packed is everything
    assert counts[0]["bytes"] == counts[1]["bytes"] == whole


def test_a_refined_corpus_brings_its_card_and_what_is_ignored_is_said(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    cut = corpus.named([str(tmp_path / "stories.txt")], split=r"\n\n")
    refined, run = tmp_path / "refined", tmp_path / "run"
    settings = Settings(tuple(cut), filters=(), dedup=False, held_out=0.2)
    assert refine(settings, Machines(tasks=1), refined, lambda _: None)
    said: list[str] = []
    source = corpus.Source("texts/stories", "stories", held_out=0.001)
    prepare(dataclasses.replace(recipe(), sources=(source,)), refined, run, said.append)
    assert [line for line in said if "ignored" in line] == [
        "source stories: held_out is ignored, since twofile corpus has cut and split its text already"
    ]
    assert json.loads((run / "card.json").read_text()) == json.loads((refined / "card.json").read_text())
    summary = json.loads((run / "corpus.json").read_text())
    assert summary["sources"]["stories"]["valid"]["documents"] > 40


def test_copies_of_a_document_lie_apart(tmp_path: Path) -> None:
    """Beside each other within a context they teach copying, and the loss falls while the model learns nothing."""
    write_corpus(tmp_path)
    twice = dataclasses.replace(recipe().sources[0], share=2.5)
    prepare(dataclasses.replace(recipe(), sources=(twice,)), tmp_path, tmp_path / "run", lambda _: None)
    tokens = np.load(tmp_path / "run" / "train.npy")
    documents = [part.tobytes() for part in np.split(tokens, np.flatnonzero(tokens == 0))[1:-1]]
    distinct = len(set(documents))
    assert len(set(documents[:distinct])) == len(set(documents[distinct : 2 * distinct])) == distinct
    assert 2.3 < len(documents) / distinct < 2.7


def test_validation_is_bits_per_byte(tmp_path: Path) -> None:
    """A model that knows nothing spends log2(vocabulary) bits a token."""
    write_corpus(tmp_path)
    vocabulary = prepare(recipe(), tmp_path, tmp_path / "run", lambda _: None)
    stage = Pretraining(recipe(), vocabulary, tmp_path / "run")
    blind = lambda tokens_BT, *_: torch.full(tokens_BT.shape, np.log(288))  # noqa: E731
    rows = stage.valid["stories"][:, 1:]
    text_tokens, size = int((rows > 2).sum()), int(stage.token_bytes[rows].sum())
    assert stage.validate(blind)["bpb_stories"] == pytest.approx(text_tokens * np.log2(288) / size, rel=1e-5)


def test_export_round_trip(tmp_path: Path) -> None:
    from twofile.params.parameters import Parameters

    write_corpus(tmp_path)
    run = tmp_path / "run"
    model, vocabulary, _ = pretrain(recipe(steps=3), tmp_path, run, lambda _: None)
    export(recipe(), run, tmp_path / "tiny.gguf", type="F32", command="a command")
    with Parameters.open(tmp_path / "tiny.gguf") as parameters:
        assert parameters.hyper.shapes() == model.hyper.shapes()
        assert parameters.vocabulary == vocabulary
        assert parameters.metadata["twofile.stages"] == ["pretrain 3 steps, 384 tokens"]
        assert parameters.metadata["twofile.data"][0].startswith("stories ")
        assert parameters.metadata["twofile.command"] == "a command"
        for name, weight in model.state_dict().items():
            assert np.array_equal(parameters.read(name), weight.numpy()), name
    assert trained(recipe(), run)[1:] == (3, 384)


def test_export_without_training(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no checkpoint"):
        export(recipe(), tmp_path, tmp_path / "x.gguf")
