"""Pretraining: predict the next token of documents. A recipe (TOML) in, a trained model in a run folder out.

The run folder holds `vocabulary.json`, `corpus.json` (what was packed, with hashes), `train.npy`, `valid/<source>.npy`,
`log.jsonl` and `checkpoints/`. Each part is made once: a second call finds what is there and goes on. Cost: disk for 2
bytes a token; time for about 6 * parameters * tokens floating-point operations.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from twofile.errors import TrainError, TwofileError
from twofile.params.atomic import atomic_path
from twofile.params.hyper import Hyperparameters
from twofile.params.vocabulary import Vocabulary
from twofile.train import corpus, tokenizer, tokens
from twofile.train.loop import Plan, Result, train
from twofile.train.model import Transformer

__all__ = ["Pretraining", "Recipe", "prepare", "pretrain", "read_recipe"]


@dataclass(frozen=True)
class Recipe:
    """A parameters file, before it is made."""

    name: str
    description: str
    licence: str
    hyper: Hyperparameters
    plan: Plan
    sources: tuple[corpus.Source, ...]
    batch: int = 8  # rows of `context_length` tokens a step
    micro: int = 4  # rows at a time
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch % self.micro:
            raise TrainError(f"recipe: batch {self.batch} is not a multiple of micro {self.micro}")


def read_recipe(path: Path, **plan: Any) -> Recipe:
    """Read a recipe; `plan` replaces entries of its `[plan]` (None changes nothing). TrainError says what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        top = {key: value for key, value in table.items() if key not in ("model", "plan", "source")}
        hyper = Hyperparameters(architecture="qwen3", **table["model"])
        chosen = Plan(**(table.get("plan", {}) | {key: value for key, value in plan.items() if value is not None}))
        return Recipe(hyper=hyper, plan=chosen, sources=tuple(corpus.sources(table["source"])), **top)
    except OSError as error:
        raise TrainError(f"the recipe {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, TypeError, KeyError, TwofileError) as error:
        raise TrainError(f"the recipe {path.name}: {error}", "compare with recipes/bundled.toml") from error


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
        self.recipe = recipe
        self.rows = tokens.Rows(run / "train.npy", context, recipe.seed)
        self.valid: dict[str, Tensor] = {}
        for source in recipe.sources:
            path = run / "valid" / f"{source.name}.npy"
            if len(np.load(path, mmap_mode="r")) >= 2 * context:
                rows = tokens.Rows(path, context).in_order(valid_rows)
                self.valid[source.name] = torch.from_numpy(np.stack(list(rows)))
        sizes = [len(vocabulary.token_bytes(i)) for i in range(len(vocabulary.tokens))]
        self.token_bytes = torch.tensor(sizes)
        self._losses = torch.compile(self._plain_losses) if recipe.plan.compile else self._plain_losses

    def _plain_losses(self, model: nn.Module, rows_BT: Tensor) -> Tensor:
        """Nats of each next token, [B, T - 1]."""
        with torch.autocast(rows_BT.device.type, torch.bfloat16, enabled=self.recipe.plan.bfloat16):
            logits_BTV = model(rows_BT[:, :-1])
        targets_BT = rows_BT[:, 1:]
        nats = F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten(), reduction="none")
        return nats.view_as(targets_BT)

    def batch(self, step: int) -> list[Tensor]:
        rows = torch.from_numpy(self.rows.batch(step * self.recipe.batch, self.recipe.batch))
        return list(torch.split(rows, self.recipe.micro))

    def loss(self, model: nn.Module, micro: Tensor) -> Tensor:
        return self._losses(model, micro).mean()

    def tokens(self, step: int) -> int:
        return self.recipe.batch * self.recipe.hyper.context_length

    def validate(self, model: nn.Module) -> dict[str, float]:
        figures = {}
        for name, rows in self.valid.items():
            nats, size = 0.0, 0
            for micro in torch.split(rows, self.recipe.micro):
                if len(micro) < self.recipe.micro and len(rows) >= self.recipe.micro:
                    continue  # one shape for the compiler
                length = self.token_bytes[micro[:, 1:]]
                nats += float((self._losses(model, micro) * (length > 0)).sum())  # separators are no text
                size += int(length.sum())
            figures[f"bpb_{name}"] = nats / math.log(2) / size
        return figures


def pretrain(
    recipe: Recipe, data: Path, run: Path, say: Callable[[str], None] = print
) -> tuple[Transformer, Vocabulary, Result]:
    """Do all of it: corpus under `data`, everything that is made under `run`."""
    if dist.is_initialized() and dist.get_rank() > 0:
        dist.barrier()  # until the first process has prepared the corpus
        vocabulary = load_vocabulary(run)
    else:
        vocabulary = prepare(recipe, data, run, say)
        if dist.is_initialized():
            dist.barrier()
    torch.manual_seed(recipe.seed)
    model = Transformer(recipe.hyper)
    result = train(model, Pretraining(recipe, vocabulary, run), recipe.plan, run)
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
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        dist.init_process_group("gloo")
    recipe = read_recipe(given.recipe, minutes=given.minutes, steps=given.steps)
    print(pretrain(recipe, given.data, given.into)[2])
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
