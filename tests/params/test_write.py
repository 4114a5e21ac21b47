from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.tiny import tiny_hyper, tiny_spm_parameters, tiny_spm_vocabulary, tiny_tensors, tiny_vocabulary
from twofile import __version__
from twofile.errors import ParametersError
from twofile.params.parameters import Parameters
from twofile.params.provenance import Provenance
from twofile.params.write import write

VOCABULARY = tiny_vocabulary()
HYPER = tiny_hyper("qwen3", VOCABULARY)
TENSORS = dict(tiny_tensors(HYPER, 1))


def test_what_is_written_is_read_in_any_order(tmp_path: Path) -> None:
    provenance = Provenance(name="tiny", stages=("random",), data=("none 00",))
    write(tmp_path / "a", HYPER, VOCABULARY, TENSORS, provenance=provenance)
    write(tmp_path / "b", HYPER, VOCABULARY, reversed(TENSORS.items()), provenance=provenance)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with Parameters.open(tmp_path / "a") as parameters:
        assert parameters.hyper.shapes() == HYPER.shapes()
        assert parameters.vocabulary == VOCABULARY
        assert parameters.provenance.stages == ("random",)
        assert parameters.provenance.version == __version__
        for name, x in TENSORS.items():
            np.testing.assert_array_equal(parameters.read(name), x)


def test_the_gguf_package_reads_the_same(tmp_path: Path) -> None:
    hyper = tiny_hyper("llama", VOCABULARY, rope_factors=tuple(float(n) for n in range(1, 9)))
    tensors = dict(tiny_tensors(hyper, 1))
    write(tmp_path / "a", hyper, VOCABULARY, tensors, type="F16")
    reader = gguf.GGUFReader(tmp_path / "a")
    contents = {key: field.contents() for key, field in reader.fields.items()}
    assert contents["general.architecture"] == "llama"
    assert contents["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert contents["general.quantization_version"] == gguf.GGML_QUANT_VERSION
    assert contents["llama.block_count"] == 2
    assert contents["tokenizer.ggml.tokens"] == list(VOCABULARY.tokens)
    assert reader.fields["tokenizer.ggml.token_type"].types[1] == gguf.GGUFValueType.INT32
    assert reader.fields["llama.block_count"].types == [gguf.GGUFValueType.UINT32]
    assert reader.fields["llama.rope.freq_base"].types == [gguf.GGUFValueType.FLOAT32]
    assert reader.alignment == 32
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert list(found) == list(hyper.shapes())
    assert found["rope_freqs.weight"].data.tolist() == list(hyper.rope_factors or ())
    np.testing.assert_array_equal(found["blk.0.attn_q.weight"].data, tensors["blk.0.attn_q.weight"].astype(np.float16))
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)
    assert found["blk.1.attn_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32


def test_a_sentencepiece_vocabulary(tmp_path: Path) -> None:
    with Parameters.open(tiny_spm_parameters("BF16", 1, tmp_path / "a")) as parameters:
        assert parameters.vocabulary == tiny_spm_vocabulary()
        assert parameters.metadata["tokenizer.ggml.scores"][:2] == [0.0, 0.0]


def test_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write(tmp_path / "a", HYPER, VOCABULARY, TENSORS, progress=lambda done, total: seen.append((done, total)))
    total = 4 * HYPER.n_parameters
    assert len(seen) == len(TENSORS)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def with_(name: str, x: Any) -> dict[str, Any]:
    return TENSORS | {name: x}


NAN = TENSORS["blk.0.attn_q.weight"] * np.nan


@pytest.mark.parametrize(
    ("tensors", "type", "words"),
    [
        ({}, "F32", "token_embd.weight is missing"),
        ({k: v for k, v in TENSORS.items() if k != "output_norm.weight"}, "F32", "output_norm.weight is missing"),
        (with_("extra.weight", np.zeros(3)), "F32", "extra.weight is not part of a qwen3 model"),
        ([*TENSORS.items(), *TENSORS.items()], "F32", "given twice"),
        (with_("blk.0.attn_q.weight", np.zeros((3, 3))), "F32", r"attn_q.weight has the shape \(3, 3\)"),
        (with_("blk.0.attn_q.weight", NAN), "Q8_0", "attn_q.weight has a number that is not finite"),
        (with_("blk.0.attn_norm.weight", np.full(64, np.inf)), "Q8_0", "attn_norm.weight has a number that is not"),
        (with_("blk.0.attn_q.weight", TENSORS["blk.0.attn_q.weight"] + 1e6), "F16", "too large for F16"),
        (TENSORS, "Q3_K", "'Q3_K' is not a type"),
    ],
)
def test_bad_tensors_are_named_and_nothing_is_left(tmp_path: Path, tensors: Any, type: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ParametersError, match=words):
        write(tmp_path / "folder" / "a", HYPER, VOCABULARY, tensors, type=type)
    assert not [*(tmp_path / "folder").iterdir()]


def test_a_vocabulary_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match="the vocabulary has 390 tokens, the model 330"):
        write(tmp_path / "a", HYPER, tiny_spm_vocabulary(), TENSORS)
