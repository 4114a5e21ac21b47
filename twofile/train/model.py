"""The model that is trained, in PyTorch: Qwen3, which pretraining makes, and Qwen2 and Llama, which can be tuned.

RMSNorm before every part, rotary positions, grouped-query attention, SwiGLU. Qwen3 has a norm over each query and key
head (QK-norm), Qwen2 biases in their place; Llama turns neighbouring numbers of a head, the others its two halves.
Guarantee: `state_dict()` has exactly the tensor names and shapes of a GGUF file of the same hyperparameters (without
rope_freqs.weight, which nobody trains), so export is a copy. Cost: about 6 * n_parameters floating-point operations for
each token of a training step, and memory for the logits, batch * context * vocabulary floats.

Shapes: B batch, T time, D dim, H query heads, K key/value heads, E head_dim, F ffn_dim, V vocabulary.
Source: Qwen3 Technical Report, arXiv:2505.09388.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofile.errors import TrainError
from twofile.params.hyper import Hyperparameters
from twofile.train.attention import attention


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in float32 and returned in the type of `x`."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x.dtype)


def rotary(hyper: Hyperparameters) -> tuple[Tensor, Tensor]:
    """cos and sin of position * frequency, each [T, E/2]; llama 3's factors and linear scaling divide both."""
    E = hyper.head_dim
    frequency = hyper.rope_theta ** (-torch.arange(0, E, 2, dtype=torch.float64) / E)
    if hyper.rope_factors is not None:
        frequency = frequency / torch.tensor(hyper.rope_factors, dtype=torch.float64)
    position_T = torch.arange(hyper.context_length, dtype=torch.float64) / hyper.rope_scale
    angle_TE = torch.outer(position_T, frequency)
    return angle_TE.cos().float(), angle_TE.sin().float()


def rotate(x_BTHE: Tensor, cos_TE: Tensor, sin_TE: Tensor, halves: bool = True) -> Tensor:
    """Turn each pair by the angle of its position and frequency: x[i] with x[i + E/2] where `halves`, else x[2i] with
    x[2i + 1]."""
    a, b = x_BTHE.chunk(2, dim=-1) if halves else x_BTHE.view(*x_BTHE.shape[:-1], -1, 2).unbind(-1)
    cos, sin = cos_TE[:, None, :].to(x_BTHE.dtype), sin_TE[:, None, :].to(x_BTHE.dtype)
    turned = a * cos - b * sin, b * cos + a * sin
    return torch.cat(turned, dim=-1) if halves else torch.stack(turned, dim=-1).flatten(-2)


class Block(nn.Module):
    """Attention, then SwiGLU, each added to the residual stream."""

    def __init__(self, hyper: Hyperparameters) -> None:
        super().__init__()
        self.hyper = hyper
        dim, q, kv = hyper.dim, hyper.n_heads * hyper.head_dim, hyper.n_kv_heads * hyper.head_dim
        self.attn_norm = RMSNorm(dim, hyper.norm_eps)
        bias = hyper.architecture == "qwen2"
        self.attn_q = nn.Linear(dim, q, bias=bias)
        self.attn_k = nn.Linear(dim, kv, bias=bias)
        self.attn_v = nn.Linear(dim, kv, bias=bias)
        if hyper.architecture == "qwen3":
            self.attn_q_norm = RMSNorm(hyper.head_dim, hyper.norm_eps)
            self.attn_k_norm = RMSNorm(hyper.head_dim, hyper.norm_eps)
        self.attn_output = nn.Linear(q, dim, bias=False)
        self.ffn_norm = RMSNorm(dim, hyper.norm_eps)
        self.ffn_gate = nn.Linear(dim, hyper.ffn_dim, bias=False)
        self.ffn_up = nn.Linear(dim, hyper.ffn_dim, bias=False)
        self.ffn_down = nn.Linear(hyper.ffn_dim, dim, bias=False)

    def attend(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor, mask_BTT: Tensor | None) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BTHE, k_BTKE, v_BTKE = (
            part(x_BTD).view(B, T, -1, self.hyper.head_dim) for part in (self.attn_q, self.attn_k, self.attn_v)
        )
        if self.hyper.architecture == "qwen3":
            q_BTHE, k_BTKE = self.attn_q_norm(q_BTHE), self.attn_k_norm(k_BTKE)
        halves = self.hyper.architecture != "llama"
        q_BTHE, k_BTKE = rotate(q_BTHE, cos_TE, sin_TE, halves), rotate(k_BTKE, cos_TE, sin_TE, halves)
        y_BTD: Tensor = self.attn_output(attention(q_BTHE, k_BTKE, v_BTKE, mask_BTT))
        return y_BTD

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor, mask_BTT: Tensor | None = None) -> Tensor:
        x_BTD = x_BTD + self.attend(self.attn_norm(x_BTD), cos_TE, sin_TE, mask_BTT)
        y_BTD = self.ffn_norm(x_BTD)
        x_BTD = x_BTD + self.ffn_down(F.silu(self.ffn_gate(y_BTD)) * self.ffn_up(y_BTD))
        return x_BTD


def within(documents_BT: Tensor) -> Tensor:
    """What each token may see, [B, T, T]: itself and what came before it of the same document."""
    T = documents_BT.shape[1]
    causal_TT = torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()
    return (documents_BT[:, :, None] == documents_BT[:, None, :]) & causal_TT


class Transformer(nn.Module):
    """Tokens [B, T] to logits [B, T, V] (float32 under float32 compute), or to the nats of given targets [B, T].

    `documents_BT`: the number of the document that each token belongs to, where attention is to stay within them."""

    cos_TE: Tensor
    sin_TE: Tensor

    def __init__(self, hyper: Hyperparameters) -> None:
        super().__init__()
        self.hyper = hyper
        self.token_embd = nn.Embedding(hyper.vocab_size, hyper.dim)
        self.blk = nn.ModuleList(Block(hyper) for _ in range(hyper.n_layers))
        self.output_norm = RMSNorm(hyper.dim, hyper.norm_eps)
        self.output = None if hyper.tied else nn.Linear(hyper.dim, hyper.vocab_size, bias=False)
        cos_TE, sin_TE = rotary(hyper)
        self.register_buffer("cos_TE", cos_TE, persistent=False)
        self.register_buffer("sin_TE", sin_TE, persistent=False)
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights from torch's generator; parts that write to the residual stream start at zero."""
        for name, weight in self.named_parameters():
            if weight.ndim != 2:
                nn.init.constant_(weight, 0.0 if name.endswith(".bias") else 1.0)
            elif name.endswith(("attn_output.weight", "ffn_down.weight")):
                nn.init.zeros_(weight)
            elif name in ("token_embd.weight", "output.weight"):
                nn.init.normal_(weight, std=0.02)
            else:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """What the last layer says of each token, normed, [B, T, D]: what a head of any stage reads."""
        T = tokens_BT.shape[1]
        if T > self.hyper.context_length:
            raise TrainError(f"{T} tokens are more than the context of {self.hyper.context_length}")
        mask_BTT = None if documents_BT is None else within(documents_BT)
        x_BTD = self.token_embd(tokens_BT)
        for block in self.blk:
            x_BTD = block(x_BTD, self.cos_TE[:T], self.sin_TE[:T], mask_BTT)
        normed: Tensor = self.output_norm(x_BTD)
        return normed

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor:
        head_VD = self.token_embd.weight if self.output is None else self.output.weight
        x_BTD = self.hidden(tokens_BT, documents_BT)
        return F.linear(x_BTD, head_VD) if targets_BT is None else self.nats(x_BTD, head_VD, targets_BT)

    def nats(self, x_BTD: Tensor, head_VD: Tensor, targets_BT: Tensor) -> Tensor:
        """-ln of the probability of each target, [B, T], in float32."""
        logits_NV = F.linear(x_BTD, head_VD).flatten(0, 1).float()
        return F.cross_entropy(logits_NV, targets_BT.flatten(), reduction="none").view_as(targets_BT)

    def compile_parts(self) -> None:
        """Compile what is run again and again: all layers share one compilation, which takes seconds, not minutes."""
        for block in self.blk:
            block.compile()
        self.nats = torch.compile(self.nats)  # type: ignore[method-assign]


def operations(hyper: Hyperparameters) -> float:
    """Floating-point operations that a token costs in training, forward and backward.

    6 for each weight it is multiplied with, the head among them, and attention over half of the context
    (arXiv:2001.08361, arXiv:2204.02311)."""
    multiplied = hyper.n_parameters - (0 if hyper.tied else hyper.vocab_size * hyper.dim)
    return 6.0 * multiplied + 6.0 * hyper.n_layers * hyper.n_heads * hyper.head_dim * hyper.context_length
