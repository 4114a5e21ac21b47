"""Models that say a number beside or in place of the next token: a reward, or what is to be expected.

Both are the transformer of `train.model` with a linear head on what its last layer says; weights have their GGUF names,
and the head is the caller's to keep. Rows have at most as many tokens as the context, and padding after them.
Shapes: B rows, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twofile.params.hyper import Hyperparameters
from twofile.train.model import Transformer

__all__ = ["ActorCritic", "RewardModel", "sequence_logp"]


def sequence_logp(nats_BT: Tensor, weights_BT: Tensor) -> Tensor:
    """ln p of each row's reply, [B]."""
    return -(nats_BT * weights_BT).sum(1)


class RewardModel(Transformer):
    """Rows to rewards [B], read where a reply's last token stands (`weights_BT` as in `comparisons.batch_of`)."""

    def __init__(self, hyper: Hyperparameters) -> None:
        super().__init__(hyper)
        self.reward = nn.Linear(hyper.dim, 1)
        nn.init.zeros_(self.reward.weight)
        nn.init.zeros_(self.reward.bias)
        if self.output is not None:
            self.output.requires_grad_(False)  # nothing reads it

    def forward(self, tokens_BT: Tensor, weights_BT: Tensor) -> Tensor:  # type: ignore[override]
        T = weights_BT.shape[1]
        last_B = T - weights_BT.flip(1).argmax(1)  # the token that the last weight predicts
        hidden_BTD = self.hidden(tokens_BT[:, : self.hyper.context_length])  # what is cut is padding
        rows_B = torch.arange(len(last_B), device=last_B.device)
        with torch.autocast(tokens_BT.device.type, enabled=False):  # rewards need more than 8 bits
            rewards_B: Tensor = self.reward(hidden_BTD[rows_B, last_B].float())[:, 0]
        return rewards_B


class ActorCritic(Transformer):
    """Rows to the nats of their next tokens and, at each token, the score that is expected in the end: both [B, T]."""

    def __init__(self, hyper: Hyperparameters) -> None:
        super().__init__(hyper)
        self.value = nn.Linear(hyper.dim, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        head_VD = self.token_embd.weight if self.output is None else self.output.weight
        hidden_BTD = self.hidden(tokens_BT)
        with torch.autocast(tokens_BT.device.type, enabled=False):  # values need more than 8 bits
            values_BT: Tensor = self.value(hidden_BTD.float())[..., 0]
        return self.nats(hidden_BTD, head_VD, targets_BT), values_BT
