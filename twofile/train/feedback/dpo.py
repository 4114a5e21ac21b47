"""Direct preference optimisation: the policy itself as a reward model, whose reward is beta ln(policy / reference).

Source: Rafailov and others, arXiv:2305.18290; doubt about the labels: Mitchell 2023 (conservative DPO).

Shapes: N pairs. Log-probabilities are sums over the tokens of a reply, in nats.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["dpo", "margins"]


def margins(
    chosen_N: Tensor, rejected_N: Tensor, chosen_of_reference_N: Tensor, rejected_of_reference_N: Tensor
) -> Tensor:
    """How much more the policy prefers the chosen replies than the reference does, [N], in nats."""
    return (chosen_N - chosen_of_reference_N) - (rejected_N - rejected_of_reference_N)


def dpo(margins_N: Tensor, beta: float, doubt: float = 0.0) -> Tensor:
    """The loss of each pair, [N]. `beta`: how much the reference holds. `doubt`: the share of labels that are wrong."""
    logits_N = beta * margins_N
    return -(1 - doubt) * F.logsigmoid(logits_N) - doubt * F.logsigmoid(-logits_N)
