"""What must not change the result: how a batch is cut, how documents are packed, the compiler, who runs the model."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.tiny import HYPER, random_model, recipe, write_corpus
from twofile.train.pretrain.stage import pretrain


def final(folder: Path, name: str, **changes: int) -> dict[str, torch.Tensor]:
    what = dataclasses.replace(recipe(steps=10), **changes)
    return pretrain(what, folder, folder / name, lambda _: None)[0].state_dict()


def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    at_once = final(tmp_path, "8x1", batch=8, micro=8)
    one_by_one = final(tmp_path, "1x8", batch=8, micro=1)
    for name, weight in at_once.items():
        assert torch.allclose(weight, one_by_one[name], atol=2e-5), name


def test_packed_documents_are_documents_by_themselves() -> None:
    """With attention within documents, each token of a packed row costs what it costs in a row of its own."""
    model, chance = random_model(), torch.Generator().manual_seed(3)
    documents = [torch.randint(1, HYPER.vocab_size, (n,), generator=chance) for n in (9, 4, 15)]
    ends = [torch.cat([torch.tensor([0]), document, torch.tensor([0])]) for document in documents]
    packed = torch.cat([end[:-1] for end in ends] + [torch.tensor([0])])
    with torch.no_grad():
        together = model(packed[None, :-1], packed[None, 1:], (packed[None, :-1] == 0).cumsum(1))[0]
        apart = torch.cat([model(end[None, :-1], end[None, 1:])[0] for end in ends])
        unmasked = model(packed[None, :-1], packed[None, 1:])[0]
    assert torch.allclose(together, apart, atol=2e-5)
    assert not torch.allclose(unmasked, apart, atol=1e-2)


def test_nats_are_those_of_the_logits() -> None:
    model = random_model()
    rows = torch.randint(0, HYPER.vocab_size, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(rows[:, :-1]).double().log_softmax(-1)
        nats = model(rows[:, :-1], rows[:, 1:])
    assert torch.allclose(nats.double(), -logits.gather(-1, rows[:, 1:, None])[..., 0], atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler (g++)")
def test_compiled_is_eager() -> None:
    eager, compiled = random_model(), random_model()
    compiled.compile_parts()
    rows = torch.randint(0, HYPER.vocab_size, (2, 17), generator=torch.Generator().manual_seed(2))
    gradients = []
    for model in (eager, compiled):
        model.requires_grad_(True)
        nats = model(rows[:, :-1], rows[:, 1:])
        nats.mean().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_the_program_says_what_the_model_says(tmp_path: Path) -> None:
    from tests.tiny import tiny_vocabulary
    from twofile.engine.engine import Engine
    from twofile.params.write import write

    vocabulary = tiny_vocabulary()
    model = random_model(vocab_size=len(vocabulary.tokens))
    path = tmp_path / "tiny.gguf"
    write(path, model.hyper, vocabulary, {name: weight.numpy() for name, weight in model.state_dict().items()})
    tokens = [int(i) for i in np.random.default_rng(1).integers(0, len(vocabulary.tokens), 30)]
    with torch.no_grad():
        ours = model(torch.tensor([tokens]))[0].numpy()
    assert np.abs(ours - Engine(path).session().append(tokens, "all")).max() < 1e-4
