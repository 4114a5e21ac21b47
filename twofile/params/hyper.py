"""The hyperparameters of a model: the few numbers that give every tensor its name and shape.

Names are those of GGUF as llama.cpp's converters write them; shapes are row-major, rows first, so that a matrix maps a
vector of `columns` to one of `rows`. Needs nothing but the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from twofile.errors import ParametersError

__all__ = ["Architecture", "Hyperparameters"]

Architecture = Literal["llama", "qwen2", "qwen3"]
_LARGEST = 2**31 - 1
_LARGEST_FLOAT = 3.4e38  # of float32, in which GGUF holds them
_MOST = {"n_layers": 1 << 12, "head_dim": 1 << 16}  # what a hostile file can make us list, far above any model


@dataclass(frozen=True)
class Hyperparameters:
    """What a decoder-only transformer of one of the supported families is made of.

    `rope_factors` are llama 3's long divisors of the rotary frequencies, one for each pair of a head's `head_dim`
    numbers; `rope_scale` divides the positions (linear scaling). `tied`: the output matrix is the embedding."""

    architecture: Architecture
    vocab_size: int
    context_length: int
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_factors: tuple[float, ...] | None = None
    rope_scale: float = 1.0
    tied: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise ParametersError(
                f"the model family {self.architecture!r} is not supported (only {', '.join(get_args(Architecture))})"
            )
        for name in ("vocab_size", "context_length", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim"):
            value = getattr(self, name)
            if not 1 <= value <= _MOST.get(name, _LARGEST):
                raise ParametersError(f"{name} is {value}: out of range")
        if self.n_heads % self.n_kv_heads:
            raise ParametersError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.head_dim % 2:
            raise ParametersError(f"head_dim {self.head_dim} is odd, but rotary positions turn pairs of numbers")
        if not 0 <= self.norm_eps < 1:
            raise ParametersError(f"norm_eps is {self.norm_eps}: out of range")
        for name in ("rope_theta", "rope_scale"):
            if not 0 < getattr(self, name) < _LARGEST_FLOAT:
                raise ParametersError(f"{name} is {getattr(self, name)}: out of range")
        if self.rope_factors is not None:
            if len(self.rope_factors) != self.head_dim // 2:
                raise ParametersError(
                    f"rope_factors has {len(self.rope_factors)} numbers, not head_dim/2 = {self.head_dim // 2}"
                )
            if not all(0 < factor < _LARGEST_FLOAT for factor in self.rope_factors):
                raise ParametersError("rope_factors has a number that is not positive and finite")

    @property
    def n_parameters(self) -> int:
        """How many numbers were trained (rope_freqs.weight is computed, not trained)."""
        return sum(math.prod(shape) for name, shape in self.shapes().items() if name != "rope_freqs.weight")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of such a file and its shape, in the order in which they are written."""
        dim, ffn, heads, kv_heads = (
            self.dim,
            self.ffn_dim,
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        )
        block: dict[str, tuple[int, ...]] = {"attn_norm": (dim,)}
        for name, rows in (("attn_q", heads), ("attn_k", kv_heads), ("attn_v", kv_heads)):
            block[name] = (rows, dim)
        block["attn_output"] = (dim, heads)
        block |= {"ffn_norm": (dim,), "ffn_gate": (ffn, dim), "ffn_up": (ffn, dim), "ffn_down": (dim, ffn)}
        if self.architecture == "qwen3":
            block |= {"attn_q_norm": (self.head_dim,), "attn_k_norm": (self.head_dim,)}
        weights = {f"{name}.weight": shape for name, shape in block.items()}
        if self.architecture == "qwen2":
            weights |= {"attn_q.bias": (heads,), "attn_k.bias": (kv_heads,), "attn_v.bias": (kv_heads,)}

        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab_size, dim)}
        if self.rope_factors is not None:
            shapes["rope_freqs.weight"] = (self.head_dim // 2,)
        for layer in range(self.n_layers):
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in weights.items()}
        shapes["output_norm.weight"] = (dim,)
        if not self.tied:
            shapes["output.weight"] = (self.vocab_size, dim)
        return shapes

    def to_metadata(self) -> dict[str, Any]:
        """The GGUF keys; `rope_factors` and `tied` are told by tensors (rope_freqs.weight, output.weight) instead."""
        keys: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "context_length": self.context_length,
            "embedding_length": self.dim,
            "block_count": self.n_layers,
            "feed_forward_length": self.ffn_dim,
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": self.n_kv_heads,
            "attention.layer_norm_rms_epsilon": self.norm_eps,
            "rope.freq_base": self.rope_theta,
            "rope.dimension_count": self.head_dim,
        }
        if self.architecture == "qwen3" or self.head_dim * self.n_heads != self.dim:
            keys |= {"attention.key_length": self.head_dim, "attention.value_length": self.head_dim}
        if self.rope_scale != 1.0:
            keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": self.rope_scale}
        return {f"{self.architecture}.{key}": value for key, value in keys.items()}

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], *, vocab_size: int, tied: bool, rope_factors: tuple[float, ...] | None = None
    ) -> Hyperparameters:
        """Read the GGUF keys. Raises ParametersError naming the key that is missing, mistyped, or asks for a kind of
        transformer that is none of the supported ones (experts, sliding windows, partial or yarn rotary positions)."""
        architecture = _get(metadata, "general.architecture", str)
        if architecture not in get_args(Architecture):
            raise ParametersError(
                f"the model family {architecture!r} (general.architecture) is not supported"
                f" (only {', '.join(get_args(Architecture))})"
            )

        def integer(key: str, default: int | None = None) -> int:
            value: int = _get(metadata, f"{architecture}.{key}", int, default)
            if not 0 <= value <= _LARGEST:
                raise ParametersError(f"{architecture}.{key} is {value}: out of range")
            return value

        def number(key: str, default: float | None = None) -> float:
            return float(_get(metadata, f"{architecture}.{key}", (float, int), default))

        heads, dim = integer("attention.head_count"), integer("embedding_length")
        if heads == 0:
            raise ParametersError(f"{architecture}.attention.head_count is 0")
        head_dim = integer("attention.key_length", dim // heads)
        context_length = integer("context_length")
        for key, want, what in (
            ("attention.value_length", head_dim, "keys and values of different lengths"),
            ("rope.dimension_count", head_dim, "rotary positions on a part of a head"),
            ("expert_count", 0, "a mixture of experts"),
        ):
            if integer(key, want) != want:
                raise ParametersError(f"{architecture}.{key} is {integer(key)}, not {want}: {what} is not supported")
        window = integer("attention.sliding_window", 0)
        if 0 < window < context_length:
            raise ParametersError(
                f"{architecture}.attention.sliding_window is {window}: sliding windows are not supported"
            )
        scaling = _get(metadata, f"{architecture}.rope.scaling.type", str, "linear")  # as llama.cpp has it
        if scaling not in ("none", "linear"):
            raise ParametersError(
                f"{architecture}.rope.scaling.type is {scaling!r}: only 'none' and 'linear' are supported"
            )
        return cls(
            architecture=architecture,
            vocab_size=vocab_size,
            context_length=context_length,
            dim=dim,
            n_layers=integer("block_count"),
            n_heads=heads,
            n_kv_heads=integer("attention.head_count_kv", heads),
            head_dim=head_dim,
            ffn_dim=integer("feed_forward_length"),
            norm_eps=number("attention.layer_norm_rms_epsilon"),
            rope_theta=number("rope.freq_base", 10000.0),
            rope_factors=rope_factors,
            rope_scale=number("rope.scaling.factor", number("rope.scale_linear", 1.0)) if scaling == "linear" else 1.0,
            tied=tied,
        )


def _get(metadata: Mapping[str, Any], key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    value = metadata.get(key, default)
    if value is None:
        raise ParametersError(f"the metadata key {key} is missing")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParametersError(
            f"the metadata key {key} is {type(value).__name__} {str(value)[:40]!r}, not of the type it must be"
        )
    return value
