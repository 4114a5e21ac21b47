"""Pretraining beside a plain loop: how good a model each has after how long, on this machine.

    .venv/bin/python bench/train.py pace --data DATA [--minutes 4] [--seed 1 2 3]     # a 5M model of stories
    .venv/bin/python bench/train.py shakespeare --data DATA --minutes 3 [--seed 1 2 3]
    .venv/bin/python bench/train.py speed [--size 5M 17M] [--rounds 3]

DATA is the folder of the texts. `pace`: the plain loop (baseline.py) trains for `--minutes` in float32 and in bfloat16,
with the rate and the warm-up that were the best of those tried (docs/LOG.md), ours for half as long on the same rows;
held-out bits per byte of each. `shakespeare`: nats a character of the last tenth of tinyshakespeare, characters as
tokens. `speed`: tokens/s and share of the matrix peak of the same minute. Ours computes in bfloat16 where that is the
faster of the two here, else in float32, and so is the peak.
Times are wall-clock from the first line of training, compiling included, validation not. Results go to .work/train/.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import lzma
import math
import statistics
import time
from pathlib import Path
from typing import Any

import baseline
import torch
from torch import Tensor, nn

from twofile.params.hyper import Hyperparameters
from twofile.train import checkpoint
from twofile.train.corpus.sources import Source
from twofile.train.loop import Plan, train
from twofile.train.model import Transformer, operations
from twofile.train.optimisers import Optimisers
from twofile.train.peak import matrix_peak
from twofile.train.pretrain.calibrate import faster_in_bfloat16
from twofile.train.pretrain.prepare import load_vocabulary, prepare
from twofile.train.pretrain.recipe import Recipe
from twofile.train.pretrain.stage import Pretraining
from twofile.train.pretrain.tokenizer import BYTES

VALID = 500  # rows of held-out text
FOLDER = Path(__file__).resolve().parent.parent / ".work" / "train"


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WITHIN = DEVICE.type == "cpu"  # as the dial has it

LOOPS = ["ours", "bfloat16", "float32"]


def shape(vocab: int, context: int, dim: int, layers: int, ffn: int) -> Hyperparameters:
    """The form of our models: heads of 64, half as many for keys and values, tied embeddings."""
    return Hyperparameters(
        architecture="qwen3",
        vocab_size=vocab,
        context_length=context,
        dim=dim,
        n_layers=layers,
        n_heads=dim // 64,
        n_kv_heads=max(1, dim // 128),
        head_dim=64,
        ffn_dim=ffn,
        norm_eps=1e-6,
        tied=True,
    )


def ours(recipe: Recipe, run: Path) -> dict[str, Any]:
    """Train as `twofile train` does, in a new folder; figures of the end, and seconds with the compiler's."""
    start = time.perf_counter()
    torch.compiler.reset()  # what was compiled for another model is none of this one's
    checkpoint.seed_all(recipe.seed)
    model = Transformer(recipe.hyper)
    stage = Pretraining(recipe, load_vocabulary(run), run, valid_rows=VALID)
    result = train(model, stage, recipe.plan, run)
    return {"steps": result.step, "seconds": time.perf_counter() - start, **result.validation}


class _AsOurs(nn.Module):
    """The plain model, called as ours is for validation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        logits = self.model(tokens_BT).float().flatten(0, 1)
        nats = nn.functional.cross_entropy(logits, targets_BT.flatten(), reduction="none")
        return nats.view_as(targets_BT)


def plain(recipe: Recipe, run: Path, minutes: float, *, bfloat16: bool, rate: float, warmup: int) -> dict[str, Any]:
    """The plain loop on the same rows for so many minutes: a few steps tell how many there will be."""
    hyper = recipe.hyper
    theirs = baseline.Shape(hyper.vocab_size, hyper.context_length, hyper.dim, hyper.n_layers, hyper.n_heads)
    stage = Pretraining(recipe, load_vocabulary(run), run, valid_rows=VALID)
    settings: dict[str, Any] = {
        "bfloat16": bfloat16,
        "compiled": True,
        "seed": recipe.seed,
        "rate": rate,
        "warmup": warmup,
    }
    torch.compiler.reset()
    times = [seconds for _, seconds, _ in baseline.train(theirs, stage.batch, 8, **settings)]
    pace = statistics.median(b - a for a, b in itertools.pairwise(times))
    steps = max(1, round((60 * minutes - times[0]) / pace))
    last = (0, 0.0, nn.Module())
    for last in baseline.train(theirs, stage.batch, steps, **settings):
        if last[1] > 60 * minutes * 1.02:
            break
    step, seconds, model = last
    with torch.no_grad():
        figures = stage.validate(_AsOurs(model.eval()))
    n = sum(weight.numel() for weight in model.parameters())
    return {"parameters": n, "steps": step, "of": steps, "seconds": seconds, **figures}


def pace_recipe(minutes: float, seed: int) -> Recipe:
    """A model of 5M parameters for stories, trained for so many minutes."""
    sources = (Source("tinystories_train.jsonl.xz", "tinystories", held_out=0.05),)
    hyper = shape(4096, 512, 256, 6, 704)
    long: dict[str, Any] = {"validate_every": 10**9, "save_minutes": 1e9, "dream_minutes": 1e9}
    bfloat16 = faster_in_bfloat16(DEVICE)
    plan = Plan(minutes=minutes, warmup=15, decay=0.4, vector_rate=0.03, bfloat16=bfloat16, **long)
    return Recipe("pace", "", "", hyper, plan, sources, batch=8, micro=8, seed=seed, within_documents=WITHIN)


def pace(
    data: Path, minutes: float, seeds: list[int], rate: float, warmup: int, only: list[str]
) -> list[dict[str, Any]]:
    """Ours in half of the time against the plain loop in all of it."""
    packed = FOLDER / "pace"
    prepare(pace_recipe(minutes, 0), data, packed, lambda _: None)
    found = []
    for seed in seeds:
        recipe = pace_recipe(minutes / 2, seed)
        one: dict[str, Any] = {"seed": seed}
        for name in only:
            run = beside(packed, f"pace-{name}-{seed}-{time.time_ns()}")
            if name == "ours":
                one[name] = ours(recipe, run)
            else:
                one[name] = plain(recipe, run, minutes, bfloat16=name == "bfloat16", rate=rate, warmup=warmup)
            print(seed, name, one[name], flush=True)
        found.append(one)
    return found


def shakespeare(data: Path, minutes: float, seeds: list[int], changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Characters: a vocabulary of bytes alone, which for this text is the same."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = lzma.decompress((data / "tinyshakespeare.txt.xz").read_bytes()).decode()
    cut = int(0.9 * len(text))
    (FOLDER / "first.txt").write_text(text[:cut])
    (FOLDER / "last.txt").write_text(text[cut:])
    sources = (Source("first.txt", "first"), Source("last.txt", "last", share=0, held_out=1.0))
    given = {"dim": 256, "layers": 6, "context": 256, "batch": 32, "micro": 32, "ffn": 704, "decay": 0.5} | changes
    hyper = shape(BYTES, given["context"], given["dim"], given["layers"], given["ffn"])
    rates = {key: value for key, value in given.items() if key.endswith("rate") or key == "weight_decay"}
    long: dict[str, Any] = {"validate_every": 10**9, "save_minutes": 1e9, "dream_minutes": 1e9}
    bfloat16 = faster_in_bfloat16(DEVICE)
    plan = Plan(minutes=minutes, warmup=30, decay=given["decay"], bfloat16=bfloat16, **long, **rates)
    base = Recipe("shakespeare", "", "", hyper, plan, sources, batch=given["batch"], micro=given["micro"])
    packed = FOLDER / f"shakespeare-{given['context']}"
    prepare(base, FOLDER, packed, lambda _: None)
    found = []
    for seed in seeds:
        recipe = dataclasses.replace(base, seed=seed)
        figures = ours(recipe, beside(packed, f"shakespeare-{seed}-{time.time_ns()}"))
        figures["nats"] = figures["bpb_last"] * math.log(2)
        print(seed, hyper.n_parameters, given, figures, flush=True)
        found.append({"seed": seed, **figures})
    return found


def beside(packed: Path, name: str) -> Path:
    """A new run folder with the same vocabulary and rows."""
    run = FOLDER / name
    run.mkdir(parents=True)
    for path in packed.iterdir():
        if path.name in ("vocabulary.json", "corpus.json", "train.npy", "valid"):
            (run / path.name).symlink_to(path)
    return run


SIZES = {
    "5M": (shape(4096, 512, 256, 6, 704), 24),
    "17M": (shape(8192, 512, 384, 8, 1024), 12),
    "124M": (shape(32768, 1024, 768, 12, 2048), 32),
}


def speed(sizes: list[str], rounds: int) -> list[dict[str, Any]]:
    """Steps of two micro-batches with the optimiser, against the matrix peak measured between them."""
    bfloat16, found = faster_in_bfloat16(DEVICE), []
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    for size in sizes:
        hyper, micro = SIZES[size]
        torch.compiler.reset()
        torch.manual_seed(0)
        model = Transformer(hyper).to(DEVICE)
        model.compile_parts()
        optimisers = Optimisers(
            model.named_parameters(), matrix_rate=0.01, vector_rate=0.003, weight_decay=0.05, bfloat16=bfloat16
        )
        rows = torch.randint(0, hyper.vocab_size, (micro, hyper.context_length + 1), device=DEVICE)
        documents = (rows[:, :-1] % 200 == 0).cumsum(1) if WITHIN else None  # of about 200 tokens
        shares, speeds = [], []
        for round in range(rounds + 1):
            peak = matrix_peak(dtype, DEVICE)
            start, n = time.perf_counter(), 4
            for _ in range(n):
                for _ in range(2):
                    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bfloat16):
                        loss = model(rows[:, :-1], rows[:, 1:], documents).mean() / 2
                    loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimisers.step(1.0)
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            speed = n * 2 * rows[:, 1:].numel() / (time.perf_counter() - start)
            if round:  # the first compiles
                speeds.append(speed)
                shares.append(speed * operations(hyper) / peak)
        one = {"size": size, "parameters": hyper.n_parameters, "tokens/s": speeds, "share": shares, "peak": peak}
        middle = f"{statistics.median(speeds):,.0f} tokens/s, {statistics.median(shares):.0%} of the {dtype} peak"
        spread = f"{min(shares):.0%} to {max(shares):.0%}"
        print(f"{size}: {middle} ({spread}; {peak / 1e9:,.0f} GFLOP/s)", flush=True)
        found.append(one)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pace", "shakespeare", "speed"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pretrain"))
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["5M", "17M"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=3e-3, help="the plain loop's learning rate")
    parser.add_argument("--warmup", type=int, default=100, help="the plain loop's steps of warm-up")
    parser.add_argument("--only", nargs="+", choices=LOOPS, default=LOOPS)
    parser.add_argument("--set", nargs="*", default=[], help="of shakespeare's settings, as name=number")
    given = parser.parse_args()
    if given.what == "speed":
        found = speed(given.size, given.rounds)
    elif given.what == "pace":
        found = pace(given.data, given.minutes, given.seed, given.rate, given.warmup, given.only)
    else:
        changes = {key: json.loads(value) for key, value in (item.split("=") for item in given.set)}
        found = shakespeare(given.data, given.minutes, given.seed, changes)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{given.what}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
