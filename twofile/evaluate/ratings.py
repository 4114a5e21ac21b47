"""Who is better than whom, from comparisons: Bradley-Terry ratings with intervals.

p(a beats b) = 1 / (1 + 10^((rating_b - rating_a) / 400)), so that 400 points are odds of ten to one, as in chess; the
mean of all ratings is 1000. A tie is half a win for each. Every player also has one tie with an average player, so that
who never lost has a finite rating. Fitted by Newton's method; an interval is the wider of two, a bootstrap over rounds,
because comparisons of one round (one prompt) are not independent, and the likelihood's curvature, which does not vanish
where every round ends alike. Sources: Bradley and Terry 1952; for models: Chiang and others, arXiv:2403.04132.

Shapes: K players, C comparisons, R rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Rating", "ratings"]

_STEPS, _NEAR, _LARGEST = 100, 1e-10, 2.0
_POINTS = 400 / math.log(10)
_RESAMPLES = 500


@dataclass(frozen=True)
class Comparison:
    """Two players met in a round. `score`: 1.0 the first was better, 0.0 the second, 0.5 neither."""

    round: str
    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Rating:
    """A player's rating and its 95% interval; `wins` counts a tie as half of one."""

    name: str
    rating: float
    low: float
    high: float
    wins: float
    comparisons: int


def ratings(comparisons: Iterable[Comparison], seed: int = 0) -> list[Rating]:
    """Of all players, the best first. Empty where nobody met."""
    met = list(comparisons)
    names = sorted({name for one in met for name in (one.first, one.second)})
    if not names:
        return []
    place = {name: k for k, name in enumerate(names)}
    rounds = {name: r for r, name in enumerate(dict.fromkeys(one.round for one in met))}
    first_C = np.array([place[one.first] for one in met])
    second_C = np.array([place[one.second] for one in met])
    score_C, round_C = np.array([one.score for one in met]), np.array([rounds[one.round] for one in met])

    def fitted(weight_C: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        wins_KK = np.zeros((len(names), len(names)))
        np.add.at(wins_KK, (first_C, second_C), weight_C * score_C)
        np.add.at(wins_KK, (second_C, first_C), weight_C * (1 - score_C))
        return _fit(wins_KK)

    whole_K, error_K = fitted(np.ones(len(met)))
    draw = np.random.default_rng(seed)
    again = [
        fitted(np.bincount(draw.integers(len(rounds), size=len(rounds)), minlength=len(rounds))[round_C].astype(float))[
            0
        ]
        for _ in range(_RESAMPLES)
    ]
    low_K, high_K = np.quantile(again, (0.025, 0.975), axis=0)
    low_K, high_K = np.minimum(low_K, whole_K - 1.96 * error_K), np.maximum(high_K, whole_K + 1.96 * error_K)
    wins_K, count_K = np.zeros(len(names)), np.zeros(len(names), int)
    for at_C, won_C in ((first_C, score_C), (second_C, 1 - score_C)):
        np.add.at(wins_K, at_C, won_C)
        np.add.at(count_K, at_C, 1)
    found = [
        Rating(name, float(whole_K[k]), float(low_K[k]), float(high_K[k]), float(wins_K[k]), int(count_K[k]))
        for k, name in enumerate(names)
    ]
    return sorted(found, key=lambda one: -one.rating)


def _fit(wins_KK: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ratings of the largest likelihood, and their standard errors. `wins_KK[a, b]`: how often a was better than b."""
    met_KK = wins_KK + wins_KK.T
    won_K = wins_KK.sum(axis=1) + 0.5  # a tie with an average player
    log_K = np.zeros(len(wins_KK))
    for _ in range(_STEPS):
        p_KK = 1 / (1 + np.exp(log_K[None, :] - log_K[:, None]))
        p_K = 1 / (1 + np.exp(-log_K))
        rest_K = won_K - (met_KK * p_KK).sum(axis=1) - p_K
        bend_KK = -met_KK * p_KK * p_KK.T
        bend_KK += np.diag(p_K * (1 - p_K) - bend_KK.sum(axis=1))
        step_K = np.linalg.solve(bend_KK, rest_K)
        log_K = log_K + step_K * min(1.0, _LARGEST / max(_NEAR, float(np.abs(step_K).max())))
        if float(np.abs(step_K).max()) < _NEAR:
            break
    centre_KK = np.eye(len(log_K)) - 1 / len(log_K)
    spread_KK = centre_KK @ np.linalg.inv(bend_KK) @ centre_KK
    error_K: NDArray[np.float64] = _POINTS * np.sqrt(np.maximum(0.0, np.diag(spread_KK)))
    points_K: NDArray[np.float64] = 1000 + _POINTS * (log_K - log_K.mean())
    return points_K, error_K


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Everybody against everybody else, once."""
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
