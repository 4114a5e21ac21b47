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
from twofile.train import checkpoint, tokens
from twofile.train.begin import plainly, settle
from twofile.train.loop import Result, train
from twofile.train.model import Transformer, operations
from twofile.train.parallel import World, join
from twofile.train.peak import matrix_peak
from twofile.train.prepare import load_vocabulary, prepare
from twofile.train.recipe import Recipe

__all__ = ["Pretraining", "pretrain"]


class Pretraining:
    """The stage: rows of the packed file, mean cross-entropy in nats; bits per byte of each source's held-out text."""

    name = "pretrain"

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary, run: Path, valid_rows: int = 32) -> None:
        context = recipe.hyper.context_length
        self.recipe, self.vocabulary, self.world = recipe, vocabulary, World.here()
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
        with torch.autocast(rows_BT.device.type, torch.bfloat16, enabled=self.recipe.plan.bfloat16):
            nats_BT: Tensor = model(rows_BT[:, :-1], rows_BT[:, 1:], self.separator)
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
        """Up to 48 tokens from the beginning of a document, drawn at temperature 0.8."""
        bos = self.vocabulary.bos or 0
        tokens_1T = torch.full((1, min(48, self.recipe.hyper.context_length)), bos, device=self.world.device)
        chance = torch.Generator().manual_seed(self.recipe.seed)
        with torch.compiler.set_stance("force_eager"):  # a shape of its own is not worth compiling
            for i in range(1, tokens_1T.shape[1]):
                with torch.autocast(tokens_1T.device.type, torch.bfloat16, enabled=self.recipe.plan.bfloat16):
                    logits_V = model(tokens_1T)[0, i - 1].float().cpu()
                drawn = torch.multinomial((logits_V / 0.8).softmax(-1), 1, generator=chance)
                tokens_1T[0, i] = int(self.world.first(float(drawn)))  # the same for all, and as many passes
        ids = tokens_1T[0, 1:].tolist()
        ids = ids[: ids.index(bos)] if bos in ids else ids
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
    result = train(model, stage, recipe.plan, run, peak=peak, flops=operations(recipe.hyper))
    return model, vocabulary, result


def main() -> None:
    """Train a recipe with all processes that torchrun started; the same call goes on with a run that was stopped."""
    import argparse
    import shlex
    import sys

    from twofile.params.mixture import FILE_TYPES
    from twofile.params.names import target
    from twofile.train.export import export

    parser = argparse.ArgumentParser(prog="python -m twofile.train.pretrain", description=main.__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the recipe's files")
    parser.add_argument("--into", type=Path, required=True, help="the folder for logs and checkpoints")
    parser.add_argument("--out", type=target, help="what to make: a local name, or a path that ends in .gguf")
    parser.add_argument("--type", type=str.upper, choices=FILE_TYPES, default="Q8_0", help="of the matrices in OUT")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    with plainly():
        given = parser.parse_args()
        length = {"minutes": given.minutes, "steps": given.steps}
        with join() as world:
            recipe = settle(given.recipe, given.data, given.into, given.out, **length)
            result = pretrain(recipe, given.data, given.into)[2]
        if world.rank == 0:
            print(result)
        if world.rank == 0 and given.out is not None:
            command = shlex.join(["python", "-m", "twofile.train.pretrain", *sys.argv[1:]])
            export(recipe, given.into, given.out, type=given.type, command=command)
            print(given.out)


if __name__ == "__main__":
    main()
