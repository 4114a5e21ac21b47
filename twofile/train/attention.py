"""Attention for training: each token over itself and what came before it.

On a GPU it is PyTorch's own. On a CPU that one takes a third of a training step for a tenth of its operations
(docs/LOG.md), so there the scores are made by matrix products, 128 queries at a time against the keys that they may
see, which leaves out most of the upper half. Guarantee: the same result up to rounding. Cost on a CPU: for each layer,
batch * heads * T * (T + 128) / 2 weights kept for the backward pass; 4 * T * E operations a token and head, half of
that for long contexts.

Shapes: B batch, T time, H query heads, K key/value heads, G = H / K, E head_dim, C chunk, S keys seen by a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attention"]

_CHUNK = 128


def attention(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask_BTT: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(E)) v for each head, [B, T, H * E].

    `mask_BTT`: what each token may see, which is never more than the past; all of it where there is none."""
    if q_BTHE.device.type == "cpu":
        return _chunks(q_BTHE, k_BTKE, v_BTKE, mask_BTT)
    q_BHTE, k_BKTE, v_BKTE = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
    if mask_BTT is not None:  # no fast kernel takes a mask and groups
        group = q_BHTE.shape[1] // k_BKTE.shape[1]
        k_BKTE, v_BKTE = k_BKTE.repeat_interleave(group, 1), v_BKTE.repeat_interleave(group, 1)
    y_BHTE = F.scaled_dot_product_attention(
        q_BHTE,
        k_BKTE,
        v_BKTE,
        attn_mask=None if mask_BTT is None else mask_BTT[:, None],
        is_causal=mask_BTT is None,
        enable_gqa=mask_BTT is None,
    )
    return y_BHTE.transpose(1, 2).flatten(2)


def _chunks(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask_BTT: Tensor | None) -> Tensor:
    B, T, H, E = q_BTHE.shape
    K = k_BTKE.shape[2]
    G = H // K
    q_BKGTE = q_BTHE.view(B, T, K, G, E).permute(0, 2, 3, 1, 4)
    k_NET = k_BTKE.permute(0, 2, 3, 1).reshape(B * K, E, T)
    v_NTE = v_BTKE.transpose(1, 2).reshape(B * K, T, E)
    past_CC = torch.ones(_CHUNK, _CHUNK, dtype=torch.bool, device=q_BTHE.device).tril()
    found = []
    for first in range(0, T, _CHUNK):
        end = min(first + _CHUNK, T)
        C = end - first
        q_NQE = q_BKGTE[:, :, :, first:end].reshape(B * K, G * C, E)
        scores = (torch.bmm(q_NQE, k_NET[:, :, :end]).float() * E**-0.5).view(B, K, G, C, end)
        if mask_BTT is None:
            last = scores[..., first:].masked_fill(~past_CC[:C, :C], float("-inf"))
            scores = torch.cat((scores[..., :first], last), -1)
        else:
            scores = scores.masked_fill(~mask_BTT[:, None, None, first:end, :end], float("-inf"))
        weights_NQS = scores.softmax(-1).to(v_BTKE.dtype).view(B * K, G * C, end)
        found.append(torch.bmm(weights_NQS, v_NTE[:, :end]).view(B, K, G, C, E))
    return torch.cat(found, 3).permute(0, 3, 1, 2, 4).reshape(B, T, H * E)
