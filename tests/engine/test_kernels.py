"""Every kernel path on every family and type: near the reference, and the same bits in batches and token by token."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiny import tiny_hyper, tiny_tensors, tiny_vocabulary
from twofile.engine.build import build
from twofile.engine.library import Library, Model
from twofile.engine.reference import Reference
from twofile.params.write import write

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q4_K_M")
FAMILIES = ("llama", "qwen2", "qwen3")
X86 = platform.machine() in ("x86_64", "AMD64")
PATHS = {"native": (), "avx2": ("-march=x86-64-v3",), "c": ("-march=x86-64",)} if X86 else {"native": ()}
N = 100


@pytest.fixture(scope="module", params=list(PATHS))
def library(request: pytest.FixtureRequest) -> Library:
    if request.param == "avx2" and " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    made = build(*PATHS[request.param])
    if made.path is None:
        pytest.skip(made.reason)
    library = Library(made.path)
    assert request.param in ("native", library.kernels)
    return library


def logits(model: Model, tokens: NDArray[np.int32], cuts: tuple[int, ...] = ()) -> NDArray[np.float32]:
    """Of every token, read in pieces that end at `cuts`."""
    cache = model.cache()
    return np.concatenate([model.evaluate([(cache, piece, 2)]) for piece in np.split(tokens, cuts)])


def reference(path: Path, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    opened = Reference(path)
    return opened.evaluate([(opened.cache(), tokens, 2)])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.filterwarnings("ignore:.*kept as.*:UserWarning")
def test_logits_are_the_reference_s(library: Library, make: Callable[..., Path], family: str, type: str) -> None:
    path = make(family, type)
    model = library.open(path, 2)
    tokens = np.random.default_rng(1).integers(0, model.info.vocab, N).astype(np.int32)
    want, got = reference(path, tokens), logits(model, tokens)
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)  # both have the same weights: rounding alone
    assert np.array_equal(logits(model, tokens, tuple(range(1, N))), got)
    assert np.array_equal(logits(model, tokens, (1, 8, 72)), got)
    assert np.array_equal(logits(library.open(path, 1), tokens), got)


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


def test_more_tokens_than_one_pass_takes(library: Library, make: Callable[..., Path]) -> None:
    model = library.open(make("qwen3", "Q8_0", context_length=2048), 2)
    tokens = np.random.default_rng(2).integers(0, model.info.vocab, 1300).astype(np.int32)
    got = logits(model, tokens)
    assert np.array_equal(logits(model, tokens, (7, 71, 583)), got)
    together = model.evaluate([(model.cache(), tokens[:400], 2) for _ in range(3)])
    assert np.array_equal(together, np.tile(got[:400], (3, 1)))
