"""What pretraining is compared with: a plain GPT and a plain loop in the manner of nanoGPT, written for comparison.

LayerNorm, learned positions, one fused projection for queries, keys and values, GELU, tied embeddings; AdamW with
weight decay on matrices, warm-up and a cosine to a tenth, gradients clipped at 1. float32, or bfloat16 by autocast;
compiled where asked. The rows it learns from are those that twofile's loop gets.

Source: A. Radford and others, GPT-2, 2019; the settings are those that nanoGPT's own recipes publish for this size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The same words as twofile's Hyperparameters, as far as this model has them."""

    vocab: int
    context: int
    dim: int
    layers: int
    heads: int


class _Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_1, self.norm_2 = nn.LayerNorm(shape.dim, bias=False), nn.LayerNorm(shape.dim, bias=False)
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim, bias=False)
        self.out = nn.Linear(shape.dim, shape.dim, bias=False)
        self.up = nn.Linear(shape.dim, 4 * shape.dim, bias=False)
        self.down = nn.Linear(4 * shape.dim, shape.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(self.norm_1(x_BTD)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
        x_BTD = x_BTD + self.out(y)
        added: Tensor = self.down(F.gelu(self.up(self.norm_2(x_BTD))))
        return x_BTD + added


class GPT(nn.Module):
    """Tokens [B, T] to logits [B, T, V]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(shape.vocab, shape.dim), nn.Embedding(shape.context, shape.dim)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.layers) if last else 0.02)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.token(tokens_BT) + self.position.weight[: tokens_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.linear(self.norm(x_BTD), self.token.weight)


def train(
    shape: Shape,
    batch: Callable[[int], list[Tensor]],
    steps: int,
    *,
    rate: float = 1e-3,
    warmup: int = 100,
    bfloat16: bool = False,
    compiled: bool = False,
    seed: int = 0,
) -> Iterator[tuple[int, float, nn.Module]]:
    """Train; after each step give (step, seconds without what the caller does meanwhile, the model)."""
    torch.manual_seed(seed)
    model = GPT(shape)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)

    def nats(rows_BT: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(rows_BT[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), rows_BT[:, 1:].flatten())

    loss_of = torch.compile(nats) if compiled else nats
    seconds = 0.0
    for step in range(steps):
        start = time.perf_counter()
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / warmup, 0.1 + 0.9 * cosine)
        micros = batch(step)
        for micro in micros:
            (loss_of(micro.to(device)) / len(micros)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - start
        yield step + 1, seconds, model
