"""How far labellers agree: Krippendorff's alpha for nominal labels, 1 for always, 0 for no more than chance.

alpha = 1 - observed / expected disagreement, over all pairs of labels of the same item; items with one label say
nothing. Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["alpha"]


def alpha(items: Iterable[Sequence[str]]) -> float | None:
    """Of the labels of each item. None where no item has two, or all labels are one and the same."""
    weights: Counter[str] = Counter()
    total = 0
    disagreement = 0.0
    for labels in items:
        m = len(labels)
        if m < 2:
            continue
        counts = Counter(labels)
        weights.update(counts)
        total += m
        same = sum(n * (n - 1) for n in counts.values())
        disagreement += (m * (m - 1) - same) / (m - 1)
    if total < 2:
        return None
    expected = (total * total - sum(n * n for n in weights.values())) / (total - 1)
    return 1 - disagreement / expected if expected else None
