"""Are our losses those of TRL? The same random log-probabilities, rewards and masks go through both.

    .venv/bin/python bench/losses.py [--rounds 100]        # needs trl: pip install 'twofile[bench]'

Ours are the losses of the stages themselves (`Preference`, `Rewarding`, `Online`); theirs those of DPOTrainer,
RewardTrainer and GRPOTrainer, whose models are replaced by the shared tensors. GRPO is compared as TRL's loss type
bnpo, which weighs tokens as ours. TRL has no PPO any more: tests/train/feedback/test_objectives.py checks ours by hand.
Exit status 1 where two values differ by more than 1e-5.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn
from trl import DPOTrainer, GRPOTrainer, RewardTrainer

from twofile.train.batch import Batch
from twofile.train.feedback.online import OPTIONS, Online
from twofile.train.feedback.preference import Preference
from twofile.train.feedback.reward import Rewarding
from twofile.train.loop import Plan
from twofile.train.parallel import World
from twofile.train.tune.settings import Settings

NEAR = 1e-5
B, T = 8, 24


class Says(nn.Module):
    """A model that gives the same tensor whatever it is asked."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self, *_: Any) -> Tensor:
        return self.tensor


def stage(kind: type[Any], method: str, options: dict[str, Any]) -> Any:
    """A stage of ours without data."""
    made: Any = object.__new__(kind)
    plan = Plan(steps=1, bfloat16=False)
    made.settings = Settings(method, Path(), (), plan, T, batch=B, micro=B, options=options)
    made.world, made.options, made.method = World.here(), {**OPTIONS, **options}, method
    return made


def theirs() -> Any:
    """A trainer of theirs, of which the settings that matter are set and everything else is nothing."""
    trainer = MagicMock()
    trainer.model.training = True
    trainer.aux_loss_enabled = False
    trainer.accelerator.device = torch.device("cpu")
    trainer.accelerator.gather = trainer.accelerator.gather_for_metrics = lambda x: x
    trainer._total_train_tokens, trainer._tp_size = 0, 1
    return trainer


def dpo(draw: torch.Generator) -> tuple[float, float]:
    logp_BT, reference_BT = (-4 * torch.rand(B, T, generator=draw) for _ in range(2))
    mask_BT = (torch.rand(B, T, generator=draw) < 0.7).float()
    beta, doubt = float(torch.rand((), generator=draw)), float(0.4 * torch.rand((), generator=draw))
    ours = stage(Preference, "dpo", {})
    ours.beta, ours.doubt, ours.reference = beta, doubt, Says(-reference_BT)
    micro = Batch(tokens_BT=torch.zeros(B, T + 1, dtype=torch.int64), weights_BT=mask_BT)
    found = ours.loss(Says(-logp_BT), micro)
    # theirs has no doubt: ours is the mixture of its loss for the pairs and for the pairs turned round
    kept, turned = (_dpo_of_trl(beta, logp_BT, reference_BT, mask_BT, turn=turn) for turn in (False, True))
    return float(found), (1 - doubt) * kept + doubt * turned


def _dpo_of_trl(beta: float, *given: Tensor, turn: bool) -> float:
    logp_BT, reference_BT, mask_BT = (torch.cat(x.chunk(2)[::-1]) if turn else x for x in given)
    trainer = theirs()
    trainer.ld_alpha, trainer.precompute_ref_logps, trainer.f_divergence_type = None, False, "reverse_kl"
    trainer.beta, trainer.loss_types, trainer.loss_weights, trainer.label_smoothing = beta, ["sigmoid"], [1.0], 0.0
    trainer.use_weighting = False
    trainer.ref_model = lambda **_: SimpleNamespace(log_probs=reference_BT * mask_BT)

    def model(**_: Any) -> Any:
        zeros_BT = torch.zeros(B, T)
        shown = {"entropy": zeros_BT, "mean_logits": zeros_BT, "is_top1": zeros_BT.bool()}  # which theirs logs
        return SimpleNamespace(log_probs=logp_BT * mask_BT, **shown)

    inputs = {
        "input_ids": torch.zeros(B, T + 1, dtype=torch.int64),
        "attention_mask": torch.ones(B, T + 1),
        "completion_mask": torch.cat((torch.zeros(B, 1), mask_BT), 1),
    }
    return float(DPOTrainer._compute_loss(trainer, model, inputs, False))


def reward(draw: torch.Generator) -> tuple[float, float]:
    rewards_B = 3 * torch.randn(B, generator=draw)
    ours = stage(Rewarding, "reward", {})
    ours.centre = float(torch.rand((), generator=draw))
    micro = Batch(tokens_BT=torch.zeros(B, T + 1, dtype=torch.int64), weights_BT=torch.ones(B, T))
    found = ours.loss(Says(rewards_B), micro)
    trainer = theirs()
    trainer.args.center_rewards_coefficient = ours.centre
    inputs: dict[str, Any] = {"attention_mask": torch.ones(B, T)}
    other = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=rewards_B[:, None]), inputs)
    return float(found), float(other)


def grpo(draw: torch.Generator) -> tuple[float, float]:
    logp_BT, old_BT, reference_BT = (-4 * torch.rand(B, T, generator=draw) for _ in range(3))
    mask_BT = (torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=draw)).float()
    advantages_B = torch.randn(B, generator=draw)
    low, high, kl = (float(x) for x in 0.5 * torch.rand(3, generator=draw))
    ours = stage(Online, "grpo", {"clip": low, "clip_high": high})
    ours.kl = torch.tensor(kl)
    micro = Batch(
        tokens_BT=torch.zeros(B, T + 1, dtype=torch.int64), old_BT=old_BT, reference_BT=reference_BT,
        advantages_BT=advantages_B[:, None] * mask_BT, correction_BT=torch.ones(B, T),
        share_BT=mask_BT / mask_BT.sum(),
    )  # fmt: skip
    found = ours.loss(Says(-logp_BT), micro)
    trainer = theirs()
    trainer._get_per_token_logps_and_entropies.return_value = (logp_BT, torch.zeros(B, T), None)
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold = 1.0, None
    trainer.importance_sampling_level, trainer.beta, trainer.args.use_bias_correction_kl = "token", kl, False
    trainer.loss_type, trainer.epsilon_low, trainer.epsilon_high, trainer.args.delta = "bnpo", low, high, None
    trainer.current_gradient_accumulation_steps, trainer.use_vllm, trainer._entropy_bonus_enabled = 1, False, False
    trainer.use_transformers_continuous_batching = trainer.vllm_importance_sampling_correction = False
    inputs = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.int64), "prompt_mask": torch.ones(B, 1),
        "completion_ids": torch.zeros(B, T, dtype=torch.int64), "completion_mask": mask_BT,
        "advantages": advantages_B, "old_per_token_logps": old_BT, "ref_per_token_logps": reference_BT,
    }  # fmt: skip
    return float(found), float(GRPOTrainer._compute_loss(trainer, MagicMock(), inputs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    far = False
    for name, both in (("dpo", dpo), ("reward", reward), ("grpo", grpo)):
        draw = torch.Generator().manual_seed(1)
        gaps = [abs(ours - other) for ours, other in (both(draw) for _ in range(given.rounds))]
        print(f"{name}: {given.rounds} losses, largest difference {max(gaps):.1e}")
        far |= not max(gaps) <= NEAR
    sys.exit(far)


if __name__ == "__main__":
    main()
