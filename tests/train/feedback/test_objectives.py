"""Each objective against an example worked out by hand, and against a numerical gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from twofile.train.feedback.bradley_terry import bradley_terry
from twofile.train.feedback.dpo import dpo, margins
from twofile.train.feedback.grpo import group_advantages, kl_estimate, leave_one_out
from twofile.train.feedback.ppo import adapt, gae, penalised, policy_loss, value_loss, whitened


def double(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def soft(x: float) -> float:
    """-ln sigmoid(x)."""
    return math.log1p(math.exp(-x))


def test_bradley_terry() -> None:
    found = bradley_terry(double(1.0, -0.5), double(0.0, 0.5), centre=0.01)
    assert found.tolist() == pytest.approx([soft(1.0) + 0.01, soft(-1.0)])


def test_dpo() -> None:
    margin_N = margins(double(-10.0), double(-12.0), double(-11.0), double(-11.5))
    assert margin_N.tolist() == pytest.approx([1.5])  # +1 for the chosen, -0.5 for the rejected
    assert dpo(margin_N, beta=0.2).tolist() == pytest.approx([soft(0.3)])
    assert dpo(margin_N, beta=0.2, doubt=0.1).tolist() == pytest.approx([0.9 * soft(0.3) + 0.1 * soft(-0.3)])
    assert dpo(double(0.0), beta=5.0).item() == pytest.approx(math.log(2))


def test_the_score_comes_at_the_end_of_a_reply() -> None:
    mask_NT = double([0, 1, 1, 0], [1, 1, 1, 1])
    logp_NT, reference_NT = double([9, -1, -2, 9], [-1, -1, -1, -1]), double([0, -2, -2, 0], [-1, -1, -1, -1.5])
    found = penalised(double(5.0, 7.0), logp_NT, reference_NT, mask_NT, kl=0.1)
    assert found.tolist() == [pytest.approx([0, -0.1, 5.0, 0]), pytest.approx([0, 0, 0, 7 - 0.05])]


def test_advantages_worked_out() -> None:
    rewards_NT, values_NT = double([0.0, 0.0, 1.0, 0.0]), double([9.0, 0.5, 0.2, 9.0])
    mask_NT = double([0, 1, 1, 0])
    # the reply stands at 1 and 2: delta_2 = 1 - 0.2 = 0.8, delta_1 = 0 + 0.9 * 0.2 - 0.5 = -0.32
    advantages_NT, returns_NT = gae(rewards_NT, values_NT, mask_NT, discount=0.9, smoothing=0.5)
    assert advantages_NT.tolist() == [pytest.approx([0, -0.32 + 0.45 * 0.8, 0.8, 0])]
    assert returns_NT.tolist() == [pytest.approx([0, 0.5 - 0.32 + 0.36, 1.0, 0])]


def test_whitened() -> None:
    mask_NT = double([1, 1, 0], [1, 1, 0])
    found = whitened(double([1.0, 2.0, 50.0], [3.0, 4.0, -50.0]), mask_NT)
    assert found[:, 2].tolist() == [0, 0]
    assert found[:, :2].mean().item() == pytest.approx(0)
    assert found[:, :2].square().mean().item() == pytest.approx(1)


def test_policy_loss_gains_nothing_beyond_the_bounds() -> None:
    old_NT, log = double([0.0, 0.0, 0.0, 0.0]), math.log
    logp_NT = double([log(1.5), log(1.5), log(0.5), log(0.5)])
    advantages_NT = double([1.0, -1.0, 1.0, -1.0])
    found = policy_loss(logp_NT, old_NT, advantages_NT, low=0.2, high=0.3)
    assert found.tolist() == [pytest.approx([-1.3, 1.5, -0.5, 0.8])]


def test_value_loss() -> None:
    found = value_loss(double([1.0, 0.3]), double([0.0, 0.2]), double([2.0, 0.0]), clip=0.2)
    assert found.tolist() == [pytest.approx([0.5 * 1.8**2, 0.5 * 0.3**2])]  # clipped to 0.2, and not


def test_the_coefficient_follows_the_target() -> None:
    assert adapt(0.1, seen=6.6, target=6.0, replies=100, horizon=1000) == pytest.approx(0.1 * 1.01)
    assert adapt(0.1, seen=60.0, target=6.0, replies=100, horizon=1000) == pytest.approx(0.1 * 1.02)
    assert adapt(0.1, seen=0.0, target=6.0, replies=100, horizon=1000) == pytest.approx(0.1 * 0.98)


def test_groups() -> None:
    rewards_PG = double([1.0, 2.0, 6.0], [5.0, 5.0, 5.0])
    assert group_advantages(rewards_PG, spread=False).tolist() == [[-2, -1, 3], [0, 0, 0]]
    deviation = math.sqrt((4 + 1 + 9) / 2)
    assert group_advantages(rewards_PG)[0].tolist() == pytest.approx([x / (deviation + 1e-4) for x in (-2, -1, 3)])
    assert leave_one_out(rewards_PG).tolist() == [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]]


def test_kl_estimate_is_unbiased_and_never_negative() -> None:
    policy_V, reference_V = double(0.5, 0.3, 0.2), double(0.2, 0.3, 0.5)
    found_V = kl_estimate(policy_V.log(), reference_V.log())
    assert (found_V >= 0).all()
    kl = (policy_V * (policy_V / reference_V).log()).sum()
    assert (policy_V * found_V).sum().item() == pytest.approx(kl.item())


OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "bradley_terry": lambda x: bradley_terry(x[0], x[1], 0.05),
    "dpo": lambda x: dpo(margins(x[0], x[1], x[0].detach() + 0.3, x[1].detach()), 0.3, 0.1),
    "policy_loss": lambda x: policy_loss(x, x.detach() - 0.1, torch.ones_like(x)),
    "value_loss": lambda x: value_loss(x, x.detach() + 0.1, torch.ones_like(x)),
    "kl_estimate": lambda x: kl_estimate(x, x.detach() + 0.4),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients(name: str) -> None:
    """Finite differences of the formula with what it holds fixed (old, reference) truly fixed."""
    torch.manual_seed(3)
    x = torch.randn(2, 5, dtype=torch.float64)
    fixed = {
        "dpo": lambda y: dpo(margins(y[0], y[1], x[0] + 0.3, x[1]), 0.3, 0.1),
        "policy_loss": lambda y: policy_loss(y, x - 0.1, torch.ones_like(x)),
        "value_loss": lambda y: value_loss(y, x + 0.1, torch.ones_like(x)),
        "kl_estimate": lambda y: kl_estimate(y, x + 0.4),
    }.get(name, OBJECTIVES[name])
    assert torch.autograd.gradcheck(fixed, x.clone().requires_grad_(True))
    if name in ("policy_loss", "value_loss"):  # the clipped branches, too: far from what was, on both sides
        for apart, sign in itertools.product((-0.7, -0.1, 0.1, 0.5), (-1.0, 1.0)):
            whole = sign * torch.ones_like(x)
            clipped = {
                "policy_loss": lambda y, apart=apart, whole=whole: policy_loss(y, x + apart, whole),
                "value_loss": lambda y, apart=apart, whole=whole: value_loss(y, x + apart, x + whole),
            }[name]
            assert torch.autograd.gradcheck(clipped, x.clone().requires_grad_(True))
    by_hand = torch.autograd.grad(fixed(y := x.clone().requires_grad_(True)).sum(), y)[0]
    of_stage = torch.autograd.grad(OBJECTIVES[name](z := x.clone().requires_grad_(True)).sum(), z)[0]
    assert torch.allclose(by_hand, of_stage)
