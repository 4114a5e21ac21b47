from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import tiny_hyper, tiny_parameters, tiny_tensors, tiny_vocabulary
from twofile.errors import ParametersError
from twofile.params.blocks import encode
from twofile.params.mixture import plan
from twofile.params.parameters import Parameters, read_vocabulary
from twofile.params.write import field, write_container

VOCABULARY = tiny_vocabulary()
HYPER = tiny_hyper("llama", VOCABULARY)
SHAPES = {name: (shape, "F32") for name, shape in HYPER.shapes().items()}


def test_a_whole_file(tmp_path: Path) -> None:
    path = tiny_parameters("qwen3", "Q8_0", 3, tmp_path / "a")
    with Parameters.open(path) as parameters:
        assert (parameters.hyper.architecture, parameters.hyper.tied) == ("qwen3", True)
        assert parameters.metadata["general.license"] == "apache-2.0"
        info = parameters.tensors["blk.0.ffn_up.weight"]
        assert (info.shape, info.type, info.bytes) == ((128, 64), "Q8_0", 128 * 64 // 32 * 34)
        x = parameters.read("blk.0.ffn_up.weight")
        assert parameters.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
        assert parameters.raw("blk.0.ffn_up.weight").tobytes() == path.read_bytes()[info.offset :][: info.bytes]
        with pytest.raises(KeyError):
            parameters.read("absent")
    want = dict(tiny_tensors(tiny_hyper("qwen3", VOCABULARY), 3))["blk.0.ffn_up.weight"]
    np.testing.assert_allclose(x, want, atol=np.abs(want).max() / 127)
    with pytest.raises(ValueError, match="closed"):
        parameters.read("blk.0.ffn_up.weight")


def test_rope_factors_come_from_their_tensor(tmp_path: Path) -> None:
    factors = (1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0)
    with Parameters.open(tiny_parameters("llama", "F32", 1, tmp_path / "a", rope_factors=factors)) as parameters:
        assert parameters.hyper.rope_factors == factors


def changed(path: Path, keys: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """A llama file with metadata keys (None: without) and tensors (shape and type; None: without) replaced."""
    fields = {**HYPER.to_metadata(), **VOCABULARY.to_metadata(), **keys}
    architecture = fields.pop("general.architecture", "llama")
    layout = {name: place for name, place in (SHAPES | tensors).items() if place}
    pieces = ((name, encode(np.ones(shape, np.float32), kind)) for name, (shape, kind) in layout.items())
    write_container(path, architecture, {k: field(v) for k, v in fields.items() if v is not None}, layout, pieces)
    return path


@pytest.mark.parametrize(
    ("keys", "tensors", "words"),
    [
        ({"general.architecture": "gemma"}, {}, "family 'gemma'"),
        ({"llama.block_count": 3}, {}, "blk.2.attn_norm.weight is missing"),
        ({"llama.block_count": 4000}, {}, "block_count is 4000"),
        ({"llama.embedding_length": 32}, {}, "llama.rope.dimension_count is 16, not 8"),
        ({"llama.feed_forward_length": 64}, {}, "ffn_gate.weight has the shape (128, 64), not (64, 64)"),
        ({"tokenizer.ggml.tokens": None}, {}, "tokenizer.ggml.tokens is missing"),
        ({}, {"token_embd.weight": ((99, 64), "F32")}, "output.weight has the shape (330, 64), not (99, 64)"),
        (
            {},
            {"token_embd.weight": ((99, 64), "F32"), "output.weight": None},
            "tokens has 330 entries, token_embd.weight 99",
        ),
        ({}, {"token_embd.weight": None}, "token_embd.weight is missing"),
        ({}, {"token_embd.weight": ((330,), "F32")}, "token_embd.weight has the shape (330,)"),
        ({}, {"blk.1.attn_v.weight": None}, "blk.1.attn_v.weight is missing"),
        ({}, {"blk.0.attn_q.bias": ((64,), "F32")}, "blk.0.attn_q.bias is not part of the llama models"),
        ({}, {"blk.2.attn_norm.weight": ((64,), "F32")}, "blk.2.attn_norm.weight is not part"),
        ({}, {"rope_freqs.weight": ((9,), "F32")}, "rope_factors has 9 numbers"),
        ({}, {"rope_freqs.weight": ((1 << 19,), "F32")}, "rope_freqs.weight has the shape"),
    ],
)
def test_what_does_not_fit_together_is_named(
    tmp_path: Path, keys: dict[str, Any], tensors: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParametersError) as caught:
        Parameters.open(changed(tmp_path / "a", keys, tensors))
    assert words in caught.value.message


def test_a_vocabulary_alone(tmp_path: Path) -> None:
    path = changed(tmp_path / "a", {"general.architecture": "gpt2"}, dict.fromkeys(SHAPES))
    assert read_vocabulary(path) == VOCABULARY
    with pytest.raises(ParametersError, match="'bert'"):
        read_vocabulary(changed(tmp_path / "b", {"tokenizer.ggml.model": "bert"}, {}))


def test_an_open_file_outlives_its_replacement(tmp_path: Path) -> None:
    path = tiny_parameters("llama", "F32", 1, tmp_path / "a")
    tiny_parameters("llama", "F32", 2, tmp_path / "b")
    with Parameters.open(path) as parameters:
        before = parameters.read("output.weight")
        shutil.move(tmp_path / "b", path)
        np.testing.assert_array_equal(parameters.read("output.weight"), before)


def test_every_type_is_read(tmp_path: Path) -> None:
    for type in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q4_K_M"):
        with Parameters.open(tiny_parameters("qwen2", type, 1, tmp_path / type)) as parameters:
            assert {name: info.type for name, info in parameters.tensors.items()} == {
                name: kind for name, (_, kind) in plan(parameters.hyper, type).items()
            }
            assert all(np.isfinite(parameters.read(name)).all() for name in parameters.tensors)
