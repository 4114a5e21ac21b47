"""The calculator: exact, bounded, and nothing else."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofile.kernel.driver import Drivers
from twofile.tools.calculator import Calculator, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1848 / 6", "308"),
        ("0.1 + 0.2", "0.3"),
        ("10 / 3", "3.3333333333 (exactly 10/3)"),
        ("7 / 2", "3.5"),
        ("2 ** 100", str(2**100)),
        ("2^10 − 3×4", "1012"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("sqrt(1764)", "42"),
        ("sqrt(2)", "1.4142135624"),
        ("(1 + 2) * (3 + 4)", "21"),
        ("15 / 100 * 80", "12"),
        ("round(2.5) + round(-2.5) + round(2.345, 2)", "2.35"),
        ("factorial(20)", "2432902008176640000"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("max(1, 5, 3) - min(2, 4)", "3"),
        ("ln(e)", "1"),
        ("log(1000)", "3"),
        ("1e3 + 1", "1001"),
        ("123456789012345678901234567890 + 1", "123456789012345678901234567891"),
    ],
)
def test_values(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "", "1 +", "x", "__import__('os')", "open('a')", "'a' * 3", "1 if 1 else 2", "[1]", "lambda: 1", "1 < 2",
        "True", "1 / 0", "0 ** -1", "9 ** 9 ** 9", "9 ** 99999", "1e99999", "factorial(99999)", "sqrt(-1)", "sqrt()",
        "gcd(1.5, 2)",
        "(" * 300 + "1" + ")" * 300, "1" * 2000, "round(1, 999)", "exp(99999)", "ln(0)", "1j", "f'{1}'", "a.b", "1; 2",
    ],
)  # fmt: skip
def test_what_is_refused(expression: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError):  # noqa: PT011
        calculate(expression)
    assert time.monotonic() - start < 0.5


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), st.sampled_from("+-*"))
def test_whole_numbers(a: int, b: int, op: str) -> None:
    wanted = {"+": a + b, "-": a - b, "*": a * b}[op]
    assert calculate(f"{a} {op} ({b})") == str(wanted)


@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_fractions(a: Fraction, b: Fraction) -> None:
    said = calculate(f"({a.numerator} / {a.denominator}) + ({b.numerator} / {b.denominator})")
    exact = said.rpartition("(exactly ")[2].rstrip(")") if "exactly" in said else said
    assert abs(Fraction(exact) - (a + b)) <= Fraction(1, 10**10)


def test_it_is_a_driver() -> None:
    drivers = Drivers([Calculator()])
    assert drivers.tools(["calculator"])[0]["function"]["name"] == "calculator"
    assert drivers["calculator"].pure
