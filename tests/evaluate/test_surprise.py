"""Bits of each token: their sum is what `bits` measures, their texts are the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import tiny_parameters, tiny_spm_parameters
from twofile.engine.engine import Engine
from twofile.evaluate.bits import bits_per_byte
from twofile.evaluate.surprise import first_token, surprises

TEXT = "Once upon a time the little girl was in the day. é 你好 \U0001f600\nand <|im_end|> there "


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tiny_parameters("qwen3", "F32", 3, tmp_path_factory.mktemp("m") / "t.gguf"), backend="numpy") as engine:
        yield engine


def test_what_shares_a_character_is_one(engine: Engine) -> None:
    found = surprises(engine, TEXT)
    assert "".join(each.text for each in found) == TEXT
    assert [token for each in found for token in each.tokens] == engine.tokenize(TEXT)
    assert {len(each.tokens) for each in found if each.text in "é你好\U0001f600"} == {2, 3, 4}
    assert all(each.bits > 0 for each in found)
    assert surprises(engine, "") == []


def test_with_bos_the_sum_is_bits_per_byte(tmp_path: Path) -> None:
    with Engine(tiny_spm_parameters("F32", 1, tmp_path / "t.gguf", context_length=16), backend="numpy") as engine:
        text = TEXT.replace("<|im_end|>", "</s>")
        found = surprises(engine, text)
        assert "".join(each.text for each in found) == text
        want = bits_per_byte(engine, [text])
        assert sum(each.bits for each in found) == pytest.approx(want.bits_per_byte * want.bytes)
        assert sum(len(each.tokens) for each in found) == want.tokens > 2 * 16  # several windows


def test_bytes_that_are_no_text(engine: Engine) -> None:
    found = surprises(engine, b"a\xffb\xe4\xbd")
    assert "".join(each.text for each in found) == "a\ufffdb\ufffd"


def test_first_token(engine: Engine) -> None:
    info = engine.info
    assert first_token(info) == info.bos
    assert first_token(replace(info, bos=-1)) == info.eos
    assert first_token(replace(info, bos=-1, eos=-1)) == 0
