"""Policy gradients without a value model: a reply is as good as it is better than others to the same prompt.

GRPO compares with the mean of the group (and may divide by its spread), RLOO with the mean of the others. The step is
that of `ppo.policy_loss`, where every token has the advantage of its reply and counts the same, whatever the length of
the reply. GRPO keeps to the reference by a penalty of its own, an estimate of the KL divergence that is never negative;
RLOO takes the divergence from the reward. Sources: GRPO, Shao and others, arXiv:2402.03300; RLOO, Ahmadian and others,
arXiv:2402.14740; equal tokens and a wider upper bound, Yu and others, arXiv:2503.14476; without the spread, Liu and
others, arXiv:2503.20783; the estimate, Schulman 2020.

Shapes: P prompts, G replies to each, N = P * G, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["group_advantages", "kl_estimate", "leave_one_out"]


def group_advantages(rewards_PG: Tensor, spread: bool = True) -> Tensor:
    """Rewards less the mean of their group, divided by its standard deviation where `spread`: [P, G]."""
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    return centred_PG / (rewards_PG.std(1, keepdim=True) + 1e-4) if spread else centred_PG


def leave_one_out(rewards_PG: Tensor) -> Tensor:
    """Rewards less the mean of the other replies of the group: [P, G]; G is 2 or more."""
    others = rewards_PG.shape[1] - 1
    return rewards_PG - (rewards_PG.sum(1, keepdim=True) - rewards_PG) / others


def kl_estimate(logp_NT: Tensor, logp_of_reference_NT: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = ln reference - ln policy: unbiased for tokens of the policy, never negative. [N, T]"""
    d_NT = logp_of_reference_NT - logp_NT
    return torch.expm1(d_NT) - d_NT
