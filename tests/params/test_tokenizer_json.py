from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import CHATML, tiny_spm_vocabulary, tiny_vocabulary
from twofile.engine.reference_tokenizer import ReferenceTokenizer
from twofile.errors import ParametersError
from twofile.params.parameters import read_vocabulary
from twofile.params.tokenizer_json import read_tokenizer, to_tokenizer_config, to_tokenizer_json
from twofile.params.vocabulary import TokenType, Vocabulary

tokenizers = pytest.importorskip("tokenizers")
BYTES, SPM = tiny_vocabulary(), tiny_spm_vocabulary()
TEXTS = (
    "Once upon a time, there was a little girl. <|im_end|> <s>",
    "  two spaces,\n\n\tlines\r\n and 1234567 digits — it's; don't!",
    "Zürich 你好 🙂 ÄÖÜ naïve\u00a0x",
    "",
)


def folder_of(vocabulary: Vocabulary, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(to_tokenizer_json(vocabulary)))
    (folder / "tokenizer_config.json").write_text(json.dumps(to_tokenizer_config(vocabulary, 128)))
    return folder


def differences(a: Vocabulary, b: Vocabulary) -> set[str]:
    return {field.name for field in fields(a) if getattr(a, field.name) != getattr(b, field.name)}


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "smollm", "falcon", "deepseek-coder"])
def test_byte_level_round_trip(tmp_path: Path, pre: str) -> None:
    vocabulary = replace(BYTES, pre=pre, add_bos=True, add_eos=True)
    assert read_tokenizer(folder_of(vocabulary, tmp_path / "a"), len(vocabulary.tokens)) == vocabulary


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "smollm", "falcon", "deepseek-coder"])
def test_byte_level_tokens_are_the_same_there(pre: str) -> None:
    vocabulary = replace(BYTES, pre=pre)
    there = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(vocabulary)))
    here = ReferenceTokenizer(vocabulary)
    for text in TEXTS:
        ids = there.encode(text, add_special_tokens=False).ids
        assert ids == here.encode(text, special=True)
        assert there.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("add_space_prefix", [True, False])
def test_sentencepiece_round_trip(tmp_path: Path, add_space_prefix: bool) -> None:
    vocabulary = replace(SPM, add_space_prefix=add_space_prefix)
    back = read_tokenizer(folder_of(vocabulary, tmp_path / "a"), len(vocabulary.tokens))
    assert differences(back, vocabulary) == {"scores"}  # their order is kept, which is all that counts
    there = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(vocabulary)))
    for text in TEXTS[:3]:
        ids = ReferenceTokenizer(vocabulary).encode(text)
        assert ReferenceTokenizer(back).encode(text) == ids
        if "<s>" not in text:
            assert there.encode(text, add_special_tokens=False).ids == ids
            assert there.decode(ids) == text


def test_bos_is_added_there_too() -> None:
    there = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(SPM)))
    assert there.encode("once").ids[0] == SPM.bos
    both = replace(BYTES, add_bos=True, add_eos=True)
    there = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(both)))
    assert (there.encode("once").ids[0], there.encode("once").ids[-1]) == (both.bos, both.eos)


@pytest.mark.parametrize("name", ["gpt-2", "starcoder", "refact", "mpt", "deepseek-coder", "llama-spm"])
def test_real_vocabularies_give_their_vectors_there(shared_data: Path, tmp_path: Path, name: str) -> None:
    base = shared_data / "models" / "ggml_vocab" / f"ggml-vocab-{name}.gguf"
    vocabulary = read_vocabulary(base)
    there = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(vocabulary)))
    texts = Path(f"{base}.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    for text, line in zip(texts, Path(f"{base}.out").read_text().splitlines(), strict=False):
        assert there.encode(text, add_special_tokens=False).ids == [int(n) for n in line.split()], text
    back = read_tokenizer(folder_of(vocabulary, tmp_path / "a"), len(vocabulary.tokens))
    assert differences(back, vocabulary) <= {"pre", "types", "scores"}


def test_a_real_sentencepiece_model(shared_data: Path, tmp_path: Path) -> None:
    shutil.copyfile(shared_data / "models" / "llama2_tokenizer" / "tokenizer.model", tmp_path / "tokenizer.model")
    want = read_vocabulary(shared_data / "models" / "ggml_vocab" / "ggml-vocab-llama-spm.gguf")
    assert read_tokenizer(tmp_path, 32000) == want
    padded = read_tokenizer(tmp_path, 32002)
    assert (padded.tokens[32001], padded.types[32001]) == ("[PAD32001]", TokenType.UNUSED)


def test_the_real_llama_3(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "models" / "llama3.2_tokenizer"
    ids = json.loads((source / "encoder.json").read_text("utf-8"))
    merges = [line.split(" ") for line in (source / "vocab.bpe").read_text("utf-8").splitlines() if line[0] != "#"]
    data = to_tokenizer_json(replace(BYTES, pre="llama-bpe"))
    data["model"] |= {"vocab": ids, "merges": merges}
    data["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    vocabulary = read_tokenizer(tmp_path, 128256)
    assert vocabulary.pre == "llama-bpe"
    tokenizer = ReferenceTokenizer(vocabulary)
    base = shared_data / "models" / "ggml_vocab" / "ggml-vocab-llama-bpe.gguf"
    texts = Path(f"{base}.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    for text, line in zip(texts, Path(f"{base}.out").read_text().splitlines(), strict=False):
        assert tokenizer.encode(text) == [int(n) for n in line.split()], text


def write(folder: Path, **files: Any) -> Path:
    for name, contents in files.items():
        text = contents if isinstance(contents, str) else json.dumps(contents)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_where_special_tokens_come_from(tmp_path: Path) -> None:
    data = to_tokenizer_json(BYTES)
    end, start, turn = (BYTES.tokens.index(text) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))

    def special(**files: Any) -> tuple[int | None, ...]:
        v = read_tokenizer(write(tmp_path, tokenizer__json=data, **files), len(BYTES.tokens))
        return v.bos, v.eos, v.eot, v.pad

    config = {"bos_token": None, "eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>"}
    assert special(tokenizer_config__json=config) == (None, turn, end, end)
    ids = {"bos_token_id": start, "eos_token_id": [turn, start, end], "pad_token_id": 1 << 40}
    assert special(generation_config__json=ids) == (start, turn, end, end)
    assert special(tokenizer_config__json={}) == (start, turn, end, None)
    assert special(generation_config__json={}, special_tokens_map__json={"eos_token": "<|endoftext|>"})[1:3] == (
        end,
        turn,
    )
    assert special(special_tokens_map__json={}, config__json={"eos_token_id": 7}) == (None, 7, turn, None)


def test_where_the_chat_template_comes_from(tmp_path: Path) -> None:
    write(tmp_path, tokenizer__json=to_tokenizer_json(BYTES))

    def template(**files: Any) -> str | None:
        return read_tokenizer(write(tmp_path, **files), len(BYTES.tokens)).chat_template

    assert template() is None
    assert template(tokenizer_config__json={"chat_template": CHATML}) == CHATML
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]
    assert template(tokenizer_config__json={"chat_template": several}) == "y"
    assert template(chat_template__jinja="{{ z }}") == "{{ z }}"


def test_added_tokens_have_types(tmp_path: Path) -> None:
    data = to_tokenizer_json(BYTES)
    n = len(BYTES.tokens)
    for offset, (text, special) in enumerate([("<tool>", False), ("<|fim|>", False), ("[X]", True)]):
        data["added_tokens"].append({"id": n + offset, "content": text, "special": special})
    vocabulary = read_tokenizer(write(tmp_path, tokenizer__json=data), n + 4)
    assert vocabulary.types[n:] == (TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.CONTROL, TokenType.UNUSED)
    with pytest.raises(ParametersError, match=f"has the token {n + 2}, the model only {n}"):
        read_tokenizer(tmp_path, n)


def test_metaspace(tmp_path: Path) -> None:
    data = to_tokenizer_json(SPM) | {"normalizer": None}
    for scheme, want in (("first", True), ("always", True), ("never", False)):
        data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        assert read_tokenizer(write(tmp_path, tokenizer__json=data), len(SPM.tokens)).add_space_prefix == want


def with_(**changes: Any) -> dict[str, Any]:
    return to_tokenizer_json(BYTES) | changes


SPLIT = {"type": "Split", "pattern": {"Regex": r"\w+|.new."}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "is no JSON object"),
        ({"model": {"type": "Unigram", "vocab": []}}, "is Unigram: only BPE"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "is WordPiece: only BPE"),
        (with_(pre_tokenizer=SPLIT), "none of the rules that are known.*new"),
        (with_(pre_tokenizer=None), "none of the rules"),
        (with_(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}), "none of the rules"),
        (with_(normalizer={"type": "Lowercase"}), "normalises texts by Lowercase"),
        (with_(pre_tokenizer={"type": "Sequence"}), "KeyError 'pretokenizers'"),
        (with_(pre_tokenizer=3), "cannot be read"),
        (with_(added_tokens=[{}]), "KeyError 'id'"),
        (with_(model={"type": "BPE", "merges": [], "vocab": {}}, added_tokens=[]), "cannot be read"),
        (with_(model={"type": "BPE", "merges": ["ab"], "vocab": {"a": 0}}), "'ab', which is not two tokens"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, data: Any, words: str) -> None:
    with pytest.raises(ParametersError, match=words):
        read_tokenizer(write(tmp_path, tokenizer__json=data), len(BYTES.tokens))


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match=r"neither tokenizer.json nor tokenizer.model") as caught:
        read_tokenizer(tmp_path, 10)
    assert "save_pretrained" in caught.value.hint


def test_nfc_is_let_through(tmp_path: Path) -> None:
    write(tmp_path, tokenizer__json=with_(normalizer={"type": "NFC"}))
    assert read_tokenizer(tmp_path, len(BYTES.tokens)).pre == "qwen2"


def test_what_cannot_be_exported() -> None:
    for pre in ("deepseek-llm", "tekken"):
        with pytest.raises(ParametersError, match=f"'{pre}' cannot be written"):
            to_tokenizer_json(replace(BYTES, pre=pre))
