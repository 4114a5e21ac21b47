"""Best of n: the control of every method that optimises a reward. Draw n replies, keep the one of the largest reward.

From N replies to a prompt the expected gold reward of the best of n is computed exactly, over all choices of n among
the N, for every n at once. How far best-of-n is from the policy needs no measuring: KL = ln n - (n - 1) / n, an upper
bound that is close for replies that differ. Sources: Stiennon and others, arXiv:2009.01325; the estimator, Nakano and
others, arXiv:2112.09332, appendix I; the bound, Beirami and others, arXiv:2401.01879.

Shapes: P prompts, N replies to each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_of", "curve", "divergence"]


def divergence(n: int) -> float:
    """The KL divergence of best-of-n from the policy it draws from, in nats a reply."""
    return math.log(n) - (n - 1) / n


def best_of(rewards_PN: NDArray[np.float64], gold_PN: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Of each prompt the expected gold reward of the reply with the largest reward among n of its N, [P]. ValueError
    where n is more than N."""
    N = rewards_PN.shape[1]
    if not 1 <= n <= N:
        raise ValueError(f"the best of {n} cannot be told from {N}")
    # the reply of rank i from below is the best where the other n - 1 are among the i below it
    ways = [math.comb(i, n - 1) for i in range(N)]
    chance_N = np.array([count / math.comb(N, n) for count in ways])
    order_PN = np.argsort(rewards_PN, axis=1, kind="stable")
    best_P: NDArray[np.float64] = (np.take_along_axis(gold_PN, order_PN, axis=1) * chance_N).sum(axis=1)
    return best_P


def curve(
    rewards_PN: NDArray[np.float64], gold_PN: NDArray[np.float64], numbers: Sequence[int]
) -> list[tuple[float, float]]:
    """(divergence, mean gold reward) for each n."""
    return [(divergence(n), float(best_of(rewards_PN, gold_PN, n).mean())) for n in numbers]
