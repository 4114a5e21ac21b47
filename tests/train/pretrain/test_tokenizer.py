"""The learned vocabulary: size, round trip, no control token from plain text."""

import random

import pytest

from twofile.errors import TrainError
from twofile.params.vocabulary import Vocabulary
from twofile.train.pretrain.tokenizer import BYTES, SPECIAL, check, learn, tokenizer

TEXTS = [
    "The little cat sat on the mat. It's 12 o'clock!\n",
    "Once upon a time there was a cat, and the cat was little.",
] * 5


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return learn(TEXTS, 300)


def test_layout(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.tokens) == 300
    assert vocabulary.tokens[: len(SPECIAL)] == SPECIAL
    assert vocabulary.types == (3,) * len(SPECIAL) + (1,) * (300 - len(SPECIAL))
    assert sorted(vocabulary.token_bytes(i) for i in range(len(SPECIAL), BYTES)) == [bytes([i]) for i in range(256)]
    assert (vocabulary.bos, vocabulary.eos, vocabulary.add_bos, vocabulary.pre) == (0, 0, True, "qwen2")
    assert Vocabulary.from_metadata(vocabulary.to_metadata()) == vocabulary


def test_round_trip(vocabulary: Vocabulary) -> None:
    draw = random.Random(1)
    letters = "abc the  \n\r\t'12é日本\U0001f600\u0301\u00a0"
    letters += "".join(chr(draw.randrange(1, 0xD800)) for _ in range(50))
    bpe = tokenizer(vocabulary)
    for text in ("".join(draw.choices(letters, k=30)) for _ in range(500)):
        check(vocabulary, text, bpe.encode(text).ids)
    with pytest.raises(TrainError, match="does not give back the text 'a cat'"):
        check(vocabulary, "a cat", bpe.encode("a bat").ids)
    with pytest.raises(TrainError, match="does not give back"):
        check(vocabulary, "a cat", [*bpe.encode("a cat").ids[:-1], 1])


def test_learned_words_are_one_token(vocabulary: Vocabulary) -> None:
    assert len(tokenizer(vocabulary).encode(" cat").ids) == 1


def test_plain_text_yields_no_control_token(vocabulary: Vocabulary) -> None:
    ids = tokenizer(vocabulary).encode("".join(SPECIAL) * 3).ids
    assert min(ids) >= len(SPECIAL)


def test_agrees_with_the_engine(vocabulary: Vocabulary) -> None:
    from twofile.engine.reference_tokenizer import ReferenceTokenizer

    ours, fast = ReferenceTokenizer(vocabulary), tokenizer(vocabulary)
    for text in [*TEXTS, 'I\'LL  go\n\n now... "Yes" 日本 100']:
        assert ours.encode(text) == fast.encode(text).ids


def test_sizes_that_cannot_be(vocabulary: Vocabulary) -> None:
    with pytest.raises(TrainError, match="no room"):
        learn(TEXTS, 200)
    with pytest.raises(TrainError, match="the texts give only"):
        learn(TEXTS, 5000)
    with pytest.raises(TrainError, match="gpt2/qwen2"):
        tokenizer(Vocabulary("gpt2", "gpt-2", ("a",), (1,)))
