from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_spm_vocabulary, tiny_vocabulary
from twofile.errors import ParametersError
from twofile.params.parameters import read_vocabulary
from twofile.params.vocabulary import TokenType, Vocabulary, byte_characters

BYTES, SPM = tiny_vocabulary(), tiny_spm_vocabulary()


@pytest.mark.parametrize("vocabulary", [BYTES, SPM, replace(BYTES, chat_template=None, bos=None, add_eos=True)])
def test_metadata_round_trip(vocabulary: Vocabulary) -> None:
    assert Vocabulary.from_metadata(vocabulary.to_metadata()) == vocabulary


def test_byte_characters_are_those_of_gpt2() -> None:
    table = byte_characters()
    assert len(set(table)) == 256
    assert (table[ord(" ")], table[ord("\n")], table[ord("A")], table[0], table[255]) == ("Ġ", "Ċ", "A", "Ā", "ÿ")


def test_token_bytes() -> None:
    assert BYTES.token_bytes(BYTES.tokens.index("Ġonce")) == b" once"
    assert b"".join(BYTES.token_bytes(token) for token in range(256)) == bytes(range(256))
    end = BYTES.tokens.index("<|im_end|>")
    assert BYTES.token_bytes(end) == b""
    assert BYTES.token_bytes(end, special=True) == b"<|im_end|>"
    assert SPM.token_bytes(SPM.tokens.index("▁once")) == b" once"
    assert SPM.token_bytes(SPM.tokens.index("<0xE9>")) == b"\xe9"
    assert SPM.token_bytes(0) == b""
    user = replace(BYTES, types=(*BYTES.types[:-1], TokenType.USER_DEFINED))
    assert user.token_bytes(end) == b"<|im_end|>"
    for token in (-1, len(BYTES.tokens)):
        with pytest.raises(ValueError, match="outside"):
            BYTES.token_bytes(token)


@pytest.mark.parametrize(
    ("vocabulary", "key", "value", "words"),
    [
        (BYTES, "model", None, "model is missing"),
        (BYTES, "model", "bert", "'bert'"),
        (BYTES, "model", 1, "model is int"),
        (BYTES, "tokens", None, "tokens is missing"),
        (BYTES, "tokens", [], "tokens is empty"),
        (BYTES, "tokens", "abc", "tokens is str"),
        (BYTES, "tokens", [1, 2], "tokens has entries of the wrong type"),
        (BYTES, "token_type", [1], "token_type has 1 entries"),
        (BYTES, "token_type", [99] * len(BYTES.tokens), "99, which is no token type"),
        (BYTES, "token_type", [1.0] * len(BYTES.tokens), "token_type has entries of the wrong type"),
        (BYTES, "merges", ["ab"], "'ab', which is not two tokens"),
        (BYTES, "merges", [" "], "which is not two tokens"),
        (BYTES, "merges", ["a "], "which is not two tokens"),
        (BYTES, "merges", [1], "merges has entries of the wrong type"),
        (BYTES, "bos_token_id", 1 << 20, "bos_token_id is 1048576, outside"),
        (BYTES, "eos_token_id", "x", "eos_token_id is str"),
        (BYTES, "unknown_token_id", -7, "unknown_token_id is -7"),
        (BYTES, "add_bos_token", 1, "add_bos_token is int"),
        (SPM, "scores", [0.0], "scores has 1 entries"),
        (SPM, "scores", ["x"] * len(SPM.tokens), "scores has entries of the wrong type"),
        (SPM, "token_type", [6] * len(SPM.tokens), "'<unk>' for a byte"),
    ],
)
def test_a_bad_key_is_named(vocabulary: Vocabulary, key: str, value: Any, words: str) -> None:
    metadata = vocabulary.to_metadata() | {f"tokenizer.ggml.{key}": value}
    if value is None:
        del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(ParametersError, match=words):
        Vocabulary.from_metadata(metadata)


def test_a_chat_template_that_is_no_text() -> None:
    with pytest.raises(ParametersError, match=r"tokenizer\.chat_template"):
        Vocabulary.from_metadata(BYTES.to_metadata() | {"tokenizer.chat_template": 3})


def test_defaults_are_those_of_llama_cpp() -> None:
    spm = Vocabulary.from_metadata({"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "a"]})
    assert (spm.add_bos, spm.add_space_prefix, spm.types, spm.scores) == (True, True, (1, 1), (0.0, 0.0))
    bpe = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.pre": "llama-bpe"}
    assert Vocabulary.from_metadata(bpe).add_bos
    assert not Vocabulary.from_metadata(bpe | {"tokenizer.ggml.pre": "qwen2"}).add_bos
    assert Vocabulary.from_metadata(bpe | {"tokenizer.ggml.bos_token_id": 0xFFFFFFFF}).bos is None


@pytest.mark.parametrize(
    ("name", "pre", "n", "bos", "eos"),
    [
        ("gpt-2", "gpt-2", 50257, 50256, 50256),
        ("llama-spm", "default", 32000, 1, 2),
        ("phi-3", "default", 32064, 1, 32000),
        ("starcoder", "starcoder", 49152, 0, 0),
        ("refact", "refact", 49216, 0, 0),
        ("mpt", "mpt", 50432, 0, 0),
        ("deepseek-coder", "deepseek-coder", 32256, 32013, 32014),
    ],
)
def test_real_vocabularies(shared_data: Path, name: str, pre: str, n: int, bos: int, eos: int) -> None:
    vocabulary = read_vocabulary(shared_data / "models" / "ggml_vocab" / f"ggml-vocab-{name}.gguf")
    assert (vocabulary.pre, len(vocabulary.tokens), vocabulary.bos, vocabulary.eos) == (pre, n, bos, eos)
    for token in range(n):
        vocabulary.token_bytes(token, special=True)
