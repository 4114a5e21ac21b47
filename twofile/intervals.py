"""Intervals for shares and means: how far the true one may be from that of a sample, at 95%."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Share", "difference", "mean", "paired", "wilson"]

_Z = 1.959963984540054  # 97.5% of a normal distribution lie below


class Share(NamedTuple):
    """A share of a sample, or a difference of two, and its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(count: float, n: int) -> Share:
    """`count` of `n` independent trials (Wilson 1927), where a tie may count half. ValueError where there are none."""
    if not 0 <= count <= n or n == 0:
        raise ValueError(f"{count} of {n} is no share")
    p, z2 = count / n, _Z * _Z
    middle, half = (p + z2 / (2 * n)) / (1 + z2 / n), _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Share(p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))


def difference(one: Share, other: Share) -> Share:
    """One share less another, of independent samples, from their Wilson intervals (Newcombe 1998, method 10)."""
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Share(value, value - below, value + above)


def mean(values: Sequence[float]) -> Share:
    """The mean of independent values, and its normal interval (nan for fewer than two). ValueError for none."""
    middle = statistics.fmean(values)
    half = _Z * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Share(middle, middle - half, middle + half)


def paired(differences: Sequence[float]) -> Share:
    """The mean of differences of pairs, and its interval. Of outcomes that are right or wrong the differences are -1, 0
    and 1, and the interval is Agresti and Min's (2005), which does not vanish where all pairs agree; of others it is
    the normal one. ValueError for none."""
    n = len(differences)
    if not n:
        raise ValueError("there are no pairs")
    if not set(differences) <= {-1.0, 0.0, 1.0}:
        return mean(differences)
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    b, c, m = better + 0.5, worse + 0.5, n + 2
    middle, half = (b - c) / m, _Z * math.sqrt(b + c - (b - c) ** 2 / m) / m
    value = (better - worse) / n
    return Share(value, min(value, max(-1.0, middle - half)), max(value, min(1.0, middle + half)))
