"""Questions to an assistant, many at once, who may call tools before it answers.

A model asks for a tool by a call between `<|tool_call|>` and `<|/tool_call|>`, JSON with a `name` and `arguments`, as
our chat template has it; what the tool gives stands in a turn of the tool, and the model goes on. Guarantee: a reply is
a function of the weights, the question and the seed. Cost: a pass over all questions for each round of calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twofile.engine.engine import Engine
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.engine.stream import Stream
from twofile.engine.template import ChatTemplate
from twofile.errors import ContextError

__all__ = ["Call", "Question", "Reply", "Tool", "ask"]

_CALLS = 4  # rounds of calls, after which the model has to be content
_OPEN, _CLOSE = "<|tool_call|>", "<|/tool_call|>"

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A conversation that ends with a user, the tools that are offered, and what else its row had."""

    messages: tuple[Message, ...]
    tools: tuple[Message, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A call of a tool, and what that gave."""

    name: str
    arguments: Any
    result: str


@dataclass(frozen=True)
class Reply:
    """The text of the last turn, and the calls before it."""

    text: str
    calls: tuple[Call, ...] = ()


Tool = Callable[[str, Any, Mapping[str, Any]], str]
"""What a tool gives: its name, the arguments, and the question's row in; a text out. It may raise ValueError."""


def ask(
    engine: Engine,
    questions: Sequence[Question],
    *,
    tool: Tool | None = None,
    longest: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Reply]:
    """The replies of at most `longest` tokens a turn. Without `tool` no tools are offered. A question that does not fit
    into the context has an empty reply."""
    template = ChatTemplate.of(engine)
    talks: list[list[Message]] = [list(question.messages) for question in questions]
    calls: list[list[Call]] = [[] for _ in questions]
    texts = [""] * len(questions)
    left = list(range(len(questions)))
    with Scheduler(engine) as scheduler:
        for turn in range(_CALLS + 1):
            streams: list[tuple[int, Stream]] = []
            for i in left:
                tools = questions[i].tools if tool is not None else ()
                sampling = Sampling(temperature=temperature, seed=seed + i)
                try:
                    ids = template.render(talks[i], tools=tools or None)
                    streams.append((i, scheduler.submit(ids, sampling, longest)))
                except ContextError:
                    continue
            left = []
            for i, stream in streams:
                pieces = list(stream)
                texts[i] = "".join(piece.text for piece in pieces).strip()
                asked = _call(engine, [piece.token for piece in pieces])
                if asked is None or tool is None or turn == _CALLS:
                    continue
                name, arguments = asked
                try:
                    result = tool(name, arguments, questions[i].row)
                except ValueError as error:
                    result = f"error: {error}"
                calls[i].append(Call(name, arguments, result))
                function = {"name": name, "arguments": arguments}
                said = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
                talks[i] += [said, {"role": "tool", "content": result}]
                left.append(i)
    return [Reply(text, tuple(made)) for text, made in zip(texts, calls, strict=True)]


def _call(engine: Engine, ids: Sequence[int]) -> tuple[str, Any] | None:
    """The first call in what a model said, where it is one."""
    begin, end = (engine.control_tokens.get(text) for text in (_OPEN, _CLOSE))
    if begin is None or end is None or begin not in ids:
        return None
    start = ids.index(begin) + 1
    stop = ids.index(end, start) if end in ids[start:] else len(ids)
    try:
        found = json.loads(engine.detokenize(ids[start:stop]))
        return str(found["name"]), found.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
