"""Every kernel path on every family and type: near the reference, and the same bits in batches and token by token."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiny import tiny_hyper, tiny_tensors, tiny_vocabulary
from twofile.engine.build import KERNELS, build
from twofile.engine.library import Library, Model
from twofile.engine.reference import Reference, rotate
from twofile.params.names import resolve
from twofile.params.quantise import quantise
from twofile.params.write import write

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q4_K_M")
FAMILIES = ("llama", "qwen2", "qwen3")
X86 = platform.machine() in ("x86_64", "AMD64")
PATHS = tuple(KERNELS) if X86 else ("native",)
N = 100


@pytest.fixture(scope="module", params=PATHS)
def library(request: pytest.FixtureRequest) -> Library:
    if request.param == "avx2" and " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    with patch.dict(os.environ, {"TWOFILE_KERNELS": request.param}):
        made = build()
    if not made.compiler:
        pytest.skip(made.reason)
    assert made.path, made.reason
    library = Library(made.path)
    assert request.param in ("native", library.kernels)
    return library


def logits(model: Model, tokens: NDArray[np.int32], cuts: tuple[int, ...] = ()) -> NDArray[np.float32]:
    """Of every token, read in pieces that end at `cuts`."""
    cache = model.cache()
    return np.concatenate([model.evaluate([(cache, piece, 2)]) for piece in np.split(tokens, cuts)])


def bf16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The upper half of each number, rounded to the nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


class Rounded(Reference):
    """The reference rounded as the program rounds it: keys and values to 16 bits, and what quantised weights are
    multiplied by to 8 bits with one scale for 32."""

    def _forward(self, cache: Any, tokens_T: NDArray[np.int32]) -> Any:
        def rounding(x_THE: Any, turn_TP: Any, halves: bool) -> Any:
            turned = rotate(x_THE, turn_TP, halves)
            return bf16(turned) if x_THE.shape[1] == self.hyper.n_kv_heads else turned

        with patch("twofile.engine.reference.rotate", rounding):
            return super()._forward(cache, tokens_T)

    def _linear(self, x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        groups = x.reshape(*x.shape[:-1], -1, 32)
        scale = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)
        codes = np.rint(np.divide(groups, scale, where=scale > 0, out=np.zeros_like(groups)))
        y = super()._linear((codes * scale).reshape(x.shape), name)
        return bf16(y) if name.endswith("attn_v") else y


def reference(path: Path, tokens: NDArray[np.int32], kind: type[Reference] = Reference) -> NDArray[np.float32]:
    opened = kind(path)
    return opened.evaluate([(opened.cache(), tokens, 2)])


def apart(got: NDArray[np.float32], want: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.filterwarnings("ignore:.*kept as.*:UserWarning")
def test_logits_are_the_reference_s(library: Library, make: Callable[..., Path], family: str, type: str) -> None:
    path = make(family, type)
    model = library.open(path, 2)
    tokens = np.random.default_rng(1).integers(0, model.info.vocab, N).astype(np.int32)
    got = logits(model, tokens)
    # All have the same weights. What is rounded: in F32 nothing; else keys and values to 16 bits; activations to 8
    # (to 16 under BF16, where the processor multiplies those), of which random weights make much: see the tests below.
    assert apart(got, reference(path, tokens)) <= {"F32": 1e-5, "F16": 1e-2, "BF16": 2e-2}.get(type, 4e-2)
    assert np.array_equal(logits(model, tokens, tuple(range(1, N))), got)
    assert np.array_equal(logits(model, tokens, (1, 8, 72)), got)
    assert np.array_equal(logits(library.open(path, 1), tokens), got)
    assert np.array_equal(logits(library.open(path, 2, repack=False), tokens), got)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("type", TYPES[3:])
@pytest.mark.filterwarnings("ignore:.*kept as.*:UserWarning")
def test_what_is_rounded_alike_is_equal(library: Library, make: Callable[..., Path], family: str, type: str) -> None:
    """One token has no other's rounding in it: most come out the same, but for those with a number just between two."""
    path = make(family, type)
    model, rounded = library.open(path, 2), Rounded(path)
    tokens = np.random.default_rng(3).integers(0, model.info.vocab, N).astype(np.int32)
    got = model.evaluate([(model.cache(), tokens[i : i + 1], 1) for i in range(N)])
    want = rounded.evaluate([(rounded.cache(), tokens[i : i + 1], 1) for i in range(N)])
    assert np.median(np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)) <= 1e-6


@pytest.mark.parametrize("type", ["Q8_0", "Q4_0"])
@pytest.mark.filterwarnings("ignore:.*quantised already.*:UserWarning")
def test_a_trained_model_is_near_its_weights(library: Library, tmp_path: Path, type: str) -> None:
    path = resolve("stories")
    if type != "Q8_0":
        quantise(path, tmp_path / "other.gguf", type)
        path = tmp_path / "other.gguf"
    model = library.open(path, 2)
    text = "Once upon a time there was a little girl named Lily. She loved to play outside in the big park with mom."
    tokens = np.array(model.tokenize(text.encode(), special=False), np.int32)
    assert apart(logits(model, tokens), reference(path, tokens)) <= 1e-2


def test_forks_read_on_together(library: Library, make: Callable[..., Path]) -> None:
    """What they share is attended to at once, and nobody notices."""
    model = library.open(make("qwen3", "Q8_0"), 2)
    tokens = np.random.default_rng(4).integers(0, model.info.vocab, 60).astype(np.int32)
    trunk = model.cache()
    model.evaluate([(trunk, tokens[:37], 0)])
    forks = [trunk.fork() for _ in range(9)]
    for i in range(20):
        together = model.evaluate([(fork, tokens[37 + (i + k) % 20 :][:1], 1) for k, fork in enumerate(forks)])
    for k, row in enumerate(together):
        alone = np.concatenate([tokens[:37], np.roll(tokens[37:57], -k)])
        assert np.array_equal(logits(model, alone)[-1], row)


ODD = [
    {"dim": 72, "n_heads": 3, "n_kv_heads": 1, "head_dim": 10, "ffn_dim": 52},
    {"dim": 32, "n_heads": 7, "n_kv_heads": 7, "head_dim": 2, "ffn_dim": 33, "n_layers": 1},
    {"dim": 16, "n_heads": 8, "n_kv_heads": 2, "head_dim": 48, "ffn_dim": 17, "n_layers": 3},
]


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_that_fill_no_vector(library: Library, tmp_path: Path, family: str, shape: dict[str, int]) -> None:
    vocabulary, path = tiny_vocabulary(), tmp_path / "odd.gguf"
    hyper = tiny_hyper(family, vocabulary, **shape)
    write(path, hyper, vocabulary, tiny_tensors(hyper, 5), type="F32")
    tokens = np.arange(40, dtype=np.int32) * 7 % hyper.vocab_size
    want = reference(path, tokens)
    assert np.linalg.norm(logits(library.open(path, 3), tokens, (17,)) - want) <= 1e-5 * np.linalg.norm(want)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.filterwarnings("ignore:.*kept as.*:UserWarning")
def test_more_tokens_than_one_pass_takes(library: Library, make: Callable[..., Path], type: str) -> None:
    model = library.open(make("qwen3", type, context_length=2048), 2)
    tokens = np.random.default_rng(2).integers(0, model.info.vocab, 1300).astype(np.int32)
    got = logits(model, tokens)
    for chunk in (1, 7, 64, 512):
        assert np.array_equal(logits(model, tokens, tuple(range(chunk, 1300, chunk))), got), chunk
    together = model.evaluate([(model.cache(), tokens[:400], 2) for _ in range(3)])
    assert np.array_equal(together, np.tile(got[:400], (3, 1)))
