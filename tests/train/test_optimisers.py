"""Muon against torch's own, matrices of one shape turned together, and the state by name."""

import pytest
import torch
from torch import nn

from twofile.train.optimisers import Optimisers, orthogonalise

SHAPES = {
    "a.weight": (24, 16),
    "b.weight": (24, 16),
    "c.weight": (16, 40),
    "norm.weight": (16,),
    "token_embd.weight": (9, 16),
}


def weights() -> dict[str, nn.Parameter]:
    chance = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=chance)) for name, shape in SHAPES.items()}


def give_gradients(held: dict[str, nn.Parameter], step: int) -> None:
    chance = torch.Generator().manual_seed(100 + step)
    for weight in held.values():
        weight.grad = torch.randn(weight.shape, generator=chance)


def ours(held: dict[str, nn.Parameter], bfloat16: bool = False) -> Optimisers:
    return Optimisers(held.items(), matrix_rate=0.02, vector_rate=0.003, weight_decay=0.05, bfloat16=bfloat16)


def test_singular_values_come_near_one() -> None:
    matrices = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(1))
    matrices *= torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonalise(matrices, bfloat16=False))
    assert values.min() > 0.6
    assert values.max() < 1.25
    tall = orthogonalise(matrices.mT, bfloat16=False)
    assert torch.allclose(tall.mT, orthogonalise(matrices, bfloat16=False), atol=1e-5)


def test_it_is_the_muon_of_torch() -> None:
    """Which iterates in bfloat16: so do we here, and round differently by the batch."""
    mine, theirs = weights(), weights()
    hidden = [weight for name, weight in theirs.items() if name[0] in "abc"]
    reference = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.05, momentum=0.95)
    optimisers = ours(mine, bfloat16=True)
    for step in range(5):
        give_gradients(mine, step)
        give_gradients(theirs, step)
        optimisers.step(0.5)
        reference.param_groups[0]["lr"] = 0.01
        reference.step()
    for name in ("a.weight", "b.weight", "c.weight"):
        assert torch.allclose(mine[name], theirs[name], atol=1e-3), name
        assert not torch.allclose(mine[name], weights()[name], atol=2e-2), name


def test_the_others_follow_adamw() -> None:
    mine, theirs = weights(), weights()
    named = ["norm.weight", "token_embd.weight"]
    reference = torch.optim.AdamW(
        [theirs[name] for name in named], lr=0.003, betas=(0.9, 0.95), eps=1e-10, weight_decay=0
    )
    optimisers = ours(mine)
    for step in range(3):
        give_gradients(mine, step)
        give_gradients(theirs, step)
        optimisers.step(1.0)
        reference.step()
    for name in named:
        assert torch.allclose(mine[name], theirs[name], atol=1e-7), name
    assert all(weight.grad is None for weight in mine.values())


def test_state_carries_a_run_on() -> None:
    whole, parts = weights(), weights()
    first, one = ours(whole), ours(parts)
    for step in range(6):
        if step == 3:  # as if loaded: other tensors with the values of the first
            other = ours(parts)
            for name, tensor in other.state().items():
                tensor.copy_(one.state()[name])
            other.resume(3)
            one = other
        for held, optimiser in ((whole, first), (parts, one)):
            give_gradients(held, step)
            optimiser.step(1.0)
    for name in SHAPES:
        assert torch.equal(whole[name], parts[name]), name


@pytest.mark.parametrize("name", list(SHAPES))
def test_every_weight_moves(name: str) -> None:
    held = weights()
    give_gradients(held, 0)
    ours(held).step(1.0)
    assert not torch.equal(held[name], weights()[name])
