from __future__ import annotations

import gguf
import numpy as np
import pytest

from twofile.errors import ParametersError
from twofile.params.blocks import TYPES, decode, encode, fits, size
from twofile.params.kquants import ENCODERS

RANDOM = np.random.default_rng(1)
SAMPLES = {
    "normal": RANDOM.standard_normal((64, 512)).astype(np.float32),
    "heavy tails": RANDOM.standard_t(4, (64, 512)).astype(np.float32),
    "off centre": (0.1 * RANDOM.standard_normal((64, 512)) + 0.2).astype(np.float32),
}


def error(x: np.ndarray, type: str) -> float:
    """Root mean square error as a share of the spread."""
    return float(np.sqrt(np.mean((decode(encode(x, type), type, x.shape) - x) ** 2)) / x.std())


@pytest.mark.parametrize("type", TYPES)
def test_bytes_are_those_of_the_gguf_package(type: str) -> None:
    x = SAMPLES["normal"]
    data = encode(x, type)
    kind = gguf.GGMLQuantizationType[type]
    assert data.dtype == np.uint8
    assert data.shape == (size(type, x.shape),)
    theirs = gguf.quants.dequantize(data.reshape(len(x), -1), kind).reshape(x.shape)
    np.testing.assert_array_equal(decode(data, type, x.shape), theirs)
    if type not in ENCODERS:
        np.testing.assert_array_equal(data, gguf.quants.quantize(x, kind).view(np.uint8).ravel())


def even_grid(x: np.ndarray, type: str) -> float:
    """The error of rounding to as many even steps as a type has, over the range of each of its parts: a uniform
    distribution over a step has a deviation of a step over the root of 12."""
    part, levels, minima = {
        "Q8_0": (32, 254, False),
        "Q4_0": (32, 16, False),
        "Q4_K": (32, 15, True),
        "Q5_K": (32, 31, True),
        "Q6_K": (16, 64, False),
    }[type]
    parts = x.reshape(-1, part)
    reach = parts.max(axis=1) - parts.min(axis=1) if minima else 2 * np.abs(parts).max(axis=1)
    return float(np.sqrt(np.mean((reach / levels) ** 2) / 12)) / x.std()


@pytest.mark.parametrize(
    ("type", "bits"), [("Q8_0", 8.5), ("Q4_0", 4.5), ("Q4_K", 4.5), ("Q5_K", 5.5), ("Q6_K", 6.5625)]
)
def test_errors_are_those_of_an_even_grid_or_less(type: str, bits: float) -> None:
    x = SAMPLES["normal"]
    assert size(type, x.shape) * 8 / x.size == bits
    assert 0.85 < error(x, type) / even_grid(x, type) < 1.01


@pytest.mark.parametrize("sample", SAMPLES)
def test_more_bits_err_less(sample: str) -> None:
    x = SAMPLES[sample]
    errors = [error(x, type) for type in ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "BF16", "F16", "F32")]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.9 * errors[0]  # 4.5 bits each: the minima are worth their room
    assert errors[-1] == 0


@pytest.mark.parametrize("type", TYPES)
def test_extremes(type: str) -> None:
    zeros = np.zeros((2, 256), np.float32)
    np.testing.assert_array_equal(decode(encode(zeros, type), type, zeros.shape), zeros)
    tiny = np.full((1, 256), 1e-38, np.float32)
    assert np.abs(decode(encode(tiny, type), type, tiny.shape)).max() <= 2e-38
    lonely = zeros.copy()
    lonely[0, 77], lonely[1, 200] = 3.0, -3.0
    np.testing.assert_allclose(decode(encode(lonely, type), type, lonely.shape), lonely, atol=0.05)
    constant = np.full((1, 256), -0.75, np.float32)
    np.testing.assert_allclose(decode(encode(constant, type), type, constant.shape), constant, rtol=0.02)
    large = np.linspace(-60000, 60000, 256, dtype=np.float32)[None]
    assert np.isfinite(decode(encode(large, type), type, large.shape)).all()


def test_encoding_twice_changes_nothing() -> None:
    for type in ("F32", "F16", "BF16", "Q8_0"):
        data = encode(SAMPLES["heavy tails"], type)
        np.testing.assert_array_equal(encode(decode(data, type, (64, 512)), type), data)


def test_rows_are_independent_of_how_many_there_are() -> None:
    x = RANDOM.standard_normal((4200, 256)).astype(np.float32)  # more than is encoded at a time
    for type in ("Q6_K", "Q8_0", "BF16"):
        whole = encode(x, type).reshape(len(x), -1)
        np.testing.assert_array_equal(whole[4100], encode(x[4100:4101], type))


def test_what_cannot_be_encoded() -> None:
    assert fits("Q4_K", 512)
    assert not fits("Q4_K", 320)
    with pytest.raises(ValueError, match="rows of 320 numbers do not fit blocks of Q4_K"):
        encode(np.zeros((1, 320), np.float32), "Q4_K")
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ParametersError, match="the tensor w has a number that is not finite"):
            encode(np.array([[bad] + [0.0] * 31]), "Q8_0", "the tensor w")
    with pytest.raises(ParametersError, match="too large for F16"):
        encode(np.array([1e5]), "F16")
    assert decode(encode(np.array([1e38]), "BF16"), "BF16", (1,))[0] == pytest.approx(1e38, rel=0.01)


def test_hostile_bytes_are_only_numbers() -> None:
    for type in TYPES:
        data = RANDOM.integers(0, 256, size(type, (8, 256)), np.uint8)
        assert decode(data, type, (8, 256)).shape == (8, 256)
