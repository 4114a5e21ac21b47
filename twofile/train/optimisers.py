"""How weights follow their gradients: Muon for the hidden matrices, AdamW for embeddings, heads, norms and biases.

Muon turns the momentum of a matrix into the nearest matrix whose singular values are all near one, by five steps of a
Newton-Schulz iteration, so that no direction is learned faster than another. Matrices of one shape are turned together,
and under several processes each turns one of as many. Guarantees: the steps of `torch.optim.Muon` up to the order of
sums; weights that are sharded (DTensor) are gathered for the turn, as many at once as there are processes. Cost: one
copy of the matrices and two of the rest; for each matrix of m x n, m <= n, about 5 (4 m^2 n + 2 m^3) operations a step,
whatever the batch; in passing some copies of as many matrices as are turned at once.

Sources: K. Jordan, Muon, 2024; J. Liu and others, arXiv:2502.16982; AdamW: arXiv:1711.05101.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from twofile.train.parallel import World

__all__ = ["Muon", "Optimisers", "orthogonalise"]

_STEPS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315
_TOGETHER = 16  # matrices turned at once: enough for small ones, and large ones are few


def orthogonalise(x_KMN: Tensor, *, bfloat16: bool) -> Tensor:
    """The nearest matrices with singular values near 1 (0.7 to 1.2), for a stack [K, M, N] of float32 matrices."""
    x = x_KMN.bfloat16() if bfloat16 else x_KMN
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).to(x_KMN.dtype)


def _whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def _like(whole: Tensor, weight: Tensor) -> Tensor:
    """This process's part of `whole`, as `weight` is sharded."""
    if isinstance(weight, DTensor):
        return distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)
    return whole


class Muon:
    """Momentum, turned, over matrices by name. `step` reads their gradients."""

    def __init__(self, weights: dict[str, nn.Parameter], *, momentum: float, weight_decay: float, bfloat16: bool):
        self.weights, self.momentum, self.weight_decay, self.bfloat16 = weights, momentum, weight_decay, bfloat16
        self.moments = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        world = World.here()
        self.rank, self.size = world.rank, world.size
        shapes: dict[torch.Size, list[str]] = {}
        for name, weight in weights.items():
            shapes.setdefault(weight.shape, []).append(name)
        self._together = _TOGETHER if self.size == 1 else 1
        at_once = self._together * self.size
        self._groups = [names[i : i + at_once] for names in shapes.values() for i in range(0, len(names), at_once)]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """weight -= rate * (decay * weight + sqrt(max(1, rows / columns)) * turned), with Nesterov's momentum."""
        for names in self._groups:
            mine: list[Tensor] = []
            for i, name in enumerate(names):
                gradient, moment = self.weights[name].grad, self.moments[name]
                assert gradient is not None, name
                moment.lerp_(gradient, 1 - self.momentum)
                nesterov = _whole(gradient.lerp(moment, self.momentum))
                if i % self.size == self.rank:
                    mine.append(nesterov)
            for name, update in zip(names, self._turn(mine, self.weights[names[0]]), strict=False):
                weight = self.weights[name]
                scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - rate * self.weight_decay)
                weight.add_(_like(update, weight), alpha=-rate * scale)

    def _turn(self, mine: list[Tensor], like: Tensor) -> Iterator[Tensor]:
        """What all processes have turned, in the order of the names."""
        turned = orthogonalise(torch.stack(mine), bfloat16=self.bfloat16) if mine else None
        if self.size == 1:
            assert turned is not None
            yield from turned
            return
        device = like.to_local().device if isinstance(like, DTensor) else like.device
        for i in range(self._together):
            one = torch.zeros(like.shape, device=device)
            if turned is not None and i < len(turned):
                one.copy_(turned[i])
            whole = [torch.empty_like(one) for _ in range(self.size)]
            dist.all_gather(whole, one)
            yield from whole


class Optimisers:
    """Both, over all weights of a model that want a gradient, and their state by name."""

    def __init__(
        self,
        weights: Iterable[tuple[str, nn.Parameter]],
        *,
        matrix_rate: float,
        vector_rate: float,
        weight_decay: float,
        bfloat16: bool,
    ) -> None:
        wanted = {name: weight for name, weight in weights if weight.requires_grad}
        hidden = {name: weight for name, weight in wanted.items() if _is_hidden(name, weight)}
        self.others = {name: weight for name, weight in wanted.items() if name not in hidden}
        self.matrix_rate, self.vector_rate = matrix_rate, vector_rate
        self.muon = Muon(hidden, momentum=0.95, weight_decay=weight_decay, bfloat16=bfloat16)
        self.adamw = torch.optim.AdamW(
            self.others.values(), lr=vector_rate, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, foreach=True
        )
        for weight in self.others.values():  # as its first step would, so that there is something to load into
            zeros = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            self.adamw.state[weight] = {"step": torch.tensor(0.0), **zeros}

    def step(self, rate: float) -> None:
        """One step at `rate` times the peak rates; the gradients are gone afterwards."""
        self.muon.step(self.matrix_rate * rate)
        self.adamw.param_groups[0]["lr"] = self.vector_rate * rate
        self.adamw.step()
        for weight in (*self.muon.weights.values(), *self.others.values()):
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """The tensors that a run needs to go on, themselves, by name. The count of steps is the loop's."""
        found = {f"muon.{name}": moment for name, moment in self.muon.moments.items()}
        for name, weight in self.others.items():
            for part in ("exp_avg", "exp_avg_sq"):
                found[f"adamw.{part}.{name}"] = self.adamw.state[weight][part]
        return found

    def resume(self, step: int) -> None:
        """So many steps lie behind."""
        for weight in self.others.values():
            self.adamw.state[weight]["step"].fill_(float(step))


def _is_hidden(name: str, weight: Tensor) -> bool:
    thin = name.endswith((".lora_a", ".lora_b"))  # their product is what should turn, neither of them
    return weight.ndim == 2 and not thin and not name.startswith(("token_embd", "output", "reward", "value"))
