"""Pairs as tokens, and the batches of them that a reward model and DPO learn from.

The prompt stands before both replies as the model's chat template writes it, and of both the last reply alone counts.
A pair of which either side is longer than the context is left out, and so is what is no pair; both are counted.
Guarantee: a batch is a function of the pairs, the seed and the step. Cost: rows are padded to the longest of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from twofile.engine.template import ChatTemplate
from twofile.errors import TrainError
from twofile.train.batch import Batch
from twofile.train.feedback.pairs import Pair
from twofile.train.tune.examples import Example, reply

__all__ = ["Comparison", "Comparisons", "PairCounts", "batch_of", "both", "comparisons"]

_MULTIPLE = 32  # lengths of rows, so that there are few shapes


@dataclass(frozen=True)
class Comparison:
    """The tokens of both conversations; supervised are those of the two replies."""

    chosen: Example
    rejected: Example


@dataclass
class PairCounts:
    """What became of the pairs."""

    rows: int = 0
    pairs: int = 0
    undecided: int = 0  # rows left out: a tie, or conversations that part before their last message
    too_long: int = 0  # left out: longer than the context

    def __str__(self) -> str:
        left = f"{self.undecided:,} without a preference and {self.too_long:,} too long left out"
        return f"{self.rows:,} comparisons, {self.pairs:,} pairs to learn from; {left}"


def comparisons(
    pairs: Iterable[Pair | None], template: ChatTemplate, longest: int, counts: PairCounts | None = None
) -> list[Comparison]:
    """All pairs of at most `longest` tokens a side. TrainError for one that the template cannot render."""
    counts = PairCounts() if counts is None else counts
    found = []
    for one in pairs:
        counts.rows += 1
        if one is None:
            counts.undecided += 1
            continue
        sides = [reply(one.messages, message, one.tools, template) for message in (one.chosen, one.rejected)]
        if max(len(side.ids) for side in sides) > longest:
            counts.too_long += 1
        else:
            counts.pairs += 1
            found.append(Comparison(*sides))
    return found


def batch_of(rows: Sequence[Example]) -> Batch:
    """Rows padded to one length: `tokens_BT` [B, T + 1]; `weights_BT` [B, T], 1.0 where the reply comes next."""
    longest = max(len(row.ids) for row in rows) - 1
    T = -(-longest // _MULTIPLE) * _MULTIPLE
    tokens_BT = np.zeros((len(rows), T + 1), np.int64)
    weights_BT = np.zeros((len(rows), T), np.float32)
    for i, row in enumerate(rows):
        tokens_BT[i, : len(row.ids)] = row.ids
        weights_BT[i, : len(row.ids) - 1] = row.supervised[1:]
    return Batch(tokens_BT=torch.from_numpy(tokens_BT), weights_BT=torch.from_numpy(weights_BT))


class Comparisons:
    """Batches of `batch` pairs in micro-batches of `micro`, whose rows are the chosen sides and then the rejected."""

    def __init__(self, pairs: Sequence[Comparison], batch: int, micro: int, seed: int) -> None:
        if not pairs:
            raise TrainError("there are no pairs to learn from", "give pairs of replies that fit into the context")
        self.pairs, self.size, self.micro, self.seed = pairs, batch, micro, seed
        self._orders: dict[int, list[int]] = {}

    @property
    def micros(self) -> int:
        """Micro-batches of a step."""
        return self.size // self.micro

    @property
    def steps(self) -> int:
        """Batches of an epoch; the last is filled up from the next one."""
        return -(-len(self.pairs) // self.size)

    def batch(self, step: int, rank: int = 0, size: int = 1) -> list[Batch]:
        """The micro-batches of a step, of which every `size`-th from `rank` on."""
        mine = [self._pair(i) for i in range(step * self.size, (step + 1) * self.size)]
        parts = [mine[i : i + self.micro] for i in range(0, self.size, self.micro)]
        return [batch_of(both(part)) for part in parts[rank::size]]

    def tokens(self, step: int) -> int:
        """Tokens of the replies of a step."""
        mine = [self._pair(i) for i in range(step * self.size, (step + 1) * self.size)]
        return int(sum(side.supervised.sum() for side in both(mine)))

    def _pair(self, number: int) -> Comparison:
        epoch, place = divmod(number, len(self.pairs))
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.clear()
            self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs)).tolist()
        return self.pairs[self._orders[epoch][place]]


def both(pairs: Sequence[Comparison]) -> list[Example]:
    """The chosen sides, then the rejected."""
    return [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
