"""The tools that conversations call, in the form of chat templates, and the exact arithmetic of one of them."""

from __future__ import annotations

import ast
from fractions import Fraction
from random import Random
from typing import Any


def _tool(name: str, about: str, argument: str) -> dict[str, Any]:
    shape = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": shape}}


CALCULATOR = _tool("calculator", "Works out an expression.", "expression")
PYTHON = _tool("python", "Runs a program and gives what it prints.", "code")
SEARCH = _tool("search", "Looks something up.", "query")
ALL = (CALCULATOR, PYTHON, SEARCH)


def some(draw: Random, wanted: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A few tools in any order, the one that is wanted among them; without one, all but what would be of use."""
    others = [tool for tool in ALL if tool is not wanted]
    found = draw.sample(others, draw.randint(0 if wanted else 1, 2)) + ([wanted] if wanted else [])
    draw.shuffle(found)
    return found


def call(tool: dict[str, Any], argument: str) -> dict[str, Any]:
    """The assistant calls a tool."""
    shape = tool["function"]
    (key,) = shape["parameters"]["properties"]
    asked = {"name": shape["name"], "arguments": {key: argument}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": asked}]}


def calculate(expression: str) -> str:
    """An expression of numbers, + - * / and brackets, exactly; at most ten decimals are written. ValueError for others."""
    try:
        return written(_value(ast.parse(expression.strip(), mode="eval").body))
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} cannot be worked out: {error}") from None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    raise ValueError("only numbers, + - * / and brackets are understood")


def written(value: Fraction) -> str:
    """A number as people write it."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.10f}".rstrip("0").rstrip(".")
