"""Direct preference optimisation as a stage: the policy learns from pairs, a frozen copy of it is the reference.

Cost: a second model, and a pass of it for each micro-batch: a third more than fine-tuning on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from twofile.train.batch import Batch
from twofile.train.feedback.comparisons import Comparison, Comparisons
from twofile.train.feedback.dpo import dpo, margins
from twofile.train.feedback.heads import sequence_logp
from twofile.train.parallel import World
from twofile.train.tune.settings import Settings

__all__ = ["Preference"]


class Preference:
    """The stage. `settings.options` has `beta` and `doubt` (see `dpo`).

    Validation gives `nats`, the loss of a held-out pair; `accuracy`, in how many the margin is above 0; `margin`, its
    mean in nats; `kl_chosen`, how much less likely than for the reference the chosen replies have become."""

    name = "dpo"

    def __init__(
        self, settings: Settings, reference: nn.Module, learned: Sequence[Comparison], held_out: Sequence[Comparison]
    ) -> None:
        self.settings, self.world = settings, World.here()
        self.beta, self.doubt = float(settings.options["beta"]), float(settings.options["doubt"])
        self.reference = reference.eval().requires_grad_(False).to(self.world.device)
        self.rows = Comparisons(learned, settings.batch, settings.micro, settings.seed)
        self.valid = Comparisons(held_out, settings.micro, settings.micro, 0) if held_out else None
        self.micros, self.batch, self.tokens = self.rows.micros, self.rows.batch, self.rows.tokens

    def _margins(self, model: nn.Module, micro: Batch) -> tuple[Tensor, Tensor]:
        """Of each pair the margin, and how much more likely the chosen reply is than for the reference: [N]."""
        found: list[Tensor] = []
        for which in (model, self.reference):
            with (
                torch.set_grad_enabled(which is model and torch.is_grad_enabled()),
                torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.settings.plan.bfloat16),
            ):
                nats_BT = which(micro["tokens_BT"][:, :-1], micro["tokens_BT"][:, 1:])
            found += sequence_logp(nats_BT, micro["weights_BT"]).chunk(2)
        chosen_N, rejected_N, chosen_of_reference_N, rejected_of_reference_N = found
        margin_N = margins(chosen_N, rejected_N, chosen_of_reference_N, rejected_of_reference_N)
        return margin_N, (chosen_N - chosen_of_reference_N).detach()

    def loss(self, model: nn.Module, micro: Batch) -> Tensor:
        return dpo(self._margins(model, micro)[0], self.beta, self.doubt).mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        if self.valid is None:
            return {}
        margin_N, moved_N = gathered(self.valid, lambda micro: self._margins(model, micro), self.world)
        return {
            "nats": float(dpo(margin_N, self.beta, self.doubt).mean()),
            "accuracy": float((margin_N > 0).float().mean()),
            "margin": float(margin_N.mean()),
            "kl_chosen": -float(moved_N.mean()),
        }

    def dream(self, model: nn.Module) -> str:
        return ""


def gathered(rows: Comparisons, of: Any, world: World) -> list[Tensor]:
    """What `of` gives for each pair of an epoch, in the order of the epoch: every process looks at all of them."""
    parts: list[tuple[Tensor, ...]] = []
    for step in range(rows.steps):
        parts += [tuple(part.cpu() for part in of(micro.to(world.device))) for micro in rows.batch(step)]
    return [torch.cat(held)[: len(rows.pairs)] for held in zip(*parts, strict=True)]
