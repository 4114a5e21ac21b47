"""The mathematics of the program, in NumPy: what `run.c` must compute, and what runs where nothing can compile it.

All in single precision, one sequence at a time, no tricks. Weights are dequantised when the file is opened, so it
takes 4 bytes a parameter. A cache is a list of arrays that are never written to: a fork copies the list.

    T new tokens, S tokens in all, D width of the model, H heads, K heads of keys and values, E numbers in a head,
    P = E/2 pairs, F width of the feed-forward, V vocabulary

Sources: RMSNorm: Zhang & Sennrich 2019 (arXiv:1910.07467); rotary positions: Su et al. 2021 (2104.09864); SwiGLU:
Shazeer 2020 (2002.05202); grouped queries: Ainslie et al. 2023 (2305.13245); QK-norm: Henry et al. 2020 (2010.04245)
as in Qwen3 (2505.09388).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import ALL, NONE, Info, Step
from twofile.engine.reference_tokenizer import ReferenceTokenizer
from twofile.engine.sampler import Sampler, Sampling
from twofile.errors import EngineError
from twofile.params.adapter import CHAT_TEMPLATE, Adapter
from twofile.params.hyper import Hyperparameters
from twofile.params.parameters import Parameters
from twofile.params.vocabulary import TokenType

Array = NDArray[np.float32]
# texts of tokens that end a generation, whether or not the file says so: what chat models are trained to say last
ENDS = frozenset((
    "</s>", "<|im_end|>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>",
    "<|end_of_turn|>", "<EOT>", "<|EOT|>",
))  # fmt: skip


class ReferenceCache:
    """Keys and values of one sequence: for each layer k_SKE and v_SKE."""

    def __init__(self, layers: Sequence[tuple[Array, Array]], live: set[ReferenceType[ReferenceCache]]) -> None:
        self.layers, self._live = list(layers), live
        live.add(ref(self, live.discard))

    @property
    def length(self) -> int:
        return len(self.layers[0][0])

    def fork(self) -> ReferenceCache:
        return ReferenceCache(self.layers, self._live)

    def rewind(self, length: int) -> None:
        self.layers = [(k_SKE[:length], v_SKE[:length]) for k_SKE, v_SKE in self.layers]

    def save(self) -> bytes:
        return np.array([part for layer in self.layers for part in layer]).tobytes()


class Reference:
    """An open parameters file in NumPy: a `Backend`."""

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        with Parameters.open(path) as file:
            self.hyper, self.vocabulary = file.hyper, file.vocabulary
            self._metadata = dict(file.metadata)
            self._w = {name: file.read(name) for name in file.tensors}
        if adapter is not None:
            learned = Adapter.open(adapter)
            learned.check(self.hyper)
            self._metadata |= {CHAT_TEMPLATE: learned.chat_template} if learned.chat_template else {}
            self._w |= {name: self._w[name] + learned.change(name) for name in learned.pairs}
        self._tokenizer = ReferenceTokenizer(self.vocabulary)
        self._live: set[ReferenceType[ReferenceCache]] = set()
        h, v = self.hyper, self.vocabulary
        ids = {name: -1 if (i := getattr(v, name)) is None else i for name in ("bos", "eos", "eot", "unk", "pad")}
        self._info = Info(
            h.architecture, self.text("general.name") or "", "numpy", h.vocab_size, h.context_length, h.dim, h.n_layers,
            h.n_heads, h.n_kv_heads, h.head_dim, h.ffn_dim, **ids, add_bos=v.add_bos, add_eos=v.add_eos, threads=1,
            parameters=h.n_parameters, bytes=path.stat().st_size,
            token_bytes=8 * h.n_layers * h.n_kv_heads * h.head_dim,
        )  # fmt: skip
        self._ends = {i for i in (v.eos, v.eot) if i is not None}
        self._ends |= {i for i, text in enumerate(v.tokens) if text in ENDS and v.types[i] == TokenType.CONTROL}

    @property
    def info(self) -> Info:
        return self._info

    def text(self, key: str) -> str | None:
        found = self._metadata.get(key)
        return found if isinstance(found, str) else None

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        return self._tokenizer.encode(text, special=special)

    def detokenize(self, tokens: Sequence[int], special: bool, skip_space: bool) -> bytes:
        return self._tokenizer.decode(list(tokens), special=special, skip_space=skip_space)

    def attribute(self, token: int) -> int:
        return self.vocabulary.types[token] if 0 <= token < len(self.vocabulary.types) else -1

    def ends(self, token: int) -> bool:
        return token in self._ends

    def cache(self) -> ReferenceCache:
        empty_SKE = np.empty((0, self.hyper.n_kv_heads, self.hyper.head_dim), np.float32)
        return ReferenceCache([(empty_SKE, empty_SKE)] * self.hyper.n_layers, self._live)

    def restore(self, length: int, data: bytes) -> ReferenceCache:
        shape = (2 * self.hyper.n_layers, length, self.hyper.n_kv_heads, self.hyper.head_dim)
        if len(data) != 4 * math.prod(shape):
            raise EngineError(f"what was kept of {length} tokens is not of this model")
        parts = np.frombuffer(data, np.float32).reshape(shape)
        return ReferenceCache([(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)], self._live)

    def embed(self, tokens: Sequence[int]) -> Array:
        x_TD, _ = self._forward(self.cache(), np.asarray(tokens, np.int32))
        mean_D: Array = rms_norm(x_TD, self._w["output_norm.weight"], self.hyper.norm_eps).mean(axis=0)
        return mean_D

    def rows(self, tokens: Sequence[int]) -> Array:
        rows_TD: Array = self._w["token_embd.weight"][np.asarray(tokens, np.int32)]
        return rows_TD

    def held(self) -> int:
        caches = [cache for live in tuple(self._live) if (cache := live()) is not None]
        arrays = [a if a.base is None else a.base for cache in caches for layer in cache.layers for a in layer]
        return sum({id(a): a.nbytes for a in arrays}.values())

    def picker(self, sampling: Sampling) -> Sampler:
        return Sampler(self.info.vocab, sampling)

    def evaluate(self, steps: Sequence[Step]) -> Array:
        rows = [np.empty((0, self.info.vocab), np.float32)]
        for cache, tokens_T, want in steps:
            x_TD, layers = self._forward(cache, tokens_T)
            if want != NONE:
                rows.append(self._logits(x_TD if want == ALL else x_TD[-1:]))
            cache.layers = layers
        return np.concatenate(rows)

    def _forward(self, cache: ReferenceCache, tokens_T: NDArray[np.int32]) -> tuple[Array, list[tuple[Array, Array]]]:
        """The residual stream after the last block, and the cache with the new tokens in it."""
        h, w = self.hyper, self._w
        T, start = len(tokens_T), cache.length
        turn_TP = rotation(h, np.arange(start, start + T))
        future_TS = np.arange(start + T)[None, :] > np.arange(start, start + T)[:, None]
        layers: list[tuple[Array, Array]] = []
        x_TD = w["token_embd.weight"][tokens_T]
        for layer in range(h.n_layers):
            b = f"blk.{layer}."
            n_TD = rms_norm(x_TD, w[b + "attn_norm.weight"], h.norm_eps)
            q_THE = self._linear(n_TD, b + "attn_q").reshape(T, h.n_heads, h.head_dim)
            k_TKE = self._linear(n_TD, b + "attn_k").reshape(T, h.n_kv_heads, h.head_dim)
            v_TKE = self._linear(n_TD, b + "attn_v").reshape(T, h.n_kv_heads, h.head_dim)
            if h.architecture == "qwen3":
                q_THE = rms_norm(q_THE, w[b + "attn_q_norm.weight"], h.norm_eps)
                k_TKE = rms_norm(k_TKE, w[b + "attn_k_norm.weight"], h.norm_eps)
            q_THE, k_TKE = (rotate(a, turn_TP, halves=h.architecture != "llama") for a in (q_THE, k_TKE))
            k_SKE = np.concatenate([cache.layers[layer][0], k_TKE])
            v_SKE = np.concatenate([cache.layers[layer][1], v_TKE])
            layers.append((k_SKE, v_SKE))

            group = h.n_heads // h.n_kv_heads  # so many heads of queries share one of keys and values
            k_HSE, v_HSE = (np.repeat(a.transpose(1, 0, 2), group, axis=0) for a in (k_SKE, v_SKE))
            scores_HTS = q_THE.transpose(1, 0, 2) @ k_HSE.transpose(0, 2, 1) / np.float32(np.sqrt(h.head_dim))
            a_HTE = softmax(np.where(future_TS, np.float32(-np.inf), scores_HTS)) @ v_HSE
            x_TD = x_TD + self._linear(a_HTE.transpose(1, 0, 2).reshape(T, -1), b + "attn_output")

            n_TD = rms_norm(x_TD, w[b + "ffn_norm.weight"], h.norm_eps)
            f_TF = silu(self._linear(n_TD, b + "ffn_gate")) * self._linear(n_TD, b + "ffn_up")
            x_TD = x_TD + self._linear(f_TF, b + "ffn_down")
        return x_TD, layers

    def _logits(self, x_TD: Array) -> Array:
        output = "token_embd" if self.hyper.tied else "output"
        return self._linear(rms_norm(x_TD, self._w["output_norm.weight"], self.hyper.norm_eps), output)

    def _linear(self, x: Array, name: str) -> Array:
        y: Array = x @ self._w[name + ".weight"].T
        return y + self._w[name + ".bias"] if name + ".bias" in self._w else y


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Over the last axis."""
    y: Array = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps)) * weight
    return y


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y: Array = e / e.sum(axis=-1, keepdims=True)
    return y


def silu(x: Array) -> Array:
    # the sigmoid by tanh, which overflows nowhere
    y: Array = x * (np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x))
    return y


def rotation(h: Hyperparameters, positions_T: NDArray[np.int64]) -> NDArray[np.complex64]:
    """e^(i angle) for each position and pair [T, P]; angle = position / scale * theta^(-p/P) / factor_p."""
    frequency_P = h.rope_theta ** (-np.arange(0, h.head_dim, 2) / h.head_dim)
    if h.rope_factors is not None:
        frequency_P = frequency_P / np.asarray(h.rope_factors)
    angle_TP = positions_T[:, None] / h.rope_scale * frequency_P
    turn_TP: NDArray[np.complex64] = np.exp(1j * angle_TP).astype(np.complex64)
    return turn_TP


def rotate(x_THE: Array, turn_TP: NDArray[np.complex64], halves: bool) -> Array:
    """Turn the pairs of each head: (0, P), (1, P+1), ... where `halves`, else (0, 1), (2, 3), ..."""
    T, H, _ = x_THE.shape
    x_TH2P = x_THE.reshape(T, H, 2, -1) if halves else x_THE.reshape(T, H, -1, 2).swapaxes(2, 3)
    z_THP = (x_TH2P[:, :, 0] + 1j * x_TH2P[:, :, 1]) * turn_TP[:, None]
    turned: Array = np.stack([z_THP.real, z_THP.imag], axis=2 if halves else 3).reshape(x_THE.shape)
    return turned
