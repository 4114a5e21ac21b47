"""The types of tensors: how many bytes they take, and numbers to bytes and back.

F32, F16 and BF16 hold single numbers; the others hold blocks of 32 or 256 numbers of one row with common scales, so
that a row's length must be a multiple of the block. Layouts: ggml-common.h of llama.cpp. All but the encoding of the K
types (kquants.py) is done by the `gguf` package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.kquants import ENCODERS

__all__ = ["TYPES", "decode", "encode", "fits", "size"]

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K")
"""The types of tensors that can be read and written."""

_CHUNK = 1 << 20  # numbers that are encoded at a time, so that the scratch stays small
_TINY = 1e-30  # below this a block's scale would be no normal number; such weights are zero


def fits(type: str, columns: int) -> bool:
    """Whether rows of this length can be held in a type."""
    return columns % GGML_QUANT_SIZES[GGMLQuantizationType[type]][0] == 0


def size(type: str, shape: Sequence[int]) -> int:
    """The bytes of a tensor. The last of `shape` must fit the type."""
    block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    return math.prod(shape) // block * n_bytes


def encode(x: NDArray[np.floating], type: str, name: str = "a tensor") -> NDArray[np.uint8]:
    """The bytes of a tensor in a type, flat. The last axis must fit the type (ValueError).

    Raises ParametersError, naming the tensor, for numbers that are not finite or too large for 16-bit scales."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if not fits(type, x.shape[-1]):
        raise ValueError(f"{name}: rows of {x.shape[-1]} numbers do not fit blocks of {type}")
    amplitude = max(float(x.max(initial=0)), -float(x.min(initial=0)))  # NaN passes through max
    if not math.isfinite(amplitude) or (amplitude > 65504 and type not in ("F32", "BF16")):
        raise ParametersError(f"{name} has a number that is not finite, or too large for {type}")
    if type == "F32":
        return x.reshape(-1).view(np.uint8)
    out = np.empty(size(type, x.shape), np.uint8)
    block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    flat = x.reshape(-1, block)
    step = _CHUNK // block
    with np.errstate(all="ignore"):
        for start in range(0, len(flat), step):
            part = flat[start : start + step]
            if block > 1:
                part = np.where(np.abs(part) < _TINY, np.float32(0), part)
            encoder = ENCODERS.get(type)
            done = encoder(part) if encoder else quantize(part.reshape(1, -1), GGMLQuantizationType[type])
            out[start * n_bytes :][: len(part) * n_bytes] = done.reshape(-1).view(np.uint8)
    return out


def decode(data: NDArray[np.uint8], type: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The numbers of a tensor from its bytes: float32 of `shape`, a copy."""
    with np.errstate(all="ignore"):  # a hostile file may hold any scales
        if type in ("F32", "F16"):
            numbers = data.view(np.float32 if type == "F32" else np.float16).astype(np.float32)
        else:
            columns = size(type, shape[-1:])
            numbers = dequantize(data.reshape(-1, columns), GGMLQuantizationType[type])
    return numbers.reshape(tuple(shape))
