"""Pretraining: predict the next token of documents. A recipe (TOML) in, a trained model in a run folder out.

The run folder holds `vocabulary.json`, `corpus.json` (what was packed, with hashes), `train.npy`, `valid/<source>.npy`,
`log.jsonl` and `checkpoints/`. Each part is made once: a second call finds what is there and goes on. Cost: disk for 2
bytes a token; time for about 6 * parameters * tokens floating-point operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from twofile.params.vocabulary import Vocabulary
from twofile.train import checkpoint
from twofile.train.dream import dream
from twofile.train.loop import Result, train
from twofile.train.model import Transformer, operations
from twofile.train.parallel import World
from twofile.train.peak import matrix_peak
from twofile.train.pretrain import tokens
from twofile.train.pretrain.prepare import load_vocabulary, prepare
from twofile.train.pretrain.recipe import Recipe

__all__ = ["Pretraining", "pretrain"]


class Pretraining:
    """The stage: rows of the packed file, mean cross-entropy in nats; bits per byte of each source's held-out text."""

    name = "pretrain"

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, run: Path, valid_rows: int = 32) -> None:
        context = recipe.hyper.context_length
        self.recipe, self.vocabulary, self.world = recipe, vocabulary, World.here()
        self.micros = recipe.batch // recipe.micro
        self.separator = vocabulary.bos if recipe.within_documents else None
        self.rows = tokens.Rows(run / "train.npy", context, recipe.seed)
        self.valid: dict[str, Tensor] = {}
        for source in recipe.sources:
            path = run / "valid" / f"{source.name}.npy"
            if len(np.load(path, mmap_mode="r")) >= 2 * context:
                rows = np.stack(list(tokens.Rows(path, context).in_order(valid_rows)))
                self.valid[source.name] = torch.from_numpy(rows)
        self.token_bytes = torch.tensor([len(vocabulary.token_bytes(i)) for i in range(len(vocabulary.tokens))])

    def _nats(self, model: nn.Module, rows_BT: Tensor) -> Tensor:
        """Nats of each next token, [B, T - 1]."""
        tokens_BT = rows_BT[:, :-1]
        documents_BT = None if self.separator is None else (tokens_BT == self.separator).cumsum(1)
        with torch.autocast(rows_BT.device.type, torch.bfloat16, enabled=self.recipe.plan.bfloat16):
            nats_BT: Tensor = model(tokens_BT, rows_BT[:, 1:], documents_BT)
        return nats_BT

    def batch(self, step: int, rank: int = 0, size: int = 1) -> list[Tensor]:
        first, micro = step * self.recipe.batch, self.recipe.micro
        starts = range(first, first + self.recipe.batch, micro)[rank::size]
        return [torch.from_numpy(self.rows.batch(start, micro)) for start in starts]

    def loss(self, model: nn.Module, micro: Tensor) -> Tensor:
        return self._nats(model, micro).mean()

    def tokens(self, step: int) -> int:
        return self.recipe.batch * self.recipe.hyper.context_length

    def validate(self, model: nn.Module) -> dict[str, float]:
        figures, all_nats, all_size = {}, 0.0, 0.0
        rank, size, micro = self.world.rank, self.world.size, self.recipe.micro
        for name, rows in self.valid.items():
            nats, length = 0.0, 0.0
            passes = -(-len(rows) // (micro * size))  # as many in each process, all of one shape
            padding = torch.zeros(passes * micro * size - len(rows), rows.shape[1], dtype=rows.dtype)
            real = torch.arange(len(rows) + len(padding)) < len(rows)
            for part in range(rank, passes * size, size):
                at = slice(part * micro, (part + 1) * micro)
                part_BT = torch.cat((rows, padding))[at]
                bytes_BT = self.token_bytes[part_BT[:, 1:]] * real[at, None]
                found_BT = self._nats(model, part_BT.to(self.world.device)).cpu()
                nats += float((found_BT * (bytes_BT > 0)).sum())  # separators are no text
                length += float(bytes_BT.sum())
            total_nats, total_length = self.world.sum(nats, length)
            figures[f"bpb_{name}"] = total_nats / math.log(2) / total_length
            all_nats, all_size = all_nats + total_nats, all_size + total_length
        return {"bpb": all_nats / math.log(2) / all_size} | figures if figures else {}

    def dream(self, model: nn.Module) -> str:
        """Up to 48 tokens from the beginning of a document."""
        bos, length = self.vocabulary.bos or 0, min(48, self.recipe.hyper.context_length) - 1
        ids = dream(model, [bos], length, ends=[bos], seed=self.recipe.seed, bfloat16=self.recipe.plan.bfloat16)
        return b"".join(self.vocabulary.token_bytes(token) for token in ids).decode(errors="replace")


def pretrain(
    recipe: Recipe, data: Path, run: Path, say: Callable[[str], None] = print
) -> tuple[Transformer, Vocabulary, Result]:
    """Do all of it: corpus under `data`, everything that is made under `run`. Under `torchrun`, with all processes."""
    world = World.here()
    if world.rank == 0:
        prepare(recipe, data, run, say)
    world.barrier()  # until the first process has prepared the corpus
    vocabulary = load_vocabulary(run)
    peak = matrix_peak(torch.bfloat16 if recipe.plan.bfloat16 else torch.float32, world.device)
    checkpoint.seed_all(recipe.seed)  # after what draws as many numbers as there is time for
    model = Transformer(recipe.hyper)
    stage = Pretraining(recipe, vocabulary, run)
    result = train(model, stage, recipe.plan, run, peak=peak, flops=stage.tokens(0) * operations(recipe.hyper))
    return model, vocabulary, result
