"""Which type each tensor of a file gets.

A file's type names that of its matrices; vectors (norms, biases, rope_freqs) are always F32. `Q4_K_M` is llama.cpp's
usual mixture: 4 bits, and 6 where a model suffers most from losing them, namely the output matrix (the embedding, where
it is both) and, in the first eighth of the layers, the last eighth and every third between, the values of attention and
the down projection of the feed-forward part (`use_more_bits` in llama.cpp's llama-quant.cpp).
"""

from __future__ import annotations

import re
import warnings

from gguf.constants import LlamaFileType

from twofile.errors import ParametersError
from twofile.params.blocks import TYPES, fits
from twofile.params.hyper import Hyperparameters

__all__ = ["FILE_TYPES", "file_type", "plan"]

FILE_TYPES = (*TYPES, "Q4_K_M")
"""What a whole file can be quantised to."""

_GENERAL = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q4_K": LlamaFileType.MOSTLY_Q4_K_S,
    "Q5_K": LlamaFileType.MOSTLY_Q5_K_S,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
    "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
}


def file_type(type: str) -> int:
    """The value of general.file_type."""
    return int(_GENERAL[type])


def plan(hyper: Hyperparameters, type: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name to (shape, type) for every tensor of a file, in the order in which they are written.

    A matrix whose rows do not fill whole blocks gets Q8_0, or F16 where they do not fill those either; a UserWarning
    says how many did. Raises ParametersError for a type that is not one of FILE_TYPES."""
    if type not in FILE_TYPES:
        raise ParametersError(f"{type!r} is not a type of parameters file (only {', '.join(FILE_TYPES)})")
    result: dict[str, tuple[tuple[int, ...], str]] = {}
    fallen: dict[str, int] = {}
    for name, shape in hyper.shapes().items():
        if len(shape) == 1:
            result[name] = shape, "F32"
            continue
        wanted = _mixed(name, hyper) if type == "Q4_K_M" else type
        given = next(kind for kind in (wanted, "Q8_0", "F16") if fits(kind, shape[-1]))
        if given != wanted:
            fallen[given] = fallen.get(given, 0) + 1
        result[name] = shape, given
    for given, n in fallen.items():
        warnings.warn(
            f"{n} matrices are kept as {given}: their rows do not fill the blocks of {type}", UserWarning, stacklevel=2
        )
    return result


def _mixed(name: str, hyper: Hyperparameters) -> str:
    if name == ("token_embd.weight" if hyper.tied else "output.weight"):
        return "Q6_K"
    match = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    if match:
        layer, n = int(match[1]), hyper.n_layers
        if layer < n // 8 or layer >= 7 * n // 8 or (layer - n // 8) % 3 == 2:
            return "Q6_K"
    return "Q4_K"
