"""Recipes, the run folder, and the way from there to a parameters file."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.tiny import recipe, write_corpus
from twofile.errors import TrainError
from twofile.train.export import export, trained
from twofile.train.prepare import prepare
from twofile.train.pretrain import Pretraining, pretrain
from twofile.train.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]


def test_the_bundled_recipe_reads() -> None:
    found = read_recipe(ROOT / "recipes" / "bundled.toml", minutes=3, steps=None)
    assert found.plan.minutes == 3
    assert 2e6 < found.hyper.n_parameters < 8e6
    assert {source.name for source in found.sources} >= {"tinystories", "storybooks", "fairytales"}
    assert all(source.licence for source in found.sources)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[plan]", "[plan", "recipe"),
        ("vocab_size = 4096", "vocab = 4096", "vocab"),
        ("n_heads = 4", "n_heads = 5", "n_heads 5"),
        ("batch = 12", "batch = 13", "multiple of micro"),
        ("share = 4", "shear = 4", "shear"),
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
    said.clear()
    assert prepare(recipe(), tmp_path / "gone", run, said.append) == vocabulary
    assert said == []


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
