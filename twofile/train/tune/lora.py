"""Low-rank adaptation: the matrices of the layers stay as they are, and a product of two thin ones is learned for each.

`adapt` puts it into a model; the parameters file's names stay, `lora_a` and `lora_b` stand beside each `weight`. A
begins as PEFT has it, drawn from torch's generator, B at zero, so that the model begins as it was. Guarantee: only A
and B learn (and what the stage has of its own: a head), by AdamW, and only they are in a checkpoint. Cost: of the
memory for training, the share of A and B; the time of all weights, nearly: gradients go through every matrix.

Source: arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofile.errors import TrainError
from twofile.params.adapter import MATRICES, Adapter
from twofile.params.provenance import Provenance
from twofile.train.model import Transformer

__all__ = ["LowRank", "adapt", "adapter_of", "is_adapted", "weights"]


class LowRank(nn.Module):
    """`x W^T + bias + scale * x A^T B^T`, with W and its bias as they were in `linear`."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def adapt(model: Transformer, rank: int, alpha: float) -> None:
    """Freeze a model's weights and put a low-rank change beside each matrix of its layers; heads of a stage's own go on
    learning. TrainError for a rank that no matrix has."""
    largest = min(model.hyper.dim, model.hyper.n_kv_heads * model.hyper.head_dim, model.hyper.ffn_dim)
    if not 1 <= rank <= largest:
        raise TrainError(f"a rank of {rank}: the matrices of this model have ranks up to {largest}", "give --lora less")
    shapes = model.hyper.shapes()
    for name, weight in model.named_parameters():
        if name in shapes:
            weight.requires_grad_(False)
    for block in model.blk:
        for name in MATRICES:
            setattr(block, name, LowRank(getattr(block, name), rank, alpha))


def is_adapted(model: nn.Module) -> bool:
    """Whether low-rank changes are in a model."""
    return any(isinstance(part, LowRank) for part in model.modules())


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model by their names in a parameters file, low-rank changes added, in float32, one at a time."""
    parts = {name: part for name, part in model.named_modules() if isinstance(part, LowRank)}
    for name, held in model.state_dict().items():
        before, _, last = name.rpartition(".")
        if last.startswith("lora_"):
            continue
        part = parts.get(before)
        whole = held.detach().float()
        if part is not None and last == "weight":
            whole = whole + part.scale * (part.lora_b.detach().float() @ part.lora_a.detach().float())
        yield name, whole


def adapter_of(model: Transformer, provenance: Provenance, chat_template: str) -> Adapter:
    """What was learned, by itself. ValueError for a model that was not adapted."""
    parts = {name: part for name, part in model.named_modules() if isinstance(part, LowRank)}
    if not parts:
        raise ValueError("the model has no low-rank changes")
    pairs = {
        f"{name}.weight": (part.lora_a.detach().float().cpu().numpy(), part.lora_b.detach().float().cpu().numpy())
        for name, part in parts.items()
    }
    first = next(iter(parts.values()))
    alpha = first.scale * len(first.lora_a)
    return Adapter(model.hyper.architecture, alpha, pairs, provenance, chat_template)
