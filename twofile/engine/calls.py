"""Calls of tools in what a model says: the decode loop stops at one, and only a call that fits a tool can be written.

A model writes a call between two marks, as its chat template has it: `<|tool_call|>` and `<|/tool_call|>` in ours,
`<tool_call>` and `</tool_call>` in those of Qwen and Hermes; within them JSON with a name and arguments. When the first
mark comes, generation goes on under a grammar: the name of a tool that is offered, arguments of its JSON Schema. So
also a model that has learned nothing makes no call that is malformed. A model without marks (Llama 3) answers with the
JSON alone, which is looked at when it is whole. Cost: nothing until a call comes; then the grammar's masks.

    for event in turn(scheduler, engine, template.render(messages, tools=tools), tools=tools):
        match event: case Piece(): ...; case Called(): ...; case Finished(): ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from twofile.engine.constraint import Constraint
from twofile.engine.engine import Engine
from twofile.engine.generate import Piece
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.engine.stream import Stream

__all__ = ["Called", "Finished", "Marks", "call_of", "functions", "marks_of", "turn"]

_MARKS = (("<|tool_call|>", "", "<|/tool_call|>"), ("<tool_call>", "\n", "</tool_call>"))

Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Called:
    """The model calls a tool. `arguments`: an object of the tool's schema, as the JSON that the model wrote."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Finished:
    """The turn is over. `reason`: as of pieces, or "calls"; `read` and `reused`: tokens of the prompt, and how many of
    them had been read before; `written`: tokens of the turn."""

    reason: Literal["end", "stop", "length", "calls"]
    read: int
    reused: int
    written: int


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
        function = tool.get("function", tool)
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
    shapes = []
    for name, schema in functions(tools):
        if only in (None, name):
            properties = {"name": {"const": name}, marks.key: schema}
            shape = {"type": "object", "properties": properties, "required": [*properties]}
            shapes.append({**shape, "additionalProperties": False})
    if not shapes:
        raise ValueError(f"there is no tool {only!r}" if only else "there are no tools")
    return Constraint.json_schema(engine, shapes[0] if len(shapes) == 1 else {"anyOf": shapes})


def call_of(text: str, tools: Tools, key: str = "arguments") -> Called | None:
    """The call that a text is; None where it is none of a tool that is offered."""
    try:
        found = json.loads(text)
        name, arguments = found["name"], found.get(key, found.get("arguments", {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if name not in dict(functions(tools)) or not isinstance(arguments, Mapping):
        return None
    return Called(name, json.dumps(arguments, ensure_ascii=False))


def turn(
    scheduler: Scheduler,
    engine: Engine,
    prompt: Sequence[int],
    *,
    tools: Tools = (),
    choice: str = "auto",
    parallel: bool = True,
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    constraint: Constraint | None = None,
) -> Iterator[Piece | Called | Finished]:
    """What a model says to a prompt: pieces of text and calls as they come, in the end `Finished`.

    `choice`: "auto", "none" (no call), "required" (a call first), or the name of the tool to call. `parallel` False:
    one call ends the turn. Closing the iterator cancels what is under way. Raises at once as `Scheduler.submit`, and
    ValueError for tools that cannot be offered to this model."""
    marks = marks_of(engine) if tools and choice != "none" else None
    if tools and choice != "none" and marks is None:
        raise ValueError("the chat template of this model knows no tools")
    grammar = forced = None
    if marks is not None:
        grammar = _grammar(engine, tools, marks, None)
        if choice != "auto":
            forced = grammar if choice == "required" else _grammar(engine, tools, marks, choice)
    how: dict[str, Any] = {"sampling": sampling or Sampling(), "stop": stop, "logprobs": logprobs}
    begun = [*prompt, *(marks.begin if marks and forced else ())]
    settings = _silent(how) if forced else how
    first = scheduler.submit(begun, max_tokens=max_tokens, constraint=forced or constraint, **settings)
    return _turn(scheduler, first, len(prompt), tools, marks, grammar, forced, parallel, max_tokens, how, constraint)


def _turn(
    scheduler: Scheduler,
    stream: Stream,
    read: int,
    tools: Tools,
    marks: Marks | None,
    grammar: Constraint | None,
    forced: Constraint | None,
    parallel: bool,
    max_tokens: int | None,
    how: dict[str, Any],
    constraint: Constraint | None,
) -> Iterator[Piece | Called | Finished]:
    written, calls, reused = 0, 0, -1
    inside = forced is not None
    try:
        while True:
            text, last, marked = "", None, False
            pieces: list[Piece] = []
            for piece in stream:
                reused = stream.reused if reused < 0 else reused
                written += 1
                last = piece
                if marks and marks.begin and not inside and piece.token == marks.begin[0]:
                    marked = True
                    break
                text += piece.text
                if inside or (marks and not marks.begin and text.lstrip()[:1] in ("", "{")):
                    pieces.append(piece)  # it may be a call
                else:
                    yield from pieces
                    pieces = []
                    yield piece
            left = None if max_tokens is None else max_tokens - written
            if marked:
                assert marks is not None
                stream.cancel()
                if left is not None and left < 1:
                    yield Finished("length", read, max(0, reused), written)
                    return
                inside = True
                rest = list(marks.begin[1:])
                stream = scheduler.submit(rest, max_tokens=left, constraint=grammar, session=stream, **_silent(how))
                continue
            assert last is not None
            reason = last.finish or "end"
            called = call_of(text, tools, marks.key) if marks and (inside or not marks.begin) else None
            if called is None:
                if not inside:
                    yield from pieces
                yield Finished("calls" if calls and reason == "end" else reason, read, max(0, reused), written)
                return
            yield called
            calls += 1
            assert marks is not None
            if not parallel or not marks.end or (left is not None and left < 1):
                yield Finished("calls", read, max(0, reused), written)
                return
            inside = False
            stream = scheduler.submit(marks.end, max_tokens=left, constraint=constraint, session=stream, **how)
    finally:
        stream.cancel()


def _silent(how: dict[str, Any]) -> dict[str, Any]:
    """Within a call there are no stop strings, and chance has its own seed."""
    sampling: Sampling = how["sampling"]
    return {"sampling": replace(sampling, repetition=1.0, presence=0.0), "stop": (), "logprobs": None}
