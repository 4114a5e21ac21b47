"""Attention in chunks against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from twofile.train.attention import attention
from twofile.train.model import within


@pytest.mark.parametrize("length", [1, 7, 128, 129, 300])
@pytest.mark.parametrize("documents", [False, True])
def test_it_is_attention(length: int, documents: bool) -> None:
    chance = torch.Generator().manual_seed(length)
    q = torch.randn(2, length, 6, 8, generator=chance, requires_grad=True)
    k, v = (torch.randn(2, length, 2, 8, generator=chance, requires_grad=True) for _ in "kv")
    tokens = torch.randint(0, 20, (2, length), generator=chance)
    mask = within((tokens == 0).cumsum(1)) if documents else torch.ones(2, length, length, dtype=torch.bool).tril()
    expected = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask[:, None], enable_gqa=True
    )
    expected = expected.transpose(1, 2).flatten(2)
    ours = attention(q, k, v, mask if documents else None)
    assert torch.allclose(ours, expected, atol=1e-5)
    what = torch.randn(expected.shape, generator=chance)
    theirs = torch.autograd.grad((expected * what).sum(), (q, k, v))
    for mine, their in zip(torch.autograd.grad((ours * what).sum(), (q, k, v)), theirs, strict=True):
        assert torch.allclose(mine, their, atol=1e-4)
