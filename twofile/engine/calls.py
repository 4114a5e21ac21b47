"""Calls of tools in what a model says: the decode loop stops at one, and only a call that fits a tool can be written.

A model writes a call between two marks, as its chat template has it: `<|tool_call|>` and `<|/tool_call|>` in ours,
`<tool_call>` and `</tool_call>` in those of Qwen and Hermes; within them JSON with a name and arguments. When the first
mark comes, generation goes on under a grammar: the name of a tool that is offered, arguments of its JSON Schema. So
also a model that has learned nothing makes no call that is malformed. A model without marks (Llama 3) answers with the
JSON alone, which is looked at when it is whole. Cost: nothing until a call comes; then the grammar's masks.

    for event in turn(scheduler, engine, template.render(messages, tools=tools), tools=tools):
        match event: case Piece(): ...; case Called(): ...; case Finished(): ...; case Working(): pass
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from twofile.engine.constraint import Constraint
from twofile.engine.engine import Engine
from twofile.engine.generate import Piece
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.errors import ContextError

__all__ = [
    "Called",
    "Event",
    "Finished",
    "Marks",
    "Turn",
    "Working",
    "as_calls",
    "call_of",
    "functions",
    "marks_of",
    "turn",
]

_MARKS = (("<|tool_call|>", "", "<|/tool_call|>"), ("<tool_call>", "\n", "</tool_call>"))

Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Called:
    """The model calls a tool. `arguments`: an object of the tool's schema, as the JSON that the model wrote."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Working:
    """A token came that nobody sees yet: a call is being written."""


@dataclass(frozen=True)
class Finished:
    """The turn is over. `reason`: as of pieces, or "calls"; `read` and `reused`: tokens of the prompt, and how many of
    them had been read before; `written`: tokens of the turn."""

    reason: Literal["end", "stop", "length", "calls"]
    read: int
    reused: int
    written: int


Event = Piece | Called | Working | Finished


@dataclass(frozen=True)
class Marks:
    """Tokens around a call. Without marks (`begin` is empty) a call is a whole reply. `key`: of the arguments."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    key: str = "arguments"


def marks_of(engine: Engine) -> Marks | None:
    """How this model writes calls; None where its template knows none."""
    source = engine.backend.text("tokenizer.chat_template") or ""
    for begin, space, end in _MARKS:
        if begin in source:
            first, last = ([*_one(engine, text)] for text in (begin, end))
            if first and last:
                between = engine.tokenize(space) if space else []
                return Marks((*first, *between), (*between, *last))
    return Marks((), (), "parameters") if "parameters" in source and "ipython" in source else None


def _one(engine: Engine, text: str) -> list[int]:
    """The one token of a mark; nothing where it is none."""
    if text in engine.control_tokens:
        return [engine.control_tokens[text]]
    found = engine.tokenize(text)
    return found if len(found) == 1 else []


def functions(tools: Tools) -> list[tuple[str, dict[str, Any]]]:
    """Name and schema of each tool. ValueError for one that has none, or a name that another has."""
    found: dict[str, dict[str, Any]] = {}
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        schema = function.get("parameters") or {"type": "object"} if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name or not isinstance(schema, Mapping):
            raise ValueError("a tool has a name, and parameters that are a JSON Schema")
        if name in found:
            raise ValueError(f"two tools have the name {name}")
        found[name] = dict(schema)
    return list(found.items())


def _grammar(engine: Engine, tools: Tools, marks: Marks, only: str | None) -> Constraint:
    """What stands between the marks. ValueError names a schema that cannot be used."""
    shapes: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for number, (name, schema) in enumerate(functions(tools)):
        if only not in (None, name):
            continue
        plain, definitions = _lifted(schema, f"{number}.")
        shared |= definitions
        properties = {"name": {"const": name}, marks.key: plain}
        shape = {"type": "object", "properties": properties, "required": [*properties]}
        shapes.append({**shape, "additionalProperties": False})
    if not shapes:
        raise ValueError(f"there is no tool {only!r}" if only else "there are no tools")
    whole: dict[str, Any] = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    return Constraint.json_schema(engine, {**whole, "$defs": shared} if shared else whole)


def _lifted(schema: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema without its definitions, and those, under names that no other schema has: what refers to them speaks of
    the root, which another schema is to be."""
    kinds = ("$defs", "definitions")
    names = {kind: schema.get(kind) or {} for kind in kinds}

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            found = {key: moved(held) for key, held in value.items()}
            if isinstance(reference := found.get("$ref"), str):
                for kind in kinds:
                    if reference.startswith(f"#/{kind}/"):
                        found["$ref"] = f"#/$defs/{prefix}{reference.removeprefix(f'#/{kind}/')}"
            return found
        return [moved(held) for held in value] if isinstance(value, list) else value

    plain = {key: moved(value) for key, value in schema.items() if key not in kinds}
    return plain, {f"{prefix}{name}": moved(held) for kind in kinds for name, held in names[kind].items()}


def call_of(text: str, tools: Tools, key: str = "arguments") -> Called | None:
    """The call that a text is; None where it is none of a tool that is offered."""
    try:
        found = json.loads(text)
        name, arguments = found["name"], found.get(key, found.get("arguments", {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(name, str) or name not in dict(functions(tools)) or not isinstance(arguments, Mapping):
        return None
    return Called(name, json.dumps(arguments, ensure_ascii=False))


def as_calls(made: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Names and arguments of calls as the `tool_calls` of a message."""
    return [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in made]


def turn(
    scheduler: Scheduler,
    engine: Engine,
    prompt: Sequence[int],
    *,
    tools: Tools = (),
    choice: Literal["auto", "none", "required"] = "auto",
    only: str | None = None,
    parallel: bool = True,
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    constraint: Constraint | None = None,
    background: bool = False,
) -> Turn:
    """What a model says to a prompt: pieces of text and calls as they come, in the end `Finished`. It is under way at
    once.

    `choice`: "none" is no call, "required" a call first; `only`: the one tool that is to be called, once. `parallel`
    False: one call ends the turn; `background`: see `Scheduler.submit`. Raises as that does, and ValueError for tools
    that cannot be offered to this model."""
    marks = marks_of(engine) if tools else None
    sampling = sampling or Sampling()
    if tools and choice == "none":  # it may have learned to call whatever it sees
        if marks is not None and marks.begin:
            sampling = replace(sampling, logit_bias={**sampling.logit_bias, marks.begin[0]: -math.inf})
        marks = None
    elif tools and marks is None:
        raise ValueError("the chat template of this model knows no tools")
    if not tools and (only or choice == "required"):
        raise ValueError("a call is wanted, and there are no tools")
    grammar = forced = None
    if marks is not None:
        grammar = _grammar(engine, tools, marks, only)
        forced = grammar if only or choice == "required" else None
    return Turn(
        scheduler,
        [*prompt, *(marks.begin if marks and forced else ())],
        len(prompt),
        tools,
        marks,
        grammar,
        forced is not None,
        parallel and not only,
        max_tokens,
        {"sampling": sampling, "stop": stop, "logprobs": logprobs, "background": background},
        constraint,
    )


class Turn:
    """A turn under way: iterate over its events, in one thread at a time. `cancel` ends it from any thread, also one
    that waits for the next event; a turn that nothing refers to any more is cancelled."""

    def __init__(
        self,
        scheduler: Scheduler,
        begun: list[int],
        read: int,
        tools: Tools,
        marks: Marks | None,
        grammar: Constraint | None,
        forced: bool,
        parallel: bool,
        max_tokens: int | None,
        how: dict[str, Any],
        constraint: Constraint | None,
    ) -> None:
        self._scheduler, self._read, self._tools, self._marks = scheduler, read, tools, marks
        self._grammar, self._parallel, self._most = grammar, parallel, max_tokens
        self._how, self._constraint = how, constraint
        self._written, self._reused, self._calls = 0, -1, 0
        self._cancelled = False
        settings = _silent(how) if forced else how
        first = grammar if forced else constraint
        self._stream = scheduler.submit(begun, max_tokens=max_tokens, constraint=first, **settings)
        self._events = self._run(forced)

    def __iter__(self) -> Turn:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def cancel(self) -> None:
        """Say no more: the iteration ends without `Finished`."""
        self._cancelled = True
        self._stream.cancel()

    def _end(self, reason: Literal["end", "stop", "length", "calls"]) -> Finished:
        return Finished(reason, self._read, max(0, self._reused), self._written)

    def _run(self, inside: bool) -> Iterator[Event]:
        try:
            while not self._cancelled:
                marks, stream = self._marks, self._stream
                text, last, marked = "", None, False
                held: list[Piece] = []  # of what may be a call
                for piece in stream:
                    self._reused = stream.reused if self._reused < 0 else self._reused
                    self._written += 1
                    last = piece
                    if marks and marks.begin and not inside and piece.token == marks.begin[0]:
                        marked = True
                        break
                    text += piece.text
                    if inside or (marks and not marks.begin and text.lstrip()[:1] in ("", "{")):
                        held.append(piece)
                        yield Working()
                    else:
                        yield from held
                        held = []
                        yield piece
                if last is None or self._cancelled:
                    return
                if marked:
                    assert marks is not None
                    stream.cancel()
                    inside = True
                    if not self._go_on(list(marks.begin[1:]), self._grammar, _silent(self._how)):
                        yield self._end("length")
                        return
                    continue
                called = call_of(text, self._tools, marks.key) if marks and (inside or not marks.begin) else None
                if called is not None and not inside and not self._fits(called):
                    called = None
                reason = last.finish or "end"
                if called is None:
                    if not inside:
                        yield from held
                    yield self._end("calls" if self._calls and reason == "end" else reason)
                    return
                yield called
                self._calls += 1
                inside = False
                assert marks is not None
                if not self._parallel or not marks.end or not self._go_on(marks.end, self._constraint, self._how):
                    yield self._end("calls")
                    return
        finally:
            self._stream.cancel()

    def _fits(self, called: Called) -> bool:
        """Whether a call that was written without the grammar is one that fits its tool."""
        assert self._grammar is not None
        assert self._marks is not None
        schema = dict(functions(self._tools))[called.name]
        arguments = _ordered(json.loads(called.arguments), schema)
        return self._grammar.fits_text(json.dumps({"name": called.name, self._marks.key: arguments}))

    def _go_on(self, tokens: Sequence[int], constraint: Constraint | None, how: dict[str, Any]) -> bool:
        """Whether there is room to go on behind what was said, and then that is under way."""
        left = None if self._most is None else self._most - self._written
        if left is not None and left < 1:
            return False
        try:
            self._stream = self._scheduler.submit(
                tokens, max_tokens=left, constraint=constraint, session=self._stream, **how
            )
        except ContextError:
            return False
        if self._cancelled:  # while that was asked for
            self._stream.cancel()
        return True


def _ordered(value: Any, schema: Any) -> Any:
    """An object with its properties in the order of the schema, which a grammar wants and JSON does not."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    first = {name: _ordered(value[name], properties[name]) for name in properties if name in value}
    return first | {name: held for name, held in value.items() if name not in first}


def _silent(how: dict[str, Any]) -> dict[str, Any]:
    """Within a call there are no stop strings, and no penalties."""
    sampling: Sampling = how["sampling"]
    return {**how, "sampling": replace(sampling, repetition=1.0, presence=0.0), "stop": (), "logprobs": None}
