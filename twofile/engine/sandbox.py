"""Jinja for templates that nobody vouches for: they come with a parameters file.

The sandbox of Jinja keeps a template from reaching Python. This one also bounds what it may spend: steps (iterations,
calls, filters, comparisons), characters made, the size of any one value, seconds. Attributes, filters and functions are
those that chat templates use; the rest is refused. What Hugging Face gives its chat templates is here:
`raise_exception`, `strftime_now`, `tojson`, `break` and `continue`, `{% generation %}`.

Costs: some milliseconds to compile a template, well under one to render it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from itertools import chain
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes, pass_context
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

SOURCE_LIMIT = 128 * 1024  # characters of a template; the longest in use have some 30,000
VALUE_LIMIT = 8_000_000  # characters of one value when it is written out, and of the output
CHARACTER_LIMIT = 64_000_000  # characters made in all
STEP_LIMIT = 300_000
SECOND_LIMIT = 10.0

_STRING_METHODS = frozenset((
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal", "isdigit", "islower",
    "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper",
))  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: _STRING_METHODS,
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
_FILTERS = (
    "abs", "attr", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last",
    "length", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "sort",
    "unique",
)  # fmt: skip
_TEXT_FILTERS = ("capitalize", "lower", "title", "trim", "upper")


class TemplateRefused(Exception):  # noqa: N818 - the template's own word, by raise_exception
    """The template says that it cannot render this conversation."""


class _Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self.steps, self.characters = STEP_LIMIT, CHARACTER_LIMIT
        self.deadline = time.monotonic() + SECOND_LIMIT

    def step(self, characters: int = 0) -> None:
        self.steps -= 1
        self.spend(characters)
        if self.steps < 0 or time.monotonic() > self.deadline:
            raise jinja2.TemplateRuntimeError("it takes too many steps")

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if characters > VALUE_LIMIT or self.characters < 0:
            raise jinja2.TemplateRuntimeError("it makes too much text")


_budget: ContextVar[_Budget] = ContextVar("budget")


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment in which chat templates run."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # nothing is computed before there is a budget
            finalize=_output,
            extensions=[jinja2.ext.loopcontrols, _Generation],
        )
        own: dict[str, Callable[..., Any]] = {"_concat": _concat, "_each": _each, "_made": _made, "_step": _step}
        own |= {"indent": _indent, "join": _join, "list": _list, "replace": _replace, "tojson": _tojson}
        own |= {name: _of_text(self.filters[name]) for name in _TEXT_FILTERS}
        own |= {"safe": _of_text(str), "string": _of_text(str)}  # nothing is escaped here, so everything is safe
        self.filters = {name: self.filters[name] for name in _FILTERS} | own
        kept = {name: self.globals[name] for name in ("cycler", "dict", "joiner", "namespace", "range")}
        self.globals = {**kept, "raise_exception": _raise_exception, "strftime_now": _strftime_now}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        self.literal = sum(len(data.data) for data in tree.find_all(nodes.TemplateData))
        visited: nodes.Template = _Bound().visit(tree)
        return visited

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if type(obj) in _METHODS:
            return attr in _METHODS[type(obj)]
        known = isinstance(obj, Namespace | LoopContext | Cycler | Joiner | Macro | jinja2.Undefined)
        return known and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No `format`: a width in it can ask for any amount of memory."""

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as in Jinja
        budget = _budget.get()
        budget.step(__self.literal if isinstance(__obj, Macro | LoopContext) else 0)
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            if name == "replace" and len(args) >= 2:
                return _replace(__context, owner, *args, **kwargs)
            if name == "join" and len(args) == 1:
                return _join(__context, args[0], owner)
            found = super().call(__context, __obj, *args, **kwargs)
            budget.spend(8 * len(found) if isinstance(found, list) else len(owner))
            return found
        made = super().call(__context, __obj, *args, **kwargs)
        if isinstance(made, dict):
            _weigh(made)
        return made

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sized = (str, list, tuple)
        if operator == "+" and isinstance(left, sized) and isinstance(right, sized):
            _budget.get().spend(len(left) + len(right))
            _weigh((left, right))
        elif operator == "*" and isinstance(left, sized) != isinstance(right, sized):
            sequence, times = (left, right) if isinstance(left, sized) else (right, left)
            _budget.get().spend(_weigh(sequence) * max(int(times), 0))
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > 1024:
                raise jinja2.TemplateRuntimeError("it multiplies too large numbers")
        elif operator == "**" and not (abs(left) <= 65536 and abs(right) <= 64):
            raise jinja2.TemplateRuntimeError("it raises to too large a power")
        elif operator == "%" and isinstance(left, str):
            raise jinja2.TemplateRuntimeError("% on a text is not allowed")
        return super().call_binop(context, operator, left, right)


def compile_template(source: str) -> Callable[[Mapping[str, Any]], str]:
    """A function from variables to text. Raises what Jinja raises; the function does too, and TemplateRefused."""
    if len(source) > SOURCE_LIMIT:
        raise jinja2.TemplateSyntaxError(f"it has {len(source)} characters, more than {SOURCE_LIMIT}", 1)
    template = Sandbox().from_string(source)

    def render(variables: Mapping[str, Any]) -> str:
        token = _budget.set(_Budget())
        try:
            parts: list[str] = []
            room = VALUE_LIMIT
            for part in template.generate(**variables):
                parts.append(part)
                room -= len(part)
                if room < 0:
                    raise jinja2.TemplateRuntimeError("it makes too much text")
            return "".join(parts)
        finally:
            _budget.reset(token)

    return render


class _Bound(NodeTransformer):
    """Puts what has no hook in Jinja (loops, `~`, comparisons, literals) through filters of ours."""

    def visit_For(self, node: nodes.For, *_: Any) -> nodes.Node:  # noqa: N802 - Jinja's naming
        self.generic_visit(node)
        literal = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.iter = self._filter(node.iter, "_each", [nodes.Const(literal)])
        return node

    def visit_Concat(self, node: nodes.Concat, *_: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), "_concat", [])

    def visit_Filter(self, node: nodes.Filter | nodes.Test, *_: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.node is not None:  # as in {% filter %}, a block
            node.node = self._filter(node.node, "_step", [])
        return node

    visit_Test = visit_Filter

    def visit_Compare(self, node: nodes.Compare, *_: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = self._filter(node.expr, "_step", [])
        return node

    def visit_List(self, node: nodes.List | nodes.Tuple | nodes.Dict, *_: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        target = isinstance(node, nodes.Tuple) and node.ctx != "load"  # as in {% for a, b in c %}
        return node if target else self._filter(node, "_made", [])

    visit_Tuple = visit_Dict = visit_List

    @staticmethod
    def _filter(node: nodes.Node, name: str, args: list[nodes.Expr]) -> nodes.Filter:
        assert isinstance(node, nodes.Expr)
        return nodes.Filter(node, name, args, [], None, None, lineno=node.lineno, environment=node.environment)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant said, for training; here its content is simply there."""

    tags = {"generation"}  # noqa: RUF012 - as in Jinja

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        found = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return [nodes.Scope(found)]  # what is set inside stays inside


def _weigh(value: Any, indent: int = 0) -> int:
    """About how many characters a value has when it is written out, shared parts as often as they occur."""
    total, stack = 0, [iter((value,))]
    while stack:
        for item in stack[-1]:
            total += 16 + indent * len(stack) + (len(item) if isinstance(item, str) else 0)
            if total > VALUE_LIMIT:
                raise jinja2.TemplateRuntimeError("it makes too large a value")
            if isinstance(item, list | tuple):
                stack.append(iter(item))
                break
            if isinstance(item, dict):
                stack.append(chain.from_iterable(item.items()))
                break
        else:
            stack.pop()
    return total


def _text(value: Any) -> str:
    """The text of a value. Only of data: the text of what belongs to Jinja is of no use, and of any size."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict):
        _weigh(value)
        if not _is_data(value):
            raise jinja2.TemplateRuntimeError("it writes a value that is not data")
    elif not isinstance(value, bool | int | float | jinja2.Undefined | None):
        raise jinja2.TemplateRuntimeError(f"it writes a value that is not data but a {type(value).__name__}")
    return str(value)


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_data(item) for item in chain.from_iterable(value.items()))
    if isinstance(value, list | tuple):
        return all(map(_is_data, value))
    return isinstance(value, str | bool | int | float | jinja2.Undefined | None)


@pass_context
def _output(_: Context, value: Any) -> str:
    """Every value that is written goes through here."""
    text = _text(value)
    _budget.get().spend(len(text))
    return text


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that makes another text of a text."""

    @pass_context
    def filter_(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        return function(_output(context, value), *args, **kwargs)

    return filter_


@pass_context
def _each(_: Context, value: Any, literal: int) -> Iterator[Any]:
    budget = _budget.get()
    for item in value:
        budget.step(literal)
        yield item


@pass_context
def _step(_: Context, value: Any) -> Any:
    _budget.get().step()
    return value


@pass_context
def _made(_: Context, value: Any) -> Any:
    _budget.get().spend(len(value))
    _weigh(value)
    return value


@pass_context
def _concat(context: Context, values: list[Any]) -> str:
    return _join(context, values)


@pass_context
def _join(_: Context, values: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        values = (value.get(attribute) if isinstance(value, dict) else None for value in values)
    texts = [_output(_, value) for value in values]
    _budget.get().spend(sum(map(len, texts)) + len(between) * len(texts))
    return str(between).join(texts)


@pass_context
def _list(_: Context, value: Any) -> list[Any]:
    made = list(value)
    _budget.get().spend(len(made))
    return made


@pass_context
def _replace(_: Context, value: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = _text(value), _text(old), _text(new)
    found = text.count(old)
    times = found if count is None or count < 0 else min(found, count)
    _budget.get().spend(len(text) + times * max(len(new) - len(old), 0))
    return text.replace(old, new, times)


@pass_context
def _indent(_: Context, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text, margin = _text(value), width if isinstance(width, str) else " " * min(width, 1000)
    lines = text.splitlines() or [""]
    _budget.get().spend(len(text) + len(margin) * len(lines))
    rest = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([margin + lines[0] if first else lines[0], *rest])


@pass_context
def _tojson(
    _: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in Hugging Face: plain JSON, not the HTML-safe kind of Jinja."""
    width = len(indent) if isinstance(indent, str) else indent or 0
    if width > 16 or (separators is not None and any(len(s) > 16 for s in separators)):
        raise jinja2.TemplateRuntimeError("it spaces JSON too far")
    _weigh(value, width)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if ensure_ascii:  # the marks of `template` must stay what they are
        text = re.sub(r"\\u(e[0-9a-f]{3}|f[0-8][0-9a-f]{2})", lambda m: chr(int(m[1], 16)), text)
    _budget.get().spend(len(text))
    return text


def _raise_exception(message: Any = "") -> None:
    raise TemplateRefused(_text(message)[:1000])


def _strftime_now(form: str) -> str:
    if len(form) > 100 or re.search(r"%[^a-zA-Z%-]|%-[^a-zA-Z]", form):
        raise jinja2.TemplateRuntimeError("its date format is not allowed")
    return datetime.now().strftime(form)
