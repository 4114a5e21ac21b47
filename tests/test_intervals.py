"""Wilson and Newcombe, against published figures."""

from __future__ import annotations

import pytest

from twofile.intervals import difference, paired, wilson


@pytest.mark.parametrize(
    # Newcombe 1998, Statistics in Medicine 17: 857-872, table I, method 3
    ("count", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(count: int, n: int, low: float, high: float) -> None:
    found = wilson(count, n)
    assert found.value == count / n
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_all_of_them() -> None:
    assert wilson(20, 20).high == 1.0
    assert wilson(20, 20).low == pytest.approx(1 - 0.1611, abs=5e-5)


@pytest.mark.parametrize(
    # Newcombe 1998, Statistics in Medicine 17: 873-890, table II, method 10
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_difference(one: tuple[int, int], other: tuple[int, int], low: float, high: float) -> None:
    found = difference(wilson(*one), wilson(*other))
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_in_words() -> None:
    assert str(wilson(81, 263)) == "30.8% (25.5% to 36.6%)"


@pytest.mark.parametrize(("count", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_no_share(count: int, n: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson(count, n)


def test_paired() -> None:
    """Agresti and Min 2005, by hand: 9 pairs better, 1 worse of 20 (b = 9.5, c = 1.5, n = 22)."""
    found = paired([1.0] * 9 + [-1.0] + [0.0] * 10)
    half = 1.959964 * (11 - 64 / 22) ** 0.5 / 22
    assert found.value == 0.4
    assert (found.low, found.high) == (pytest.approx(8 / 22 - half, abs=1e-6), pytest.approx(8 / 22 + half, abs=1e-6))
    always = paired([1.0] * 20)
    assert 0.75 < always.low < 1.0
    assert always.high == 1.0
    assert paired([0.5, 0.7, 0.6]).value == pytest.approx(0.6)
    with pytest.raises(ValueError, match="no pairs"):
        paired([])
