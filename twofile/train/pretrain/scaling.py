"""Scaling law: the loss of a run from its parameters N and tokens D, L = E + A / N^alpha + B / D^beta, fitted to runs.

The fit minimises the Huber loss (delta 1e-3) of log L from many starts, as "approach 3" of arXiv:2203.15556 (eq. 10),
by Levenberg-Marquardt on all starts at once, in NumPy. Intervals come from a bootstrap: residuals drawn anew, the law
fitted again; of the constants, and (with the scatter of a run about the law) of what one more run will reach.
Guarantee: the same points give the same numbers. Cost: about a second. Six points are the fewest; sizes and token
counts must vary apart from one another, or the two exponents cannot be told apart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twofile.errors import TrainError

__all__ = ["Fit", "Law", "Prediction", "fit"]

Floats = NDArray[np.float64]

DELTA = 1e-3
FEWEST = 6  # points: one more than there are constants
_STEPS = 300
_EXPONENTS = (0.05, 2.0)


@dataclass(frozen=True)
class Law:
    """L = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """What runs of these sizes reach."""
        n, d = np.asarray(params, np.float64), np.asarray(tokens, np.float64)
        return np.asarray(self.E + self.A / n**self.alpha + self.B / d**self.beta)


@dataclass(frozen=True)
class Prediction:
    """What a run will reach, and between which values it will lie (95%)."""

    predicted: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """A law and how sure it is. `replicas`: the laws of the bootstrap."""

    law: Law
    replicas: tuple[Law, ...]
    residuals: Floats  # log L of each point less the law's, widened for the five constants that were fitted

    @property
    def scatter(self) -> float:
        """Standard deviation of log L of a run about the law."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    def interval(self, constant: str) -> tuple[float, float]:
        """The 95% interval of a constant, by its name."""
        low, high = np.percentile([getattr(law, constant) for law in self.replicas], [2.5, 97.5])
        return float(low), float(high)

    def predict(self, params: float, tokens: float, seed: int = 0) -> Prediction:
        """What one more run of this size will reach."""
        chance = np.random.default_rng(seed)
        drawn = np.array([float(law.loss(params, tokens)) for law in self.replicas])
        drawn *= np.exp(_signed(self.residuals, (len(drawn),), chance))
        low, high = np.percentile(drawn, [2.5, 97.5])
        middle = float(self.law.loss(params, tokens))
        return Prediction(middle, min(middle, float(low)), max(middle, float(high)))

    def to_json(self) -> dict[str, Any]:
        """The constants and their intervals."""
        names = ("E", "A", "alpha", "B", "beta")
        constants = {name: {"value": getattr(self.law, name), "interval": list(self.interval(name))} for name in names}
        return constants | {"scatter": self.scatter, "replicas": len(self.replicas)}


def _signed(residuals: Floats, shape: tuple[int, ...], chance: np.random.Generator) -> Floats:
    """Residuals drawn anew, with either sign: what scatters up scatters down."""
    drawn: Floats = chance.choice(residuals, shape) * chance.choice([-1.0, 1.0], shape)
    return drawn


def fit(params: ArrayLike, tokens: ArrayLike, loss: ArrayLike, *, replicas: int = 500, seed: int = 0) -> Fit:
    """Fit the law to runs, [n] each. TrainError with fewer than six, or where sizes or lengths are all the same."""
    n, d, reached = (np.asarray(values, np.float64) for values in (params, tokens, loss))
    if len(reached) < FEWEST:
        hint = "add sizes or ratios to the ladder"
        raise TrainError(f"{len(reached)} runs cannot say what five constants are; {FEWEST} are the fewest", hint)
    if len(np.unique(n)) < 2 or len(np.unique(d)) < 2:
        raise TrainError("the runs are all of one size or of one length", "add sizes or ratios to the ladder")
    x, y, target = np.log(n), np.log(d), np.log(reached)
    starts = _starts(x, y, reached)
    theta, cost = _descend(starts, x, y, np.broadcast_to(target, (len(starts), len(target))))
    best = theta[np.argmin(cost)]
    expected = _expected(best[None], x, y)[0][0]
    residuals = (target - expected) * np.sqrt(len(target) / (len(target) - 5))
    chance = np.random.default_rng(seed)
    drawn = expected + _signed(residuals, (replicas, len(target)), chance)
    again, _ = _descend(np.broadcast_to(best, (replicas, 5)).copy(), x, y, drawn)
    return Fit(_law(best), tuple(_law(row) for row in again), residuals)


def _law(theta: Floats) -> Law:
    a, b, e, alpha, beta = (float(value) for value in theta)
    return Law(
        E=float(np.exp(e)), A=float(np.exp(a)), alpha=float(np.exp(alpha)), B=float(np.exp(b)), beta=float(np.exp(beta))
    )


def _starts(x: Floats, y: Floats, reached: Floats) -> Floats:
    """[k, 5]: exponents from a grid; of the lowest loss a part is E, and half of the rest due to each of the others."""
    exponents, rows = (0.2, 0.35, 0.6, 1.0), []
    for alpha, beta, part in itertools.product(exponents, exponents, (0.1, 0.4, 0.7, 0.9)):
        E = part * reached.min()
        half = np.log((reached.mean() - E) / 2)
        rows.append((half + alpha * x.mean(), half + beta * y.mean(), np.log(E), np.log(alpha), np.log(beta)))
    return np.array(rows)


def _expected(theta: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """log L [k, n] of laws (log A, log B, log E, log alpha, log beta) [k, 5], and its derivatives [k, n, 5]."""
    a, b, e, log_alpha, log_beta = (theta[:, i, None] for i in range(5))
    alpha, beta = np.exp(log_alpha), np.exp(log_beta)
    parts = np.stack(np.broadcast_arrays(a - alpha * x, b - beta * y, e + 0 * x), axis=-1)
    top = parts.max(-1, keepdims=True)
    weights = np.exp(parts - top)
    total = weights.sum(-1, keepdims=True)
    weights /= total
    of_n, of_d, of_e = weights[..., 0], weights[..., 1], weights[..., 2]
    slopes = np.stack([of_n, of_d, of_e, -of_n * alpha * x, -of_d * beta * y], axis=-1)
    return (top + np.log(total))[..., 0], slopes


def _huber(residual: Floats) -> Floats:
    size = np.abs(residual)
    return np.asarray(np.where(size < DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA)).sum(-1))


def _descend(theta: Floats, x: Floats, y: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Levenberg-Marquardt with Huber's weights from each start [k, 5] to its target [k, n]; the ends and their costs.

    A step that does not lower the cost is not taken, and the next is shorter."""
    damping = np.full(len(theta), 1e-2)
    expected, slopes = _expected(theta, x, y)
    cost = _huber(expected - target)
    lowest, highest = np.log(_EXPONENTS)
    for _ in range(_STEPS):
        residual = expected - target
        weights = 1 / np.maximum(1.0, np.abs(residual) / DELTA)
        weighted = slopes * weights[..., None]
        normal = np.einsum("kni,knj->kij", weighted, slopes)
        gradient = np.einsum("kni,kn->ki", weighted, residual)
        ridge = np.einsum("kii->ki", normal) * damping[:, None] + 1e-12
        step = np.linalg.solve(normal + ridge[:, :, None] * np.eye(5), gradient[..., None])[..., 0]
        tried = theta - np.clip(step, -2, 2)
        tried[:, 3:] = np.clip(tried[:, 3:], lowest, highest)
        tried[:, 2] = np.clip(tried[:, 2], target.min(-1) - 8, target.min(-1))
        new_expected, new_slopes = _expected(tried, x, y)
        new_cost = _huber(new_expected - target)
        better = new_cost < cost
        theta = np.where(better[:, None], tried, theta)
        expected = np.where(better[:, None], new_expected, expected)
        slopes = np.where(better[:, None, None], new_slopes, slopes)
        cost = np.where(better, new_cost, cost)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-9, 1e9)
    return theta, cost
