"""A corpus of some kilobytes and a model that learns it in seconds."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from twofile.params.hyper import Hyperparameters
from twofile.train.corpus.sources import Source
from twofile.train.loop import Plan
from twofile.train.model import Transformer
from twofile.train.pretrain.recipe import Recipe

HYPER = Hyperparameters(
    architecture="qwen3",
    vocab_size=288,
    context_length=32,
    dim=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    ffn_dim=64,
    norm_eps=1e-6,
    tied=True,
)


def random_model(**changes: Any) -> Transformer:
    """A model whose every tensor matters: no zeros, no ones."""
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(HYPER, **changes)).requires_grad_(False)
    for weight in model.parameters():
        weight += 0.1 * torch.randn_like(weight)
    return model


def write_corpus(folder: Path) -> None:
    names, verbs = ("Tom", "Lily", "the cat", "the dog"), ("ran", "sat", "sang", "slept", "played")
    choices = itertools.product(names, verbs, names, verbs)
    stories = [f"Once upon a time {n} {v} and {m} {w}. The end." for n, v, m, w in choices]
    (folder / "stories.txt").write_text("\n\n".join(stories))


def recipe(**plan: Any) -> Recipe:
    chosen: dict[str, Any] = {"steps": 60, "warmup": 5, "compile": False, "bfloat16": False, "validate_every": 50}
    source = Source("stories.txt", "stories", held_out=0.2, split=r"\n\n", licence="CC0")
    return Recipe("tiny", "a test", "CC0", HYPER, Plan(**(chosen | plan)), (source,), batch=4, micro=2, seed=1)


def whole_checkpoints(run: Path) -> list[int]:
    """The steps of those that are there whole."""
    return sorted(int(path.name) for path in run.glob("checkpoints/*") if path.name.isdigit())


def kill_at_checkpoint(code: str, run: Path, after: int = 0) -> int:
    """Run Python code that trains into `run` in another process, and SIGKILL it when a checkpoint beyond the step
    `after` is there, whole. The step that a resumed run goes on from."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as process:
        deadline = time.monotonic() + 120
        while not any(step > after for step in whole_checkpoints(run)):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    return whole_checkpoints(run)[-1]


def resumed(run: Path) -> list[int]:
    """The steps from which a run went on, as its log tells."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line.get("event") == "resumed"]
