"""Reinforcement learning: the policy answers, a reward says how good that was, and it learns to answer better.

Every `updates` steps the engine makes `batch` replies with the policy's weights, `group` to each prompt; then the steps
learn from them, all of them in each. What the replies were worth is computed once, by the policy that said them; the
ratio of its probabilities to the engine's own, cut at `cap`, weighs each token (truncated importance sampling, Yao and
others 2025), and the size of that gap is logged. Three methods share all of this: PPO, GRPO and RLOO (see `ppo`,
`grpo`). Guarantee: replies are a function of the weights, the seed and the step, and those under way are in the
checkpoint, so that a run that was killed goes on exactly. Cost: the reference is a second model; a collection is the
engine's time, a pass of both models, and the reward's time. Every process makes all replies and learns from its share.

Shapes: B replies, P prompts, G replies to each of them, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twofile.errors import TrainError
from twofile.train.batch import Batch
from twofile.train.feedback import ppo
from twofile.train.feedback.grpo import group_advantages, kl_estimate, leave_one_out
from twofile.train.feedback.rollout import Reply, Rollouts
from twofile.train.parallel import World
from twofile.train.tune.settings import Settings

__all__ = ["METHODS", "OPTIONS", "Online", "Prompt", "Reward"]

METHODS = ("ppo", "grpo", "rloo")

OPTIONS: Mapping[str, Any] = {
    "method": "grpo",
    "group": 4,  # replies to a prompt
    "longest": 128,  # tokens of a reply
    "updates": 2,  # steps from the same replies
    "kl": 0.05,  # how dear it is to leave the reference
    "kl_target": 0.0,  # nats a reply that PPO adapts `kl` to; 0: leave it
    "clip": 0.2,
    "clip_high": 0.2,
    "cap": 2.0,  # of the correction for the engine's arithmetic
    "value": 0.1,  # weight of PPO's value loss
    "unfinished": 1.0,  # taken from the reward of a reply that did not end
    "spread": True,  # GRPO: divide by the group's standard deviation
}
"""The settings of the stage, and what they are where nothing else is asked for."""

_PARTS = ("weights", "old", "reference", "advantages", "correction")


@dataclass(frozen=True)
class Prompt:
    """A conversation to answer, its tokens, and what else its row had (for a reward that is a program)."""

    messages: tuple[Mapping[str, Any], ...]
    ids: tuple[int, ...]
    row: Mapping[str, Any]


Reward = Callable[[Sequence[Prompt], Sequence[Reply]], Sequence[float]]
"""How good each reply is to its prompt."""


class Online:
    """The stage. `settings.batch` counts replies; `settings.options` are those of OPTIONS. `policy` is the model that
    trains, an ActorCritic for PPO.

    Validation answers held-out prompts, once each, always with the same seeds: `cost` (the reward, less than nothing),
    then with `held_out_` before them `reward`, `kl` (nats a reply from the reference), `length`, `ended`, and `gold`,
    what `gauge` says: a reward that is measured by and not learned from."""

    def __init__(
        self,
        settings: Settings,
        policy: nn.Module,
        reference: nn.Module,
        rollouts: Rollouts,
        reward: Reward,
        learned: Sequence[Prompt],
        held_out: Sequence[Prompt],
        gauge: Reward | None = None,
    ) -> None:
        options = {**OPTIONS, **settings.options}
        self.name = self.method = str(options["method"])
        self.options, self.settings, self.world = options, settings, World.here()
        if self.method not in METHODS:
            raise TrainError(f"there is no method {self.method!r}", f"the methods are {', '.join(METHODS)}")
        self.group, self.updates = int(options["group"]), int(options["updates"])
        if settings.batch % self.group or self.group < (1 if self.method == "ppo" else 2):
            hint = "give a batch that is a multiple of group, and for grpo and rloo a group of 2 or more"
            raise TrainError(f"a batch of {settings.batch} replies in groups of {self.group}", hint)
        longest = max((len(prompt.ids) for prompt in (*learned, *held_out)), default=0) + int(options["longest"])
        if not learned or longest > settings.context + 1:
            what = f"prompt and reply may have {longest} tokens, the context holds {settings.context}"
            raise TrainError(what if learned else "there are no prompts", "give more or shorter prompts, or --longest")
        self.policy, self.rollouts, self.reward = policy, rollouts, reward
        self.reference = reference.eval().requires_grad_(False).to(self.world.device)
        self.learned, self.held_out, self.gauge = learned, held_out, gauge
        self.micros = settings.batch // settings.micro
        shape = (settings.batch, longest - 1)
        self.held = Batch(
            tokens_BT=torch.zeros(shape[0], longest, dtype=torch.int64),
            **{
                f"{name}_BT": torch.zeros(shape) for name in ("weights", "old", "reference", "advantages", "correction")
            },
        )
        if self.method == "ppo":
            self.held |= {f"{name}_BT": torch.zeros(shape) for name in ("values", "returns")}
        self.kl = torch.tensor(float(options["kl"]), dtype=torch.float64)
        self.collected = torch.tensor(-1)  # the step for which the replies were made
        self._figures: dict[str, float] = {}

    def tensors(self) -> dict[str, Tensor]:
        """What a run needs to go on, beside the model."""
        return {f"online.{name}": held for name, held in self.held.items()} | {
            "online.kl": self.kl,
            "online.collected": self.collected,
        }

    def figures(self) -> dict[str, float]:
        """Of the replies that are learned from now; nothing for those of a run that was resumed."""
        return self._figures

    def batch(self, step: int, rank: int = 0, size: int = 1) -> list[Batch]:
        first = step - step % self.updates
        if int(self.collected) != first:
            self._collect(first)
        micro = self.settings.micro
        starts = range(0, self.settings.batch, micro)
        scale = len(starts) / self.held["weights_BT"].sum()  # the loop takes the mean over micro-batches
        parts = [Batch({name: held[i : i + micro] for name, held in self.held.items()}) for i in starts]
        for part in parts:
            part["share_BT"] = part["weights_BT"] * scale
        return parts[rank::size]

    def tokens(self, step: int) -> int:
        return int(self.held["weights_BT"].sum())

    def loss(self, model: nn.Module, micro: Batch) -> Tensor:
        nats_BT, values_BT = self._say(model, micro["tokens_BT"])
        logp_BT = -nats_BT * micro["weights_BT"]  # outside the reply nothing may overflow
        clip = float(self.options["clip"]), float(self.options["clip_high"])
        loss_BT = ppo.policy_loss(logp_BT, micro["old_BT"], micro["advantages_BT"], *clip)
        if self.method == "grpo":
            loss_BT = loss_BT + float(self.kl) * kl_estimate(logp_BT, micro["reference_BT"])
        loss_BT = loss_BT * micro["correction_BT"]
        if values_BT is not None:
            value_BT = ppo.value_loss(values_BT, micro["values_BT"], micro["returns_BT"])
            loss_BT = loss_BT + float(self.options["value"]) * value_BT
        return (loss_BT * micro["share_BT"]).sum()

    def _say(self, model: nn.Module, tokens_BT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Nats of each token after the first, and values where the model has them."""
        with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=self.settings.plan.bfloat16):
            said = model(tokens_BT[:, :-1], tokens_BT[:, 1:])
        return said if isinstance(said, tuple) else (said, None)

    def _collect(self, step: int) -> None:
        """Replies for a step and those after it, and what they are worth."""
        settings = self.settings
        random = np.random.default_rng((settings.seed, step))
        chosen = _prompts(len(self.learned), settings.batch // self.group, settings.seed, step // self.updates)
        prompts = [self.learned[i] for i in chosen for _ in range(self.group)]
        seeds = random.integers(2**63, size=len(prompts)).tolist()
        replies, scores_B, weights_BT, old_BT, reference_BT, values_BT = self._answers(prompts, seeds, self.held)
        kl_B = ((old_BT - reference_BT) * weights_BT).sum(1)
        kl = float(self.kl)
        if self.method == "ppo":
            assert values_BT is not None, "PPO trains an ActorCritic"
            rewards_BT = ppo.penalised(scores_B, old_BT, reference_BT, weights_BT, kl)
            advantages_BT, returns_BT = ppo.gae(rewards_BT, values_BT, weights_BT)
            advantages_BT = ppo.whitened(advantages_BT, weights_BT)
            self.held["values_BT"].copy_(values_BT)
            self.held["returns_BT"].copy_(returns_BT)
            if target := float(self.options["kl_target"]):
                self.kl.fill_(ppo.adapt(kl, float(kl_B.mean()), target, len(replies)))
        else:
            worth_B = scores_B - kl * kl_B if self.method == "rloo" else scores_B
            worth_PG = worth_B.view(-1, self.group)
            spread = bool(self.options["spread"])
            better_PG = leave_one_out(worth_PG) if self.method == "rloo" else group_advantages(worth_PG, spread)
            advantages_BT = better_PG.reshape(-1, 1) * weights_BT
        gap_BT = (old_BT - self.held["correction_BT"]) * weights_BT  # there the engine's own were put
        self.held["correction_BT"].copy_(gap_BT.exp().clamp(max=float(self.options["cap"])))
        for name, found in (("weights", weights_BT), ("old", old_BT), ("reference", reference_BT)):
            self.held[f"{name}_BT"].copy_(found)
        self.held["advantages_BT"].copy_(advantages_BT)
        self.collected.fill_(step)
        tokens = float(weights_BT.sum())
        self._figures = {
            "reward": float(scores_B.mean()),
            "kl": float(kl_B.mean()),
            "length": tokens / len(replies),
            "ended": sum(reply.ended for reply in replies) / len(replies),
            "gap": float(gap_BT.abs().sum()) / tokens,
            "gap_largest": float(gap_BT.abs().max()),
            "kl_coefficient": kl,
        }

    def _answers(self, prompts: Sequence[Prompt], seeds: Sequence[int], held: Batch) -> Any:
        """Answer the prompts into `held` (tokens, and ln p of the engine as `correction_BT`); the replies, their
        rewards, where their tokens stand, and what policy and reference (and values) say of them."""
        self.rollouts.load(self.policy)
        replies = self.rollouts.replies([prompt.ids for prompt in prompts], seeds, int(self.options["longest"]))
        scores = self.reward(prompts, replies)
        unfinished = float(self.options["unfinished"])
        scores_B = torch.tensor([s - unfinished * (not r.ended) for s, r in zip(scores, replies, strict=True)])
        tokens_BT, engine_BT = held["tokens_BT"].zero_(), held["correction_BT"].zero_()
        weights_BT = torch.zeros_like(engine_BT)
        for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            start, end = len(prompt.ids), len(prompt.ids) + len(reply.ids)
            tokens_BT[i, :end] = torch.tensor((*prompt.ids, *reply.ids))
            weights_BT[i, start - 1 : end - 1] = 1.0
            engine_BT[i, start - 1 : end - 1] = torch.tensor(reply.logp)
        policy, training = self.policy, self.policy.training
        policy.eval()
        found: list[list[Tensor]] = [[], [], []]
        with torch.no_grad():
            for i in range(0, len(replies), self.settings.micro):
                part_BT = tokens_BT[i : i + self.settings.micro].to(self.world.device)
                nats_BT, values_BT = self._say(policy, part_BT)
                found[0].append(-nats_BT.cpu())
                found[1].append(-self._say(self.reference, part_BT)[0].cpu())
                if values_BT is not None:
                    found[2].append(values_BT.cpu())
        policy.train(training)
        old_BT, reference_BT = (torch.cat(part) * weights_BT for part in found[:2])
        values = torch.cat(found[2]) * weights_BT if found[2] else None
        return replies, scores_B, weights_BT, old_BT, reference_BT, values

    def validate(self, model: nn.Module) -> dict[str, float]:
        if not self.held_out:
            return {}
        longest = max(len(prompt.ids) for prompt in self.held_out) + int(self.options["longest"])
        shape = (len(self.held_out), longest)
        held = Batch(tokens_BT=torch.zeros(shape, dtype=torch.int64), correction_BT=torch.zeros(shape[0], longest - 1))
        replies, scores_B, weights_BT, old_BT, reference_BT, _ = self._answers(
            self.held_out, range(len(self.held_out)), held
        )
        return {
            "cost": -float(scores_B.mean()),
            "held_out_reward": float(scores_B.mean()),
            "held_out_kl": float(((old_BT - reference_BT) * weights_BT).sum(1).mean()),
            "held_out_length": float(weights_BT.sum()) / len(replies),
            "held_out_ended": sum(reply.ended for reply in replies) / len(replies),
        } | ({"held_out_gold": float(np.mean(self.gauge(self.held_out, replies)))} if self.gauge else {})

    def dream(self, model: nn.Module) -> str:
        """A held-out prompt, and what the policy makes of it."""
        if not self.held_out:
            return ""
        self.rollouts.load(self.policy)
        (reply,) = self.rollouts.replies([self.held_out[0].ids], [self.settings.seed], int(self.options["longest"]))
        return f"{self.held_out[0].messages[-1].get('content')} -> {reply.text}"


def _prompts(count: int, wanted: int, seed: int, turn: int) -> list[int]:
    """Which prompts a collection answers: every one once an epoch, in an order drawn from the seed."""
    first, last = turn * wanted // count, (turn + 1) * wanted // count
    orders = [np.random.default_rng((seed, 1, epoch)).permutation(count) for epoch in range(first, last + 1)]
    start = turn * wanted - first * count
    found: list[int] = np.concatenate(orders)[start : start + wanted].tolist()
    return found
