"""Bits per byte, against models whose figure is known."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twofile.evaluate.bits import bits_per_byte

SIZE = 257  # 256 bytes and bos


class Stub:
    """Byte tokens; knows that a token is the one before plus one, with probability `sure`, if it sees `need` tokens."""

    def __init__(self, context: int = 16, sure: float = 1 / SIZE, need: int = 1, bos: bool = True) -> None:
        self.context_length, self.sure, self.need, self.bos = context, sure, need, bos
        self.read = 0

    def prompt(self, text: str) -> list[int]:
        return [256] * self.bos + list(text.encode())

    def detokenize_bytes(self, tokens: Sequence[int]) -> bytes:
        return bytes(token for token in tokens if token < 256)

    def session(self) -> list[int]:
        return []

    def evaluate(self, steps: Sequence[tuple[Any, Sequence[int], Any]]) -> NDArray[np.float32]:
        rows = []
        for session, tokens, want in steps:
            for token in tokens:
                session.append(token)
                self.read += 1
                p = np.full(SIZE, 1 / SIZE)
                if len(session) >= self.need and self.sure > 1 / SIZE:
                    p[:] = (1 - self.sure) / (SIZE - 1)
                    p[(token + 1) % 256] = self.sure
                if want == "all":
                    rows.append(np.log(p) + 3.0)  # logits need not be normalised
            assert len(session) <= self.context_length
        return np.array(rows, np.float32).reshape(len(rows), SIZE)


COUNT = bytes(range(1, 120)).decode()


def test_a_blind_model_needs_log2_of_the_vocabulary() -> None:
    found = bits_per_byte(Stub(), [COUNT, "short", "x"])
    assert found.bits_per_byte == pytest.approx(math.log2(SIZE), rel=1e-5)
    assert (found.documents, found.tokens, found.bytes) == (3, 125, 125)
    assert found.low == pytest.approx(found.high, rel=1e-5)


def test_every_token_once_whatever_the_window() -> None:
    for context in (2, 3, 7, 16, 119, 120, 500):
        found = bits_per_byte(Stub(context, sure=0.5), [COUNT])
        assert found.bytes == 119
        assert found.bits_per_byte == pytest.approx(1.0, rel=1e-4), context  # bos, 256, is followed by 257 % 256


def test_half_a_window_comes_before() -> None:
    """With windows of 16 a token has at least 8 before it, but for the first 8 of the document."""
    found = bits_per_byte(Stub(16, sure=0.5, need=8), [COUNT])
    blind = 7 * math.log2(SIZE)
    assert found.bits_per_byte * 119 == pytest.approx(blind + 112, rel=1e-4)


def test_cost_is_about_two_passes() -> None:
    stub = Stub(16)
    bits_per_byte(stub, [COUNT])
    assert stub.read < 2.2 * len(COUNT)


def test_without_bos_the_first_token_is_not_counted() -> None:
    found = bits_per_byte(Stub(bos=False), ["abc", "z"])
    assert (found.documents, found.bytes) == (1, 2)
    assert math.isnan(found.low)


def test_interval_covers_and_is_seeded() -> None:
    texts = [COUNT] * 20 + ["\x01" * 50] * 20
    stub = Stub(64, sure=0.5)
    found = bits_per_byte(stub, texts, seed=1)
    assert found.low < found.bits_per_byte < found.high
    assert found == bits_per_byte(stub, texts, seed=1)
    assert "n = 40 documents" in str(found)


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no text"):
        bits_per_byte(Stub(), [""])
    with pytest.raises(ValueError, match="window"):
        bits_per_byte(Stub(), ["a"], window=1)


def test_with_the_engine(tmp_path: Path) -> None:
    from tests.tiny import tiny_parameters
    from twofile.engine.engine import Engine

    path = tiny_parameters("qwen3", "F32", 1, tmp_path / "tiny.gguf")
    done: list[int] = []
    found = bits_per_byte(Engine(path, backend="numpy"), ["Once upon a time", "the little girl"], progress=done.append)
    assert 0 < found.bits_per_byte < 40
    assert sum(done) == 31
