"""The price of exportability: what parts that no GGUF family has would give the same model after as many steps.

    .venv/bin/python bench/architectures.py --data DATA [--steps 100] [--seed 1 2 3] [--only relu2 ...]

Each variant trains on the rows and the seeds of ours (bench/train.py, `pace`), for as many steps, and is measured on
the same held-out text, each document by itself; beside it stands how long a step takes, the median of the run. `relu2`:
squared ReLU in place of SwiGLU, as many weights (arXiv:2109.08668). `values`: a second embedding of each token, added
to the values of every other layer (arXiv:2410.17897). `skips`: each layer also gets the embeddings, weighed by learned
scalars (as K. Jordan's modded-nanogpt popularised). `all`: the three together. `documents`: ours with attention that
stays within documents, which export does not mind; the others see across them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from train import FOLDER, VALID, beside, pace_recipe

from twofile.params.hyper import Hyperparameters
from twofile.train import checkpoint
from twofile.train.attention import attention
from twofile.train.loop import train
from twofile.train.model import Block, Transformer, rotate, within
from twofile.train.pretrain.prepare import load_vocabulary, prepare
from twofile.train.pretrain.recipe import Recipe
from twofile.train.pretrain.stage import Pretraining

VARIANTS: dict[str, frozenset[str]] = {
    "ours": frozenset(),
    "documents": frozenset(),
    "relu2": frozenset({"relu2"}),
    "values": frozenset({"values"}),
    "skips": frozenset({"skips"}),
    "all": frozenset({"relu2", "values", "skips"}),
}


class _Block(Block):
    """A layer with some of the parts."""

    def __init__(self, hyper: Hyperparameters, parts: frozenset[str], values: bool) -> None:
        super().__init__(hyper)
        self.parts, self.has_values = parts, values
        if "relu2" in parts:
            del self.ffn_gate
            self.ffn_up = nn.Linear(hyper.dim, hyper.ffn_dim * 3 // 2, bias=False)
            self.ffn_down = nn.Linear(hyper.ffn_dim * 3 // 2, hyper.dim, bias=False)
        if values:
            self.value_share = nn.Parameter(torch.tensor([0.5]))
        if "skips" in parts:
            self.skip = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(  # type: ignore[override]
        self, x_BTD: Tensor, first_BTD: Tensor, values_BTK: Tensor | None, cos: Tensor, sin: Tensor, mask: Tensor | None
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        if "skips" in self.parts:
            x_BTD = self.skip[0] * x_BTD + self.skip[1] * first_BTD
        y_BTD, E = self.attn_norm(x_BTD), self.hyper.head_dim
        q_BTHE = rotate(self.attn_q_norm(self.attn_q(y_BTD).view(B, T, -1, E)), cos, sin)
        k_BTKE = rotate(self.attn_k_norm(self.attn_k(y_BTD).view(B, T, -1, E)), cos, sin)
        v_BTK = self.attn_v(y_BTD)
        if values_BTK is not None:
            v_BTK = (1 - self.value_share) * v_BTK + self.value_share * values_BTK
        x_BTD = x_BTD + self.attn_output(attention(q_BTHE, k_BTKE, v_BTK.to(q_BTHE.dtype).view(B, T, -1, E), mask))
        y_BTD = self.ffn_norm(x_BTD)
        inner = F.relu(self.ffn_up(y_BTD)).square() if "relu2" in self.parts else None
        if inner is None:
            inner = F.silu(self.ffn_gate(y_BTD)) * self.ffn_up(y_BTD)
        found: Tensor = x_BTD + self.ffn_down(inner)
        return found


class Variant(Transformer):
    """Ours with some of the parts; what only ours has (export) it has not."""

    def __init__(self, hyper: Hyperparameters, parts: frozenset[str]) -> None:
        super().__init__(hyper)
        has = ["values" in parts and layer % 2 == 1 for layer in range(hyper.n_layers)]
        self.blk = nn.ModuleList(_Block(hyper, parts, values) for values in has)
        kv = hyper.n_kv_heads * hyper.head_dim
        self.token_embd_values = nn.ModuleList(nn.Embedding(hyper.vocab_size, kv) for values in has if values)
        self.initialise()
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith("value_share"):
                    weight.fill_(0.5)
                if name.endswith("skip"):
                    weight.copy_(torch.tensor([1.0, 0.0]))
                if name.startswith("token_embd_values"):
                    weight.normal_(std=0.02)

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        T = tokens_BT.shape[1]
        mask_BTT = None if documents_BT is None else within(documents_BT)
        x_BTD = first_BTD = self.token_embd(tokens_BT)
        embeddings: Iterator[nn.Module] = iter(self.token_embd_values)
        for block in self.blk:
            values_BTK = next(embeddings)(tokens_BT) if block.has_values else None
            x_BTD = block(x_BTD, first_BTD, values_BTK, self.cos_TE[:T], self.sin_TE[:T], mask_BTT)
        normed: Tensor = self.output_norm(x_BTD)
        return normed


def measure(recipe: Recipe, run: Path, parts: frozenset[str]) -> dict[str, Any]:
    """Parameters, seconds a step, and bits per byte of held-out text."""
    torch.compiler.reset()
    checkpoint.seed_all(recipe.seed)
    model = Variant(recipe.hyper, parts) if parts else Transformer(recipe.hyper)
    stage = Pretraining(recipe, load_vocabulary(run), run, valid_rows=VALID)
    result = train(model, stage, recipe.plan, run)
    n = sum(weight.numel() for weight in model.parameters())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    speeds = [line["speed"] for line in lines if line.get("speed")]
    pace = recipe.batch * recipe.hyper.context_length / statistics.median(speeds)
    alone = Pretraining(dataclasses.replace(recipe, within_documents=True), load_vocabulary(run), run, valid_rows=VALID)
    with torch.no_grad():
        figures = alone.validate(model.eval())
    return {"parameters": n, "steps": result.step, "step_seconds": pace, "packed": result.validation["bpb"], **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pretrain"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="beside ours")
    given = parser.parse_args()
    given.only = ["ours", *(name for name in given.only if name != "ours")]
    packed = FOLDER / "pace"
    prepare(pace_recipe(1.0, 0), given.data, packed, lambda _: None)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in given.only}
    for seed in given.seed:
        for name in given.only:  # by turns, for the machine's speed moves
            recipe = dataclasses.replace(pace_recipe(1.0, seed), within_documents=name == "documents")
            plan = dataclasses.replace(recipe.plan, steps=given.steps, minutes=None)
            recipe = dataclasses.replace(recipe, plan=plan)
            one = measure(recipe, beside(packed, f"architecture-{name}-{seed}-{time.time_ns()}"), VARIANTS[name])
            found[name].append(one)
            print(seed, name, one, flush=True)
    ours = statistics.median(run["step_seconds"] for run in found["ours"])
    for name, runs in found.items():
        bits = [run["bpb"] for run in runs]
        spread = f"{min(bits):.4f} to {max(bits):.4f}, n = {len(bits)}"
        pace = statistics.median(run["step_seconds"] for run in runs) / ours
        print(f"{name}: {statistics.mean(bits):.4f} bits per byte ({spread}), a step takes {pace:.2f} times ours")
    (FOLDER / "architectures.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
