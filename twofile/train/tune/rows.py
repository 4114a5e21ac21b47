"""Examples packed into rows of one length, without cutting one: what a step of tuning learns from.

Each epoch puts the examples in an order drawn from the seed, and each into the first of a few open rows with room for
it. Guarantee: a batch is a function of the examples, the seed and the step, so a run can be resumed. Cost: a packing of
the lengths an epoch; some per cent of a row is padding, which nothing learns from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from twofile.errors import TrainError
from twofile.train.batch import Batch
from twofile.train.tune.examples import Example

__all__ = ["Rows"]

_OPEN = 64  # rows that are filled at once


class Rows:
    """Rows of `context` + 1 tokens, `batch` of them a step. An example is `context` + 1 tokens at the most.

    A batch has `tokens_BT` [batch, context + 1]; `documents_BT`, which example each token is of, the same; and
    `weights_BT` [batch, context], 1.0 where the next token is supervised."""

    def __init__(self, examples: Sequence[Example], context: int, batch: int, seed: int) -> None:
        if not examples:
            raise TrainError("there is nothing to learn from", "give conversations in which the assistant speaks")
        self.examples, self.context, self.size, self.seed = examples, context, batch, seed
        self._packed: dict[int, list[list[int]]] = {}
        self._starts = [0]  # the number of the first row of each epoch

    @property
    def steps(self) -> int:
        """Batches of the first epoch; the last is filled up from the next one."""
        return -(-len(self._epoch(0)) // self.size)

    def batch(self, step: int) -> Batch:
        """The rows of a step."""
        rows = [self._row(row) for row in range(step * self.size, (step + 1) * self.size)]
        shape = (len(rows), self.context + 1)
        tokens, documents = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        weights = np.zeros((len(rows), self.context), np.float32)
        for i, row in enumerate(rows):
            at = 0
            for number, index in enumerate(row, 1):
                example = self.examples[index]
                end = at + len(example.ids)
                tokens[i, at:end], documents[i, at:end] = example.ids, number
                weights[i, at : end - 1] = example.supervised[1:]
                at = end
        parts = {"tokens_BT": tokens, "documents_BT": documents, "weights_BT": weights}
        return Batch({name: torch.from_numpy(held) for name, held in parts.items()})

    def _row(self, row: int) -> list[int]:
        while row >= self._starts[-1]:
            self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._epoch(epoch)[row - self._starts[epoch]]

    def _epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._packed:
            if len(self._packed) > 2:
                self._packed.clear()
            self._packed[epoch] = self._pack(np.random.default_rng((self.seed, epoch)))
        return self._packed[epoch]

    def _pack(self, random: np.random.Generator) -> list[list[int]]:
        whole: list[list[int]] = []
        held: list[tuple[int, list[int]]] = []  # (room, examples) of the rows that are open
        for index in random.permutation(len(self.examples)).tolist():
            size = len(self.examples[index].ids)
            place = next((i for i, (room, _) in enumerate(held) if room >= size), None)
            if place is None:
                if len(held) == _OPEN:
                    whole.append(held.pop(0)[1])
                held.append((self.context + 1 - size, [index]))
            else:
                room, row = held[place]
                held[place] = (room - size, [*row, index])
        rows = [*whole, *(row for _, row in held)]
        return [rows[i] for i in random.permutation(len(rows))]
