from __future__ import annotations

from typing import Any

import gguf
import pytest

from tests.tiny import tiny_hyper, tiny_vocabulary
from twofile.errors import ParametersError
from twofile.params.hyper import Hyperparameters

HYPER = tiny_hyper("llama", tiny_vocabulary())
FAMILIES = ("llama", "qwen2", "qwen3")


@pytest.mark.parametrize("family", FAMILIES)
def test_metadata_round_trip(family: str) -> None:
    hyper = tiny_hyper(family, tiny_vocabulary(), rope_scale=4.0, tied=True)
    metadata = {"general.architecture": family, **hyper.to_metadata()}
    assert Hyperparameters.from_metadata(metadata, vocab_size=hyper.vocab_size, tied=True) == hyper


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_and_tensor_is_one_that_the_gguf_package_knows(family: str) -> None:
    hyper = tiny_hyper(family, tiny_vocabulary(), rope_factors=(1.0,) * 8 if family == "llama" else None)
    keys = {
        getattr(group, key).replace("{arch}", family)
        for group in (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope)
        for key in vars(group)
        if isinstance(getattr(group, key), str)
    }
    assert hyper.to_metadata().keys() <= keys
    architecture = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[family]
    stems = {
        gguf.TENSOR_NAMES[tensor].format(bid=layer)
        for tensor in gguf.MODEL_TENSORS[architecture]
        for layer in range(hyper.n_layers)
    }
    assert {name.rsplit(".", 1)[0] for name in hyper.shapes()} <= stems


def test_parameters_are_counted() -> None:
    hyper = Hyperparameters("llama", 512, 512, 64, 5, 8, 4, 8, 172, tied=True)
    assert hyper.n_parameters == 260_032  # stories260K
    assert Hyperparameters("llama", 512, 512, 64, 5, 8, 4, 8, 172).n_parameters == 260_032 + 512 * 64
    smollm = Hyperparameters("llama", 49152, 2048, 576, 30, 9, 3, 64, 1536, tied=True)
    assert smollm.n_parameters == 134_515_008
    qwen3 = Hyperparameters("qwen3", 151936, 40960, 1024, 28, 16, 8, 128, 3072, tied=True)
    assert qwen3.n_parameters == 596_049_920
    qwen2 = Hyperparameters("qwen2", 151936, 32768, 896, 24, 14, 2, 64, 4864, tied=True)
    assert qwen2.n_parameters == 494_032_768


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "gpt2"}, "'gpt2' is not supported"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_layers": 1 << 20}, "n_layers"),
        ({"dim": -1}, "dim is -1"),
        ({"n_kv_heads": 3}, "not a multiple of n_kv_heads 3"),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"norm_eps": float("nan")}, "norm_eps is nan"),
        ({"rope_theta": 0.0}, "rope_theta"),
        ({"rope_scale": float("inf")}, "rope_scale"),
        ({"rope_scale": 1e39}, "rope_scale"),
        ({"rope_factors": (1.0, 2.0)}, "rope_factors has 2"),
        ({"rope_factors": (0.0,) * 8}, "not positive"),
    ],
)
def test_impossible_numbers_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ParametersError, match=words):
        tiny_hyper(**({"architecture": "llama", "vocabulary": tiny_vocabulary()} | changes))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", "mamba", "family 'mamba'"),
        ("general.architecture", 3, "general.architecture is int"),
        ("llama.embedding_length", None, "llama.embedding_length is missing"),
        ("llama.embedding_length", 64.0, "llama.embedding_length is float"),
        ("llama.embedding_length", True, "llama.embedding_length is bool"),
        ("llama.block_count", -1, "llama.block_count is -1"),
        ("llama.block_count", 2**63, "llama.block_count"),
        ("llama.attention.head_count", [4, 4], "llama.attention.head_count is list"),
        ("llama.attention.head_count", 0, "head_count is 0"),
        ("llama.attention.head_count_kv", 3, "n_kv_heads 3"),
        ("llama.attention.value_length", 8, "different lengths"),
        ("llama.rope.dimension_count", 8, "part of a head"),
        ("llama.expert_count", 8, "mixture of experts"),
        ("llama.attention.sliding_window", 64, "sliding windows"),
        ("llama.rope.scaling.type", "yarn", "'yarn'"),
        ("llama.attention.layer_norm_rms_epsilon", "1e-5", "layer_norm_rms_epsilon is str"),
    ],
)
def test_a_bad_key_is_named(key: str, value: Any, words: str) -> None:
    metadata = {"general.architecture": "llama", **HYPER.to_metadata(), key: value}
    if value is None:
        del metadata[key]
    with pytest.raises(ParametersError, match=words):
        Hyperparameters.from_metadata(metadata, vocab_size=HYPER.vocab_size, tied=False)


def test_a_sliding_window_as_long_as_the_context_is_none() -> None:
    metadata = {"general.architecture": "llama", **HYPER.to_metadata(), "llama.attention.sliding_window": 128}
    assert Hyperparameters.from_metadata(metadata, vocab_size=HYPER.vocab_size, tied=False) == HYPER
