"""The arithmetic coder: what goes in comes out, in as many bits as it should take; chances from logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofile.evaluate.coder import MOST_TOTAL, Decoder, Encoder, frequencies

SYMBOLS = st.lists(
    st.integers(1, 56).flatmap(
        lambda bits: st.tuples(st.integers(0, 2**bits), st.integers(1, 2**bits), st.integers(0, 2**bits))
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(SYMBOLS)
def test_every_symbol_comes_back_at_its_price(symbols: list[tuple[int, int, int]]) -> None:
    symbols = [
        (start, size, start + size + after) for start, size, after in symbols if start + size + after < MOST_TOTAL
    ]
    encoder, bits = Encoder(), 0.0
    for start, size, total in symbols:
        encoder.encode(start, size, total)
        bits -= math.log2(size / total)
    message = encoder.finish()
    assert 8 * len(message) < bits + 8 + 0.01 * len(symbols) + 1e-6
    decoder = Decoder(message)
    for start, size, total in symbols:
        assert start <= decoder.point(total) < start + size
        decoder.take(start, size)


def test_a_carry_runs_through_many_bytes() -> None:
    """Symbols at the upper end of the interval, then one that pushes over."""
    for n in range(1, 12):
        symbols = [(2**40 - 1, 1, 2**40)] * n + [(2**40 - 2, 2, 2**40)] + [(1, 1, 3)] * n
        encoder = Encoder()
        for symbol in symbols:
            encoder.encode(*symbol)
        decoder = Decoder(encoder.finish())
        for start, size, total in symbols:
            assert start <= decoder.point(total) < start + size
            decoder.take(start, size)


def test_nothing_is_no_bytes_and_certainty_is_free() -> None:
    assert Encoder().finish() == b""
    encoder = Encoder()
    for _ in range(1000):
        encoder.encode(0, 7, 7)
    assert encoder.finish() == b""


@pytest.mark.parametrize("message", [b"", b"\xff" * 40, bytes(40), bytes(range(256))])
def test_any_bytes_are_some_symbols(message: bytes) -> None:
    decoder = Decoder(message)
    for _ in range(200):
        point = decoder.point(1000)
        assert 0 <= point < 1000
        decoder.take(point // 10 * 10, 10)


def test_chances_are_those_of_the_logits() -> None:
    logits_RV = np.random.default_rng(1).normal(0, 4, (5, 300)).astype(np.float32)
    size_RV = frequencies(logits_RV, np.ones(300, bool))
    exact_RV = np.exp(logits_RV.astype(np.float64) - logits_RV.max(axis=1, keepdims=True)) * 2.0**30
    assert size_RV.dtype == np.int64
    assert (np.abs(size_RV - exact_RV) <= 2 + 3e-6 * exact_RV).all()


def test_a_row_depends_on_itself_alone() -> None:
    logits_RV = np.random.default_rng(2).normal(0, 9, (6, 50)).astype(np.float32)
    logits_RV[1, 3], logits_RV[2, :] = np.nan, np.nan
    logits_RV[3, 4], logits_RV[4, 5] = np.inf, -np.inf
    allowed_V = np.arange(50) % 7 > 0
    together = frequencies(logits_RV, allowed_V)
    for row in range(6):
        assert np.array_equal(frequencies(logits_RV[row : row + 1], allowed_V)[0], together[row])
    assert (together[:, ~allowed_V] == 0).all()
    assert (together[:, allowed_V] >= 1).all()
    assert (together.sum(axis=1) < MOST_TOTAL).all()
