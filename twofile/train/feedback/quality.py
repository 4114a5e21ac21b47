"""How good a reward model is, on pairs that it has not learned from: accuracy, calibration, and a liking for length.

Cost: a pass over both sides of each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofile.intervals import Share, wilson
from twofile.train.feedback.comparisons import Comparison
from twofile.train.feedback.heads import RewardModel
from twofile.train.feedback.reward import scores

__all__ = ["Bin", "Quality", "judged", "quality"]

_BINS = 5


@dataclass(frozen=True)
class Bin:
    """Pairs of which the model says about the same: how likely it is, and how often it was so."""

    said: float
    true: Share
    n: int


@dataclass(frozen=True)
class Quality:
    """`accuracy`: how often the chosen reply has the larger reward; `longer`: how often it is the longer of the two,
    and so how good a judge by length alone would be (among pairs of unequal length). `calibration`: by the confidence
    in the model's own choice, from 0.5 to 1. `length_correlation`: of reward and length, over all replies."""

    n: int
    accuracy: Share
    longer: Share | None
    calibration: tuple[Bin, ...]
    calibration_error: float  # mean distance of what was said and what was true, weighed by pairs
    length_correlation: float

    def __str__(self) -> str:
        longer = f"; the longer reply is the chosen one in {self.longer}" if self.longer else ""
        bins = ", ".join(f"{one.said:.2f} said {one.true.value:.2f} true (n = {one.n})" for one in self.calibration)
        return (
            f"accuracy {self.accuracy}, n = {self.n}{longer}; reward and length correlate by "
            f"{self.length_correlation:+.2f}; "
            f"calibration error {self.calibration_error:.3f} ({bins})"
        )


def quality(model: RewardModel, pairs: Sequence[Comparison]) -> Quality:
    """Measure on held-out pairs, of which there must be one at least."""
    chosen_N = scores(model, [pair.chosen for pair in pairs]).double().numpy()
    rejected_N = scores(model, [pair.rejected for pair in pairs]).double().numpy()
    lengths = [(int(pair.chosen.supervised.sum()), int(pair.rejected.supervised.sum())) for pair in pairs]
    return judged(chosen_N, rejected_N, np.array(lengths))


def judged(chosen_N: NDArray[np.float64], rejected_N: NDArray[np.float64], lengths_N2: NDArray[np.int64]) -> Quality:
    """The figures, from the rewards of each pair and the lengths of both replies. A tie is half a hit."""
    margin_N = chosen_N - rejected_N
    right_N = (margin_N > 0) + 0.5 * (margin_N == 0)
    said_N = 1 / (1 + np.exp(-np.abs(margin_N)))
    bins: list[Bin] = []
    error = 0.0
    place_N = np.minimum((said_N - 0.5) * 2 * _BINS, _BINS - 1).astype(int)
    for place in range(_BINS):
        held = place_N == place
        if n := int(held.sum()):
            said, true = float(said_N[held].mean()), wilson(float(right_N[held].sum()), n)
            bins.append(Bin(said, true, n))
            error += abs(said - true.value) * n / len(margin_N)
    unequal = lengths_N2[:, 0] != lengths_N2[:, 1]
    longer = lengths_N2[unequal, 0] > lengths_N2[unequal, 1]
    rewards = np.concatenate((chosen_N, rejected_N))
    sizes = np.concatenate((lengths_N2[:, 0], lengths_N2[:, 1])).astype(np.float64)
    varied = rewards.std() > 0 and sizes.std() > 0
    return Quality(
        n=len(margin_N),
        accuracy=wilson(float(right_N.sum()), len(margin_N)),
        longer=wilson(int(longer.sum()), len(longer)) if len(longer) else None,
        calibration=tuple(bins),
        calibration_error=error,
        length_correlation=float(np.corrcoef(rewards, sizes)[0, 1]) if varied else 0.0,
    )
