"""A reward model: a number for a reply, such that replies that people prefer have the larger one.

It is a transformer with one more row, read at the reply's last token, trained on pairs (see `bradley_terry`). Its file
is an ordinary parameters file whose metadata holds that row. Afterwards rewards are shifted so that their mean over the
held-out replies is 0. Cost: as fine-tuning on both sides of each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twofile.errors import TrainError
from twofile.params.parameters import Parameters
from twofile.train.batch import Batch
from twofile.train.feedback.bradley_terry import bradley_terry
from twofile.train.feedback.comparisons import Comparison, Comparisons, batch_of
from twofile.train.feedback.heads import RewardModel
from twofile.train.feedback.preference import gathered
from twofile.train.parallel import World
from twofile.train.start import Start
from twofile.train.tune.examples import Example
from twofile.train.tune.settings import Settings

__all__ = ["Rewarding", "centre", "head", "open_reward_model", "scores"]

WEIGHT, BIAS = "twofile.reward.weight", "twofile.reward.bias"


class Rewarding:
    """The stage. `settings.options` has `centre` (see `bradley_terry`).

    Validation gives `nats`, -ln p of a held-out choice (0.693 is chance), `accuracy`, and `mean`, of all rewards."""

    name = "reward"

    def __init__(self, settings: Settings, learned: Sequence[Comparison], held_out: Sequence[Comparison]) -> None:
        self.settings, self.world = settings, World.here()
        self.centre = float(settings.options["centre"])
        self.rows = Comparisons(learned, settings.batch, settings.micro, settings.seed)
        self.valid = Comparisons(held_out, settings.micro, settings.micro, 0) if held_out else None
        self.micros, self.batch, self.tokens = self.rows.micros, self.rows.batch, self.rows.tokens

    def _rewards(self, model: nn.Module, micro: Batch) -> tuple[Tensor, Tensor]:
        """Of the chosen and of the rejected replies, each [N]."""
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.settings.plan.bfloat16):
            chosen_N, rejected_N = model(micro["tokens_BT"], micro["weights_BT"]).chunk(2)
        return chosen_N, rejected_N

    def loss(self, model: nn.Module, micro: Batch) -> Tensor:
        return bradley_terry(*self._rewards(model, micro), self.centre).mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        if self.valid is None:
            return {}
        chosen_N, rejected_N = gathered(self.valid, lambda micro: self._rewards(model, micro), self.world)
        return {
            "nats": float(bradley_terry(chosen_N, rejected_N, 0.0).mean()),
            "accuracy": float((chosen_N > rejected_N).float().mean()),
            "mean": float((chosen_N + rejected_N).mean()) / 2,
        }

    def dream(self, model: nn.Module) -> str:
        return ""


@torch.no_grad()
def scores(model: RewardModel, examples: Sequence[Example], micro: int = 32) -> Tensor:
    """Rewards of conversations that end with a reply, [N], on the CPU. Rows of like lengths are read together."""
    model.eval()
    device = model.token_embd.weight.device
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    found = torch.zeros(len(examples))
    for start in range(0, len(order), micro):
        part = order[start : start + micro]
        batch = batch_of([examples[i] for i in part]).to(device)
        found[part] = model(batch["tokens_BT"], batch["weights_BT"]).float().cpu()
    return found


@torch.no_grad()
def centre(model: RewardModel, pairs: Sequence[Comparison]) -> float:
    """Shift all rewards so that their mean over both sides of these pairs is 0; by how much that was."""
    mean = float(scores(model, [side for pair in pairs for side in (pair.chosen, pair.rejected)]).mean())
    model.reward.bias.sub_(mean)
    return mean


def head(model: RewardModel) -> dict[str, Any]:
    """The metadata that hold the row."""
    return {WEIGHT: model.reward.weight[0].tolist(), BIAS: model.reward.bias.item()}


def open_reward_model(path: Path) -> RewardModel:
    """The reward model in a file. TrainError where it is another model."""
    with Parameters.open(path) as file:
        weight, bias = file.metadata.get(WEIGHT), file.metadata.get(BIAS)
    start = Start.open(path)
    if not isinstance(weight, list) or not isinstance(bias, float) or len(weight) != start.hyper.dim:
        raise TrainError(f"{path} is no reward model", "twofile reward NAME PAIRS --out NAME makes one")
    model = start.model(RewardModel)
    with torch.no_grad():
        model.reward.weight.copy_(torch.tensor([weight]))
        model.reward.bias.fill_(bias)
    return model
