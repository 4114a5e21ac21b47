"""Pretraining: predict the next token of documents. A recipe (TOML) in, a trained model in a run folder out.

The run folder holds `vocabulary.json`, `corpus.json` (what was packed, with hashes), `train.npy`, `valid/<source>.npy`,
`log.jsonl` and `checkpoints/`. Each part is made once: a second call finds what is there and goes on. Cost: disk for 2
bytes a token; time for about 6 * parameters * tokens floating-point operations.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from twofile.errors import TrainError
from twofile.params.atomic import atomic_path
from twofile.params.vocabulary import Vocabulary
from twofile.train import checkpoint, corpus, tokenizer, tokens
from twofile.train.loop import Result, train
from twofile.train.model import Transformer, operations
from twofile.train.parallel import World, join
from twofile.train.peak import matrix_peak
from twofile.train.recipe import Recipe, read_recipe, settle

__all__ = ["Pretraining", "Recipe", "prepare", "pretrain", "read_recipe"]


def _train_texts(sources: list[corpus.Source], data: Path) -> Iterator[str]:
    """All documents, then those used twice again, and so on: a copy beside its like would teach nothing but to copy."""
    for before in range(max(math.ceil(source.share) for source in sources)):
        for source in sources:
            for document in corpus.documents(source, data):
                if corpus.copies(document, source.share) > before:
                    yield document.text


def _once(source: corpus.Source, data: Path) -> Iterator[str]:
    for document in corpus.documents(source, data):
        if corpus.copies(document, source.share):
            yield document.text


def prepare(recipe: Recipe, data: Path, run: Path, say: Callable[[str], None] = print) -> Vocabulary:
    """Learn the vocabulary and pack the corpus, unless the run folder has both. `corpus.json` is written last."""
    (run / "valid").mkdir(parents=True, exist_ok=True)
    if (run / "corpus.json").exists():
        return load_vocabulary(run)
    used = [source for source in recipe.sources if source.share > 0]
    say(f"learning {recipe.hyper.vocab_size} tokens")
    vocabulary = tokenizer.learn((text for s in used for text in _once(s, data)), recipe.hyper.vocab_size)
    held_out = (document.text for s in recipe.sources for document in corpus.documents(s, data, held_out=True))
    tokenizer.check(vocabulary, held_out)
    _write_json(run / "vocabulary.json", vocabulary.to_metadata())
    say("packing")
    packed = tokens.pack(_train_texts(used, data), vocabulary, run / "train.npy")
    summary: dict[str, Any] = {"train": dataclasses.asdict(packed), "sources": {}}
    for source in recipe.sources:
        held_out = (document.text for document in corpus.documents(source, data, held_out=True))
        valid = tokens.pack(held_out, vocabulary, run / "valid" / f"{source.name}.npy")
        summary["sources"][source.name] = {
            "sha256": corpus.sha256(source, data),
            "licence": source.licence,
            "share": source.share,
            "train_documents": sum(1 for _ in _once(source, data)) if source.share else 0,
            "valid": dataclasses.asdict(valid),
        }
    _write_json(run / "corpus.json", summary)
    say(json.dumps(summary))
    return vocabulary


def _write_json(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def load_vocabulary(run: Path) -> Vocabulary:
    """The vocabulary of a run folder."""
    try:
        return Vocabulary.from_metadata(json.loads((run / "vocabulary.json").read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise TrainError(f"{run}: no vocabulary ({error})", "train into another folder") from error


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
                alike = recipe.micro * self.world.size  # every process as many rows, in batches of one shape
                if len(rows) >= alike:
                    rows = rows[: len(rows) // alike * alike]
                self.valid[source.name] = torch.from_numpy(rows)
        self.token_bytes = torch.tensor([len(vocabulary.token_bytes(i)) for i in range(len(vocabulary.tokens))])

    def _nats(self, model: nn.Module, rows_BT: Tensor) -> Tensor:
        """Nats of each next token, [B, T - 1]."""
        with torch.autocast(rows_BT.device.type, torch.bfloat16, enabled=self.recipe.plan.bfloat16):
            nats_BT: Tensor = model(rows_BT[:, :-1], rows_BT[:, 1:], self.separator)
        return nats_BT

    def batch(self, step: int) -> list[Tensor]:
        rows = torch.from_numpy(self.rows.batch(step * self.recipe.batch, self.recipe.batch))
        return list(torch.split(rows, self.recipe.micro))

    def loss(self, model: nn.Module, micro: Tensor) -> Tensor:
        return self._nats(model, micro).mean()

    def tokens(self, step: int) -> int:
        return self.recipe.batch * self.recipe.hyper.context_length

    def validate(self, model: nn.Module) -> dict[str, float]:
        figures, all_nats, all_size = {}, 0.0, 0.0
        rank, size = self.world.rank, self.world.size
        for name, rows in self.valid.items():
            nats, length = 0.0, 0
            mine = rows if len(rows) < size * self.recipe.micro else rows[rank::size]
            for micro in torch.split(mine, self.recipe.micro):
                bytes_BT = self.token_bytes[micro[:, 1:]]
                found_BT = self._nats(model, micro.to(self.world.device)).cpu()
                nats += float((found_BT * (bytes_BT > 0)).sum())  # separators are no text
                length += int(bytes_BT.sum())
            total_nats, total_length = self.world.sum(nats, float(length))
            figures[f"bpb_{name}"] = total_nats / math.log(2) / total_length
            all_nats, all_size = all_nats + total_nats, all_size + total_length
        return {"bpb": all_nats / math.log(2) / all_size} | figures if figures else {}

    def dream(self, model: nn.Module) -> str:
        """Up to 48 tokens from the beginning of a document, drawn at temperature 0.8."""
        bos = self.vocabulary.bos or 0
        tokens_1T = torch.full((1, min(48, self.recipe.hyper.context_length)), bos, device=self.world.device)
        chance = torch.Generator().manual_seed(self.recipe.seed)
        for i in range(1, tokens_1T.shape[1]):
            with torch.autocast(tokens_1T.device.type, torch.bfloat16, enabled=self.recipe.plan.bfloat16):
                logits_V = model(tokens_1T)[0, i - 1].float().cpu()
            drawn = int(torch.multinomial((logits_V / 0.8).softmax(-1), 1, generator=chance))
            if drawn == bos:
                break
            tokens_1T[0, i] = drawn
        ids = tokens_1T[0, 1 : i + 1].tolist()
        return b"".join(self.vocabulary.token_bytes(token) for token in ids if token != bos).decode(errors="replace")


def pretrain(
    recipe: Recipe, data: Path, run: Path, say: Callable[[str], None] = print
) -> tuple[Transformer, Vocabulary, Result]:
    """Do all of it: corpus under `data`, everything that is made under `run`. Under `torchrun`, with all processes."""
    world = World.here()
    if world.rank == 0:
        prepare(recipe, data, run, say)
    if dist.is_initialized():
        dist.barrier()  # until the first process has prepared the corpus
    vocabulary = load_vocabulary(run)
    checkpoint.seed_all(recipe.seed)
    model = Transformer(recipe.hyper)
    if recipe.plan.compile:
        model.compile_parts()
    stage = Pretraining(recipe, vocabulary, run)
    peak = matrix_peak(torch.bfloat16 if recipe.plan.bfloat16 else torch.float32, world.device)
    result = train(model, stage, recipe.plan, run, peak=peak, flops=operations(recipe.hyper))
    return model, vocabulary, result


def main() -> None:
    """`python -m twofile.train.pretrain RECIPE --data FOLDER --into FOLDER [--minutes M] [--steps N]`."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    with join() as world:
        recipe = settle(given.recipe, given.data, given.into, minutes=given.minutes, steps=given.steps)
        result = pretrain(recipe, given.data, given.into)[2]
        if world.rank == 0:
            print(result)


if __name__ == "__main__":
    main()
