"""Supervised fine-tuning: learn to answer as the conversations do.

The loss of a step is the sum of -ln p over its supervised tokens, divided by how many of them the whole step has,
whatever the packing, the micro-batches and the processes. Attention stays within a conversation. Guarantee: rows are a
function of the conversations, the seed and the step, so a run goes on exactly as pretraining does. Cost: as
pretraining, for rows of `context` tokens, supervised or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twofile.params.vocabulary import Vocabulary
from twofile.train.batch import Batch
from twofile.train.dream import dream
from twofile.train.parallel import World
from twofile.train.tune.examples import Example
from twofile.train.tune.rows import Rows
from twofile.train.tune.settings import Settings

__all__ = ["FineTuning"]

_SHOWN = 64  # tokens of a reply that is made up to be looked at


class FineTuning:
    """The stage. `learned` and `held_out`: examples to train and to measure on.

    Validation gives `bpb`, bits per byte of the held-out supervised text, and `nats`, per supervised token."""

    name = "sft"

    def __init__(
        self, settings: Settings, vocabulary: Vocabulary, learned: Sequence[Example], held_out: Sequence[Example]
    ) -> None:
        self.settings, self.vocabulary, self.world = settings, vocabulary, World.here()
        self.rows = Rows(learned, settings.context, settings.batch, settings.seed)
        self.micros = settings.batch // settings.micro
        self.held_out = held_out
        self.valid = Rows(held_out, settings.context, settings.micro, 0) if held_out else None
        self.token_bytes = torch.tensor([len(vocabulary.token_bytes(i)) for i in range(len(vocabulary.tokens))])

    def batch(self, step: int, rank: int = 0, size: int = 1) -> list[Batch]:
        whole, micro = self.rows.batch(step), self.settings.micro
        starts = range(0, self.settings.batch, micro)
        # the loop takes the mean over micro-batches and processes: so many times what each is of the whole
        scale = self.micros / whole["weights_BT"].sum()
        whole["weights_BT"] = whole["weights_BT"] * scale
        parts = [Batch({name: held[i : i + micro] for name, held in whole.items()}) for i in starts]
        return parts[rank::size]

    def tokens(self, step: int) -> int:
        return int(self.rows.batch(step)["weights_BT"].sum())

    def _nats(self, model: nn.Module, micro: Batch) -> Tensor:
        tokens_BT = micro["tokens_BT"]
        with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=self.settings.plan.bfloat16):
            nats_BT: Tensor = model(tokens_BT[:, :-1], tokens_BT[:, 1:], micro["documents_BT"][:, :-1])
        return nats_BT

    def loss(self, model: nn.Module, micro: Batch) -> Tensor:
        return (self._nats(model, micro) * micro["weights_BT"]).sum()

    def validate(self, model: nn.Module) -> dict[str, float]:
        if self.valid is None:
            return {}
        nats, count, size = 0.0, 0.0, 0.0
        steps = range(self.valid.steps)
        for first in range(0, len(steps), self.world.size):
            mine = first + self.world.rank
            part = self.valid.batch(min(mine, len(steps) - 1))
            weights_BT = part["weights_BT"] * (mine < len(steps))  # as many passes in each process
            found_BT = self._nats(model, part.to(self.world.device)).cpu()
            nats += float((found_BT * weights_BT).sum())
            count += float(weights_BT.sum())
            size += float((self.token_bytes[part["tokens_BT"][:, 1:]] * weights_BT).sum())
        nats, count, size = self.world.sum(nats, count, size)
        return {"bpb": nats / math.log(2) / size, "nats": nats / count}

    def dream(self, model: nn.Module) -> str:
        """A held-out prompt, and what the model makes of it."""
        if not self.held_out:
            return ""
        example, seed = self.held_out[0], self.settings.seed
        prompt = [int(token) for token in example.ids[: int(example.supervised.argmax())]]
        ends = {token for token in (self.vocabulary.eos, self.vocabulary.eot) if token is not None}
        length = min(_SHOWN, self.settings.context - len(prompt))
        if not prompt or length < 1:
            return ""
        said = dream(model, prompt, length, ends=ends, seed=seed, bfloat16=self.settings.plan.bfloat16)
        return b"".join(self.vocabulary.token_bytes(token, special=True) for token in [*prompt, *said]).decode(
            errors="replace"
        )
