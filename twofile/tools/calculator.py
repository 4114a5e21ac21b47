"""A calculator that is exact: fractions from end to end, roots and the like to fifty digits, nothing is evaluated.

`+ - * / // % **`, brackets, a few functions and constants. A result that is no whole number is written with ten
decimals at most, and beside it the fraction where that is short. Guarantee: what is asked takes at most some
milliseconds and megabytes, whatever it is: sizes are bounded before anything is worked out.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from twofile.kernel.driver import Context, Part
from twofile.kernel.label import Label

__all__ = ["Calculator", "calculate"]

_LONGEST = 1000  # characters of an expression
_BITS = 20_000  # of a number on the way
_DIGITS = 50

_CONSTANTS = {"pi": Fraction("3.14159265358979323846264338327950288419716939937511"),
              "e": Fraction("2.71828182845904523536028747135266249775724709369996")}  # fmt: skip


class Calculator:
    """The driver."""

    name = "calculator"
    about = "Works out an expression."
    pure = True
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
        "additionalProperties": False,
    }

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        return (calculate(str(arguments["expression"])),)

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label()  # made of what it was given alone: the caller joins that


def calculate(expression: str) -> str:
    """The value of an expression, as text. ValueError says what is wrong with it."""
    if len(expression) > _LONGEST:
        raise ValueError(f"an expression has at most {_LONGEST} characters")
    plain = (
        expression.strip().replace("×", "*").replace("·", "*").replace("÷", "/").replace("−", "-").replace("^", "**")
    )
    try:
        tree = ast.parse(plain, mode="eval")
        return written(_value(tree.body))
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is no expression of numbers") from error
    except ZeroDivisionError:
        raise ValueError("that divides by zero") from None


def written(value: Fraction) -> str:
    """A number as people write it."""
    if value.denominator == 1:
        return str(value.numerator)
    with localcontext() as context:
        context.prec = _DIGITS + len(str(abs(value.numerator // value.denominator)))
        near = Decimal(value.numerator) / Decimal(value.denominator)
        text = f"{near:.10f}".rstrip("0").rstrip(".")
    if Fraction(text) == value or len(str(value)) > 24:
        return text
    return f"{text} (exactly {value})" if value.denominator < 10**6 else text


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > _BITS or value.denominator.bit_length() > _BITS:
        raise ValueError("a number on the way is too large")
    return value


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("only numbers can be worked out")
        case ast.Constant(value=int() | float() as number):
            if not math.isfinite(number):
                raise ValueError("a number is too large")
            return _bounded(Fraction(ast.unparse(node) if isinstance(number, float) else number))
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner)
        case ast.BinOp(left=left, op=op, right=right):
            return _bounded(_binary(op, _value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*_arguments(name, [_value(one) for one in arguments])))
    raise ValueError(f"{ast.unparse(node)[:40]!r} is nothing that is understood here")


def _binary(op: ast.operator, a: Fraction, b: Fraction) -> Fraction:
    match op:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.Div():
            return a / b
        case ast.FloorDiv():
            return Fraction(a // b)
        case ast.Mod():
            return a % b
        case ast.Pow():
            return _power(a, b)
    raise ValueError("only + - * / // % and ** are understood")


def _power(a: Fraction, b: Fraction) -> Fraction:
    if b.denominator != 1:
        if a < 0:
            raise ValueError("a root of a negative number is no real number")
        return _of_decimal(
            lambda: (Decimal(a.numerator) / Decimal(a.denominator)) ** (Decimal(b.numerator) / Decimal(b.denominator))
        )
    size = max(a.numerator.bit_length(), a.denominator.bit_length())
    if abs(b) * max(1, size) > _BITS and a not in (0, 1, -1):
        raise ValueError("a number on the way is too large")
    return a**b.numerator


def _of_decimal(work: Callable[[], Decimal]) -> Fraction:
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = _DIGITS, 6000, -6000
        try:
            found = work()
        except ArithmeticError as error:
            raise ValueError(f"that cannot be worked out ({type(error).__name__})") from None
        if not found.is_finite():
            raise ValueError("that is no number")
        nearest = found.to_integral_value()
        if abs(found - nearest) < Decimal(10) ** -(_DIGITS - 10) * max(Decimal(1), abs(nearest)):
            found = nearest  # a root that is a whole number
        return Fraction(found)


def _decimal(x: Fraction) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator)


def _whole(x: Fraction, name: str) -> int:
    if x.denominator != 1:
        raise ValueError(f"{name} is of whole numbers")
    return x.numerator


def _factorial(x: Fraction) -> Fraction:
    n = _whole(x, "factorial")
    if not 0 <= n <= 1500:
        raise ValueError("factorial is of 0 to 1500")
    return Fraction(math.factorial(n))


def _round(x: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
    n = _whole(digits, "round")
    if not 0 <= n <= 50:
        raise ValueError("round is to 0 to 50 digits")
    scaled = abs(x) * 10**n
    near = Fraction(math.floor(scaled + Fraction(1, 2)), 10**n)  # halves away from zero, as people round
    return near if x >= 0 else -near


_FUNCTIONS: dict[str, Callable[..., Fraction]] = {
    "abs": abs,
    "ceil": lambda x: Fraction(math.ceil(x)),
    "exp": lambda x: _of_decimal(lambda: _decimal(x).exp()),
    "factorial": _factorial,
    "floor": lambda x: Fraction(math.floor(x)),
    "gcd": lambda a, b: Fraction(math.gcd(_whole(a, "gcd"), _whole(b, "gcd"))),
    "lcm": lambda a, b: Fraction(math.lcm(_whole(a, "lcm"), _whole(b, "lcm"))),
    "ln": lambda x: _of_decimal(lambda: _decimal(x).ln()),
    "log": lambda x: _of_decimal(lambda: _decimal(x).log10()),
    "max": lambda *xs: max(xs),
    "min": lambda *xs: min(xs),
    "round": _round,
    "sqrt": lambda x: _power(x, Fraction(1, 2)),
}
_COUNTS = {"gcd": (2, 2), "lcm": (2, 2), "max": (1, 99), "min": (1, 99), "round": (1, 2)}


def _arguments(name: str, given: list[Fraction]) -> list[Fraction]:
    least, most = _COUNTS.get(name, (1, 1))
    if not least <= len(given) <= most:
        raise ValueError(f"{name} takes {least if least == most else f'{least} to {most}'} numbers")
    return given
