from __future__ import annotations

from pathlib import Path

from tests.tiny import CHATML, tiny_parameters, tiny_spm_parameters
from twofile.params.parameters import Parameters
from twofile.params.show import describe, template_family


def test_a_byte_level_model(tmp_path: Path) -> None:
    path = tiny_parameters("qwen3", "Q8_0", 1, tmp_path / "a.gguf")
    with Parameters.open(path) as parameters:
        shown = describe(parameters)
        assert shown.sha256 == parameters.sha256()
        assert describe(parameters, checksum=False).sha256 == ""
    assert (shown.name, shown.bytes, shown.path) == ("tiny qwen3", path.stat().st_size, str(path))
    assert shown.n_parameters == shown.hyper.n_parameters == sum(size.parameters for size in shown.types)
    assert [size.type for size in shown.types] == ["Q8_0", "F32"]
    assert 8.5 < shown.bits_per_weight < 9
    assert len(shown.tensors) == sum(size.tensors for size in shown.types) == len(shown.hyper.shapes())
    assert shown.tokenizer == "byte-level BPE (qwen2), 330 tokens, 3 of them control"
    assert shown.special == {
        "bos": "<|endoftext|>", "eos": "<|endoftext|>", "eot": "<|im_end|>", "pad": "<|endoftext|>",
    }  # fmt: skip
    assert shown.chat_template == "ChatML"
    assert shown.provenance.stages == ("random weights",)


def test_a_sentencepiece_model(tmp_path: Path) -> None:
    with Parameters.open(tiny_spm_parameters("F32", 1, tmp_path / "a.gguf")) as parameters:
        shown = describe(parameters, checksum=False)
    assert shown.tokenizer == "SentencePiece BPE, 390 tokens, 2 of them control"
    assert shown.bits_per_weight == 32
    assert shown.chat_template.startswith("none")


def test_template_families() -> None:
    assert template_family(CHATML) == "ChatML"
    assert template_family("{{ '<|start_header_id|>' }}") == "Llama 3"
    assert template_family("{{ '[INST] <<SYS>>' }}") == "Llama 2"
    assert template_family("{{ '[INST] ' }}") == "Mistral"
    assert template_family("{{ x }}") == "of its own"
