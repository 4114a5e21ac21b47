"""The Bradley-Terry model: how likely it is that one reply is preferred to another, from a number for each.

p(chosen beats rejected) = sigmoid(r_chosen - r_rejected), which leaves open where zero is: a small penalty on the sum
of the two keeps rewards centred. Sources: Bradley and Terry 1952; as a loss for reward models: Ouyang and others,
arXiv:2203.02155; the centring: Eisenstein and others, arXiv:2312.09244.

Shapes: N pairs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["bradley_terry"]


def bradley_terry(chosen_N: Tensor, rejected_N: Tensor, centre: float = 0.01) -> Tensor:
    """-ln p of each human choice, plus `centre` times the square of the two rewards' sum: [N], in nats."""
    return -F.logsigmoid(chosen_N - rejected_N) + centre * (chosen_N + rejected_N).square()
