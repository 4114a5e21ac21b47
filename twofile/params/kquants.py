"""Quantising to llama.cpp's K types: blocks of 256 numbers with small integer scales for their parts.

The `gguf` package reads these three types but cannot write them. The layouts are those of ggml-common.h, and the choice
of scales is that of ggml-quants.c (`make_qkx2_quants`, `make_qx_quants`): a few roundings are tried for each part, for
each of them the scale (and minimum) is the weighted least-squares fit, and the best is kept. Here it is written for
many blocks at once. Costs about a fifth of a microsecond a number and some 40 bytes a number of scratch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENCODERS"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
BLOCK = 256


def encode_q4_k(x: Floats) -> Bytes:
    """(blocks, 256) to (blocks, 144): 8 parts of 32; number = d*scale*q - dmin*minimum, q of 4 bits."""
    header, q = _scales_and_minima(x, largest=15, start=-1.0, steps=20)
    return np.concatenate([header, _nibbles(q)], axis=1)


def encode_q5_k(x: Floats) -> Bytes:
    """(blocks, 256) to (blocks, 176): as Q4_K with q of 5 bits, the fifth bits of all 8 parts together."""
    header, q = _scales_and_minima(x, largest=31, start=-0.5, steps=15)
    high = np.bitwise_or.reduce(q >> 4 << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    return np.concatenate([header, high, _nibbles(q & np.uint8(15))], axis=1)


def encode_q6_k(x: Floats) -> Bytes:
    """(blocks, 256) to (blocks, 210): 16 parts of 16; number = d*scale*(q - 32), q of 6 bits, scale of 8."""
    parts = x.reshape(-1, 16, 16)
    scale_np = _scale(parts, 32)
    largest = np.take_along_axis(scale_np, np.abs(scale_np).argmax(axis=1)[:, None], axis=1)
    d = _divide(largest, np.float32(-128)).astype(np.float16)
    scales = np.minimum(np.rint(_divide(scale_np * -128, largest)), 127).astype(np.int8)
    step = d.astype(np.float32) * scales
    q = (np.clip(np.rint(_divide(parts, step[:, :, None])), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = q & 15
    ql = np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    qh = np.bitwise_or.reduce(q >> 4 << np.array([0, 2, 4, 6], np.uint8)[:, None], axis=2)
    return np.concatenate([_flat(ql), _flat(qh), scales.view(np.uint8), d.view(np.uint8)], axis=1)


ENCODERS: dict[str, Callable[[Floats], Bytes]] = {"Q4_K": encode_q4_k, "Q5_K": encode_q5_k, "Q6_K": encode_q6_k}


def _scales_and_minima(x: Floats, largest: int, start: float, steps: int) -> tuple[Bytes, Bytes]:
    """The first 16 bytes of Q4_K and Q5_K blocks, and q (blocks, 8, 32) of at most `largest`."""
    parts = x.reshape(-1, 8, 32)
    weight = np.sqrt(np.mean(parts * parts, axis=-1, keepdims=True)) + np.abs(parts)
    scale, minimum = _fit(parts, weight, largest, start, steps)
    d = (scale.max(axis=1, keepdims=True) / 63).astype(np.float16)
    dmin = (minimum.max(axis=1, keepdims=True) / 63).astype(np.float16)
    ls = np.minimum(np.rint(_divide(scale * 63, scale.max(axis=1, keepdims=True))), 63).astype(np.uint8)
    lm = np.minimum(np.rint(_divide(minimum * 63, minimum.max(axis=1, keepdims=True))), 63).astype(np.uint8)
    step = (d.astype(np.float32) * ls)[:, :, None]
    shift = (dmin.astype(np.float32) * lm)[:, :, None]
    q = np.clip(np.rint(_divide(parts + shift, step)), 0, largest).astype(np.uint8)
    # Sixteen numbers of 6 bits in twelve bytes: the first four of each in the low bits, the others' top two bits above.
    packed = [ls[:, :4] | ls[:, 4:] >> 4 << 6, lm[:, :4] | lm[:, 4:] >> 4 << 6, ls[:, 4:] & 15 | (lm[:, 4:] & 15) << 4]
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), *packed], axis=1), q


def _fit(x: Floats, weight: Floats, largest: int, start: float, steps: int) -> tuple[Floats, Floats]:
    """scale, minimum >= 0 with x ~ scale*q - minimum over the last axis (`make_qkx2_quants`)."""
    low = np.minimum(x.min(axis=-1), 0)
    reach = x.max(axis=-1) - low
    sum_w, sum_x = weight.sum(axis=-1), (weight * x).sum(axis=-1)
    best_scale, best_low = reach / largest, low
    best_error = np.full(low.shape, np.inf, np.float32)
    for step in range(-1, steps + 1):
        inverse = _divide(np.float32(largest if step < 0 else start + 0.1 * step + largest), reach)
        q = np.clip(np.rint(inverse[..., None] * (x - low[..., None])), 0, largest)
        if step < 0:  # the plain rounding, unfitted, is what the others must beat
            scale, floor = best_scale, best_low
        else:
            wq = weight * q
            sum_q, sum_qq, sum_qx = wq.sum(axis=-1), (wq * q).sum(axis=-1), (wq * x).sum(axis=-1)
            determinant = sum_w * sum_qq - sum_q * sum_q
            scale = _divide(sum_w * sum_qx - sum_x * sum_q, determinant)
            floor = _divide(sum_qq * sum_x - sum_q * sum_qx, determinant)
            scale = np.where(floor > 0, _divide(sum_qx, sum_qq), scale)
            floor = np.minimum(floor, 0)
        error = (weight * (scale[..., None] * q + floor[..., None] - x) ** 2).sum(axis=-1)
        better = (error < best_error) & (scale >= 0)
        best_error = np.where(better, error, best_error)
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, floor, best_low)
    return best_scale, -best_low


def _scale(x: Floats, half: int) -> Floats:
    """scale with x ~ scale*q over the last axis, q in [-half, half) (`make_qx_quants`)."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    weight = x * x
    best = np.zeros_like(extreme)
    best_fit = np.zeros_like(extreme)
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = _divide(np.float32(-(half + 0.1 * step)), extreme)
        q = np.clip(np.rint(inverse[..., None] * x), -half, half - 1)
        sum_xq, sum_qq = (weight * x * q).sum(axis=-1), (weight * q * q).sum(axis=-1)
        fit = _divide(sum_xq * sum_xq, sum_qq)  # how much of the error the best scale for this q takes away
        better = fit > best_fit
        best, best_fit = np.where(better, _divide(sum_xq, sum_qq), best), np.where(better, fit, best_fit)
    return best


def _divide(a: NDArray[np.float32] | np.float32, b: NDArray[np.float32] | np.float32) -> Floats:
    """a / b, and 0 where b is 0."""
    a, b = np.broadcast_arrays(a, b)
    return np.divide(a, b, out=np.zeros(b.shape, np.float32), where=b != 0)


def _nibbles(q: Bytes) -> Bytes:
    """Two numbers of 4 bits a byte: the first 32 of each 64 below, the others above."""
    pairs = q.reshape(-1, 4, 2, 32)
    return _flat((pairs[:, :, 0] | pairs[:, :, 1] << 4).astype(np.uint8))


def _flat(x: Bytes) -> Bytes:
    return x.reshape(len(x), -1)
