"""Text to tokens and back: the program and the reference against llama.cpp's test vectors and against each other."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from tests.tiny import tiny_spm_vocabulary, tiny_vocabulary
from twofile.engine import library
from twofile.engine.engine import Engine
from twofile.engine.reference_tokenizer import ReferenceTokenizer, cut
from twofile.errors import EngineError, ParametersError
from twofile.params.vocabulary import PRE_TOKENIZERS, TokenType, Vocabulary, byte_characters
from twofile.params.write import field, write_container

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = map(int, TokenType)
GGML = ("llama-spm", "gpt-2", "phi-3", "mpt", "starcoder", "refact", "deepseek-coder")
CHATML = (b"<|im_start|>", b"<|im_end|>", b"<|endoftext|>")

Open = Callable[[Vocabulary], Engine]


@pytest.fixture
def program(tmp_path: Path) -> Open:
    """The program with a vocabulary and no model. Skips where it cannot be compiled."""
    try:
        library.load_program()
    except EngineError as error:
        pytest.skip(error.message)

    def open_(vocabulary: Vocabulary) -> Engine:
        path = tmp_path / "vocabulary.gguf"
        # an empty list has no type in GGUF
        metadata = {key: value for key, value in vocabulary.to_metadata().items() if value != []}
        write_container(path, "llama", {key: field(value) for key, value in metadata.items()}, {}, [])
        return Engine(path, backend="c")

    return open_


def opened(data: Path, program: Open, name: str) -> tuple[Engine, Vocabulary]:
    """The program with one of the shared vocabularies, and that vocabulary. Reading one takes a second or two."""
    if name == "llama-bpe":
        vocabulary = llama3_vocabulary(data)
        return program(vocabulary), vocabulary
    path = data / "models" / "ggml_vocab" / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    vocabulary = Vocabulary.from_metadata({key: found.contents() for key, found in GGUFReader(path).fields.items()})
    return Engine(path, backend="c"), vocabulary


def llama3_vocabulary(data: Path) -> Vocabulary:
    """Llama 3.2's tokens and merges in their original form, with the first of its control tokens."""
    folder = data / "models" / "llama3.2_tokenizer"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    ids: dict[str, int] = json.loads((folder / "encoder.json").read_text("utf-8"))
    tokens = [*sorted(ids, key=ids.__getitem__), "<|begin_of_text|>", "<|end_of_text|>"]
    types = [NORMAL] * len(ids) + [CONTROL] * 2
    merges = tuple(line for line in (folder / "vocab.bpe").read_text("utf-8").split("\n") if line)
    return Vocabulary("gpt2", "llama-bpe", tuple(tokens), tuple(types), merges=merges, bos=128000, eos=128001)


def vectors(data: Path, name: str) -> list[tuple[bytes, list[int]]]:
    base = data / "models" / "ggml_vocab" / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{base}.inp").read_bytes().split(b"\n__ggml_vocab_test__\n")
    lines = Path(f"{base}.out").read_text().split("\n")
    return [(text, [int(token) for token in line.split()]) for text, line in zip(texts, lines, strict=False)]


# --- strings to try: every script, white space, contractions, digits, and bytes that are not UTF-8

SPACES = "\t\n\v\f\r \x1c\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000\u200b\ufeff"
STRINGS = """'s 'S 're 'LL 've 'x \u2019s '\u017f hello World I've Straße Ωmega كتاب 中文字 日本語 한국어 ไทย
12345678 हिन्दी
e\u0301 \U0001f642 \U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea ǅ ª ² ½ Ⅷ ٣ \u2126\u212a\ua7ae \U00010400 \0
!? ... «» $+<=>^~|` _- \u2018\u201f 。、 \u2581"""
PARTS = (*STRINGS.split(), " ", "  ", "\n", "\r\n", " \n", "\n ", "\t")


def characters() -> list[str]:
    """A few hundred characters of every category that has been in Unicode for years."""
    chosen = random.Random(4)
    found: dict[str, list[str]] = {}
    for point in (*range(0x3000), *range(0xA000, 0xD800), *range(0xF900, 0x11000), *range(0x1D400, 0x1FB00)):
        found.setdefault(unicodedata.category(chr(point)), []).append(chr(point))
    del found["Cn"]
    return [character for kind in sorted(found) for character in chosen.sample(found[kind], min(40, len(found[kind])))]


CHARACTERS = characters()


def random_text(chosen: random.Random) -> str:
    def part() -> str:
        kind = chosen.randrange(4)
        if kind == 0:
            return "".join(chosen.choices(CHARACTERS, k=chosen.randint(1, 4)))
        if kind == 1:
            return "".join(chosen.choices(SPACES, k=chosen.randint(1, 3)))
        return chosen.choice(PARTS)

    return "".join(part() for _ in range(chosen.randint(0, 10)))


def random_bytes(chosen: random.Random) -> bytes:
    data = bytearray(random_text(chosen).encode())
    for _ in range(chosen.randint(1, 4)):
        at = chosen.randint(0, len(data))
        data[at : at + chosen.randint(0, 2)] = bytes(chosen.choices((0x80, 0xC0, 0xE2, 0xED, 0xF0, 0xFF, 0x41), k=1))
    return bytes(data)


def pairs_vocabulary(pre: str) -> Vocabulary:
    """Bytes, and a token for every two bytes: two neighbours stay apart only where the text was cut between them or
    one is taken. So its tokens show the words."""
    letters = byte_characters()
    shown = [letters[byte] for byte in (*range(32, 127), 9, 10, 13, 0xC2, 0xC3, 0xCC, 0xCE, 0xE2, 0xE4, 0xEF, 0xF0)]
    merges = tuple(f"{left} {right}" for left in letters for right in shown)
    tokens = (*letters, *(merge.replace(" ", "") for merge in merges), "<|end|>")
    return Vocabulary("gpt2", pre, tokens, (NORMAL,) * (len(tokens) - 1) + (CONTROL,), merges=merges)


@pytest.mark.parametrize("pre", [*PRE_TOKENIZERS, ""])
def test_program_and_reference_cut_the_same_words(program: Open, pre: str) -> None:
    vocabulary = pairs_vocabulary(pre)
    engine, reference = program(vocabulary), ReferenceTokenizer(vocabulary)
    chosen = random.Random(5)
    around = ("a{}b", " {} ", "1{}1", "'{}s")
    texts = [chosen.choice(around).format(character).encode() for character in CHARACTERS]
    texts += [random_text(chosen).encode() for _ in range(600)] + [random_bytes(chosen) for _ in range(200)]
    for text in texts:
        tokens = engine.tokenize(text)
        assert tokens == reference.encode(text), text
        assert engine.detokenize_bytes(tokens) == text


@pytest.mark.parametrize("name", [*GGML, "gpt-neox", "llama-bpe"])
def test_shared_vocabularies(shared_data: Path, program: Open, name: str) -> None:
    engine, vocabulary = opened(shared_data, program, name)
    reference = ReferenceTokenizer(vocabulary)
    found = vectors(shared_data, name) if name != "gpt-neox" else []
    assert len(found) == (47 if name != "gpt-neox" else 0)
    for text, tokens in found:
        assert engine.tokenize(text) == tokens, text
        assert reference.encode(text) == tokens, text
        assert engine.detokenize_bytes(tokens, skip_space=True) == text
        assert reference.decode(tokens, skip_space=True) == text

    chosen = random.Random(6)
    types = zip(vocabulary.tokens, vocabulary.types, strict=True)
    named = [text.encode() for text, kind in types if kind in (CONTROL, USER)]
    for _ in range(150):
        parts = (random_text(chosen).encode(), random_bytes(chosen), chosen.choice(named), chosen.choice(named)[:-1])
        text = b"".join(chosen.choices(parts, k=3))
        for special in (False, True):
            tokens = engine.tokenize(text, special=special)
            assert tokens == reference.encode(text, special=special), text
            for skip in (False, True):
                shown = reference.decode(tokens, special=special, skip_space=skip)
                assert engine.detokenize_bytes(tokens, special, skip) == shown


# --- the words of each pre-tokenizer, written out by hand from llama.cpp's patterns

WORDS: dict[str, list[tuple[str, list[str]]]] = {
    "gpt-2": [
        ("I'll don't we'RE", ["I", "'ll", " don", "'t", " we", "'", "RE"]),
        ("a  b\n\n c 12345!?", ["a", " ", " b", "\n\n", " c", " 12345", "!?"]),
        ("x \n", ["x", " \n"]),
    ],
    "llama-bpe": [
        ("I'll we'RE (a) 12345", ["I", "'ll", " we", "'RE", " (", "a", ")", " ", "123", "45"]),
        ("a  \n \n  b!\n\n", ["a", "  \n \n", " ", " b", "!\n\n"]),
    ],
    "qwen2": [("v 123\tx", ["v", " ", "1", "2", "3", "\tx"])],
    "starcoder": [("a 12 b", ["a", " ", "1", "2", " b"])],
    "falcon": [("a, 1234567 $x", ["a", ",", " ", "123", "456", "7", " ", "$", "x"])],
    "deepseek-coder": [("if x1 中文ab\n。", ["if", " x", "1", " ", "中文", "ab", "\n", "。"])],
    "deepseek-llm": [("if x12 中文ab \n", ["if", " x", "12", " ", "中文", "ab", " ", "\n"])],
}


@pytest.mark.parametrize("pre", WORDS)
def test_words(pre: str) -> None:
    for text, words in WORDS[pre]:
        assert cut(text, ReferenceTokenizer(tiny_vocabulary(pre)).patterns) == words


def test_names_of_pre_tokenizers(program: Open) -> None:
    for pre in (*PRE_TOKENIZERS, "", "default", "llama3", "llama-v3", "gpt-neox", "olmo", "deepseek-r1-qwen"):
        vocabulary = tiny_vocabulary(pre)
        assert program(vocabulary).tokenize("once") == ReferenceTokenizer(vocabulary).encode("once")
    with pytest.raises(ParametersError, match="tomorrow"):
        ReferenceTokenizer(tiny_vocabulary("tomorrow"))
    with pytest.raises((EngineError, ParametersError), match="tomorrow"):
        program(tiny_vocabulary("tomorrow"))


# --- promises


def test_ten_thousand_round_trips(program: Open) -> None:
    chosen = random.Random(7)
    bytes_engine, spm_engine = program(tiny_vocabulary()), program(tiny_spm_vocabulary())
    for n in range(10_000):
        text = random_text(chosen)
        assert bytes_engine.detokenize(bytes_engine.tokenize(text)) == text
        assert spm_engine.detokenize(spm_engine.tokenize(text)) == text.replace("\u2581", " ")
        if n % 5 == 0:
            data = random_bytes(chosen)
            assert bytes_engine.detokenize_bytes(bytes_engine.tokenize(data)) == data


def control_ids(vocabulary: Vocabulary) -> set[int]:
    return {i for i, kind in enumerate(vocabulary.types) if kind != NORMAL and kind != BYTE}


def test_a_hundred_thousand_texts_with_names_of_control_tokens_give_none(program: Open) -> None:
    chosen = random.Random(8)
    for vocabulary, names in ((tiny_vocabulary(), CHATML), (tiny_spm_vocabulary(), (b"<s>", b"</s>", b"<unk>"))):
        engine, forbidden = program(vocabulary), control_ids(vocabulary)
        others = (b" ", b"once upon", b"<", b"|>", b"\n", b"\xff", "\u2581".encode(), names[0][:-1], names[1][1:])
        for _ in range(50_000):
            text = chosen.choice(names).join(chosen.choices(others + names, k=chosen.randint(2, 4)))
            assert forbidden.isdisjoint(engine.tokenize(text)), text


def both(program: Open, vocabulary: Vocabulary) -> Iterable[Callable[..., list[int]]]:
    return program(vocabulary).tokenize, ReferenceTokenizer(vocabulary).encode


def spm(tokens: dict[str, tuple[int, float]], **changes: Any) -> Vocabulary:
    """A SentencePiece vocabulary of tokens with their types and scores."""
    return Vocabulary(
        "llama", "default", tuple(tokens), tuple(kind for kind, _ in tokens.values()),
        scores=tuple(score for _, score in tokens.values()), **changes,
    )  # fmt: skip


def test_merges_never_end_on_a_control_token(program: Open) -> None:
    tokens = {"<unk>": (UNKNOWN, 0.0), **dict.fromkeys("<s>", (NORMAL, -9.0)), "<s": (NORMAL, -1.0)}
    vocabulary = spm({**tokens, "<s>": (CONTROL, 0.0), "s>": (UNUSED, 0.0)})
    for encode in both(program, vocabulary):
        assert encode(b"<s>") == [4, 3]
        assert encode(b"<s>", special=True) == [5]
    letters_2 = (*byte_characters(), "<s", "<s>")
    n = len(letters_2)
    merged = Vocabulary("gpt2", "llama-bpe", letters_2, (NORMAL,) * (n - 1) + (CONTROL,), merges=("< s", "<s >"))
    for encode in both(program, merged):
        assert encode(b"<s>") == [n - 2, letters_2.index(">")]
        assert encode(b"<s>", special=True) == [n - 1]


def test_tokens_that_begin_and_end_texts_are_control_tokens(program: Open) -> None:
    # whatever the file says of their types
    vocabulary = spm(dict.fromkeys("</s>", (NORMAL, -9.0)) | {"</": (NORMAL, -1.0), "</s": (NORMAL, 0.0)}, eos=5)
    for encode in both(program, vocabulary):
        assert encode(b"</s>") == [4, 2, 3]
    vocabulary = dataclasses.replace(vocabulary, eos=0)  # but one letter is a letter
    for encode in both(program, vocabulary):
        assert encode(b"<") == [0]


def test_the_longest_name_at_each_place(program: Open) -> None:
    letters = byte_characters()
    names = ("<|a|>", "<|a|>b", "ab", "  ", "   ")
    types = (NORMAL,) * 256 + (CONTROL, CONTROL, USER, USER, USER)
    base = 256
    for encode in both(program, Vocabulary("gpt2", "gpt-2", (*letters, *names), types)):
        assert encode(b"<|a|>b<|a|>", special=True) == [base + 1, base]
        assert encode(b"     ab") == [base + 4, base + 3, base + 2]  # user-defined ones are found in any text
        assert base not in encode(b"<|a|>")


def test_spaces_of_a_sentencepiece_vocabulary(program: Open) -> None:
    tokens = {"▁": (NORMAL, -2.0), "a": (NORMAL, -3.0), "▁a": (NORMAL, -1.0), "<x>": (CONTROL, 0.0)}
    vocabulary = spm(tokens, add_space_prefix=True)
    engine = program(vocabulary)
    for encode in both(program, vocabulary):
        assert encode(b"a") == [2]
        assert encode(b" a") == [0, 2]
        assert encode("▁a".encode()) == [0, 2]
        assert encode(b"a<x>a", special=True) == [2, 3, 2]  # after a control token a text begins anew
        assert encode(b"") == []
    assert engine.detokenize([2, 2]) == "a a"
    assert engine.detokenize([3, 2]) == "a"
    assert engine.detokenize([3, 2], special=True) == "<x> a"
    assert engine.detokenize_bytes([2, 2]) == b" a a"
    for encode in both(program, dataclasses.replace(vocabulary, add_space_prefix=False)):
        assert encode(b"a") == [1]


def test_bytes_without_a_token_are_unknown(program: Open) -> None:
    vocabulary = spm({"<unk>": (UNKNOWN, 0.0), "a": (NORMAL, 0.0), "<0x62>": (BYTE, 0.0)}, unk=0)
    for encode in both(program, vocabulary):
        assert encode("aábc".encode()) == [1, 0, 0, 2, 0]
    for encode in both(program, dataclasses.replace(vocabulary, unk=None)):
        assert encode(b"abc") == [1, 2]
    for encode in both(program, dataclasses.replace(vocabulary, types=(CONTROL, NORMAL, BYTE))):
        assert encode(b"abc") == [1, 2]  # an unknown token that is a control token is none


def test_odd_vocabularies(program: Open) -> None:
    # the first of two equal tokens counts; empty ones and scores that are not numbers do no harm
    tokens = ("a", "b", "ab", "ab", "", "ba", "abb")
    scores = (0.0, 0.0, -5.0, 0.0, 0.0, math.nan, math.inf)
    for encode in both(program, Vocabulary("llama", "default", tokens, (NORMAL,) * 7, scores=scores)):
        assert encode(b"abab") == [2, 2]
        assert encode(b"babb") == [1, 6]
    merges = ("a b", "a b", "x y", "ab q", "b b", "ab b")
    for encode in both(program, Vocabulary("gpt2", "gpt-2", tokens, (NORMAL,) * 7, merges=merges)):
        assert encode(b"abab") == [2, 2]
        assert encode(b"abb") == [6]


@pytest.mark.parametrize("vocabulary", [tiny_vocabulary(), tiny_vocabulary("deepseek-llm"), tiny_spm_vocabulary()])
def test_long_texts_without_a_cut(program: Open, vocabulary: Vocabulary) -> None:
    engine = program(vocabulary)
    for text in ("the", " ", "\n ", "7", "=", "你", "<|", "'"):
        data = text * (300_000 // len(text))
        assert engine.detokenize(engine.tokenize(data, special=True)) == data
