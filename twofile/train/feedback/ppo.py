"""Proximal policy optimisation: how good each token was, and steps that do not leave the policy that said it.

A reply of T tokens is an episode: token t is an action, its reward the KL penalty of that token, and the last token's
also the reply's score. Sources: PPO, Schulman and others, arXiv:1707.06347; GAE, arXiv:1506.02438; the adaptive KL
coefficient, Ziegler and others, arXiv:1909.08593; for assistants, arXiv:2203.02155.

Shapes: N rows, T tokens. `mask_NT` is 1.0 for the tokens of the reply, which stand together, and 0.0 elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["adapt", "gae", "penalised", "policy_loss", "value_loss", "whitened"]


def penalised(scores_N: Tensor, logp_NT: Tensor, logp_of_reference_NT: Tensor, mask_NT: Tensor, kl: float) -> Tensor:
    """The reward of each token: -kl (ln policy - ln reference), and the score where the reply ends. [N, T]"""
    rewards_NT = -kl * (logp_NT - logp_of_reference_NT) * mask_NT
    last_N = mask_NT.shape[1] - 1 - mask_NT.flip(1).argmax(1)
    return rewards_NT.scatter_add(1, last_N[:, None], scores_N[:, None])


def gae(
    rewards_NT: Tensor, values_NT: Tensor, mask_NT: Tensor, discount: float = 1.0, smoothing: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns (what the values should have been), each [N, T], 0 outside the mask.

    `values_NT`: what was expected before each token; after the last one nothing is expected."""
    values_NT = values_NT * mask_NT
    advantages_NT = torch.zeros_like(values_NT)
    after_N = torch.zeros_like(values_NT[:, 0])
    value_after_N = torch.zeros_like(after_N)
    for t in reversed(range(values_NT.shape[1])):
        surprise_N = rewards_NT[:, t] + discount * value_after_N - values_NT[:, t]
        after_N = (surprise_N + discount * smoothing * after_N) * mask_NT[:, t]
        advantages_NT[:, t] = after_N
        value_after_N = values_NT[:, t]
    return advantages_NT, advantages_NT + values_NT


def whitened(x_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """With mean 0 and standard deviation 1 over what the mask holds; 0 elsewhere."""
    n = mask_NT.sum()
    mean = (x_NT * mask_NT).sum() / n
    variance = ((x_NT - mean).square() * mask_NT).sum() / n
    return (x_NT - mean) * torch.rsqrt(variance + 1e-8) * mask_NT


def policy_loss(logp_NT: Tensor, old_NT: Tensor, advantages_NT: Tensor, low: float = 0.2, high: float = 0.2) -> Tensor:
    """The clipped surrogate of each token, [N, T]: `old_NT` is ln p of the policy that said it; the ratio of the two
    gains nothing below 1 - `low` or above 1 + `high`."""
    ratio_NT = (logp_NT - old_NT).exp()
    return -torch.minimum(ratio_NT * advantages_NT, ratio_NT.clamp(1 - low, 1 + high) * advantages_NT)


def value_loss(values_NT: Tensor, old_NT: Tensor, returns_NT: Tensor, clip: float = 0.2) -> Tensor:
    """Half of the squared error of each token's value, [N, T], where values may move `clip` from the old ones."""
    near_NT = old_NT + (values_NT - old_NT).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_NT - returns_NT).square(), (near_NT - returns_NT).square())


def adapt(kl: float, seen: float, target: float, replies: int, horizon: float = 10_000.0) -> float:
    """The next KL coefficient, where a batch of `replies` showed `seen` nats a reply in place of `target`."""
    error = min(0.2, max(-0.2, seen / target - 1))
    return kl * (1 + error * replies / horizon)
