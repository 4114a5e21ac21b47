"""The model: the names and shapes of the file, causality, and agreement with the engine's arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import tiny_vocabulary
from tests.train.tiny import HYPER, random_model
from twofile.engine.engine import Engine
from twofile.errors import TrainError
from twofile.params.hyper import Hyperparameters
from twofile.params.write import write
from twofile.train.model import Transformer
from twofile.train.start import Start


@pytest.mark.parametrize("tied", [True, False])
def test_tensors_are_those_of_the_file(tied: bool) -> None:
    hyper = Hyperparameters(**{**HYPER.__dict__, "tied": tied})
    shapes = {name: tuple(weight.shape) for name, weight in Transformer(hyper).state_dict().items()}
    assert shapes == hyper.shapes()


def test_a_token_sees_only_what_came_before() -> None:
    model = random_model()
    tokens_BT = torch.randint(0, HYPER.vocab_size, (2, 12))
    changed_BT = tokens_BT.clone()
    changed_BT[:, 8:] = 0
    with torch.no_grad():
        a, b = model(tokens_BT), model(changed_BT)
    assert torch.allclose(a[:, :8], b[:, :8], atol=1e-5)
    assert not torch.allclose(a[:, 8:], b[:, 8:], atol=1e-2)


FAMILIES: list[dict[str, Any]] = [
    {"architecture": "qwen3"},
    {"architecture": "qwen2"},
    {"architecture": "llama", "tied": False},
    {"architecture": "llama", "rope_factors": (1.0, 1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0)},
    {"architecture": "qwen3", "rope_scale": 2.0},
]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_agrees_with_the_engine(tmp_path: Path, family: dict[str, Any]) -> None:
    vocabulary = tiny_vocabulary()
    model = random_model(vocab_size=len(vocabulary.tokens), **family)
    path = tmp_path / "tiny.gguf"
    write(path, model.hyper, vocabulary, {name: weight.numpy() for name, weight in model.state_dict().items()})
    tokens = [int(i) for i in np.random.default_rng(1).integers(0, len(vocabulary.tokens), 30)]
    with torch.no_grad():
        ours = model(torch.tensor([tokens]))[0].numpy()
    theirs = Engine(path, backend="numpy").session().append(tokens, "all")
    assert np.abs(ours - theirs).max() < 1e-3
    again = Start.open(path).model()  # and comes back as it was
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in again.state_dict().items())


def test_what_cannot_be_trained() -> None:
    with pytest.raises(TrainError, match="context of 32"):
        random_model()(torch.zeros(1, 33, dtype=torch.int64))
