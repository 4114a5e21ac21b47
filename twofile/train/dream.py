"""A few tokens made up by a model in training, to look at. The engine runs finished models, a thousand times faster."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from twofile.train.parallel import World

__all__ = ["dream"]


def dream(
    model: nn.Module,
    prompt: Sequence[int],
    length: int,
    *,
    ends: Collection[int],
    seed: int,
    bfloat16: bool,
    temperature: float = 0.8,
) -> list[int]:
    """Up to `length` tokens after `prompt`, before the first of `ends`. Called by all processes, which agree.

    Costs a pass over all `len(prompt) + length` tokens for each token, of one shape."""
    world, chance = World.here(), torch.Generator().manual_seed(seed)
    tokens_1T = torch.full((1, len(prompt) + length), prompt[0], device=world.device)
    tokens_1T[0, : len(prompt)] = torch.tensor(prompt)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # a shape of its own is not worth compiling
        for i in range(len(prompt), len(prompt) + length):
            with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
                logits_V = model(tokens_1T)[0, i - 1].float().cpu()
            drawn = torch.multinomial((logits_V / temperature).softmax(-1), 1, generator=chance)
            tokens_1T[0, i] = int(world.first(float(drawn)))  # the same for all, and as many passes
    found: list[int] = tokens_1T[0, len(prompt) :].tolist()
    return found[: next((i for i, token in enumerate(found) if token in ends), length)]
