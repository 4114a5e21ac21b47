"""Questions to an assistant, many at once, who may call tools before it answers (`engine.calls`).

Guarantee: a reply is a function of the weights, the question and the seed. Cost: a pass over all questions for each
round of calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twofile.engine.calls import Called, Turn, as_calls, marks_of, turn
from twofile.engine.engine import Engine
from twofile.engine.generate import Piece
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.engine.template import ChatTemplate
from twofile.errors import ContextError

__all__ = ["Call", "Question", "Reply", "Tool", "ask"]

_CALLS = 4  # rounds of calls, after which the model has to be content

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
    """The replies of at most `longest` tokens a turn. No tools are offered without `tool`, nor to a model whose
    chat template knows none. A question that does not fit into the context has an empty reply."""
    template = ChatTemplate.of(engine)
    offers = tool is not None and marks_of(engine) is not None
    talks: list[list[Message]] = [list(question.messages) for question in questions]
    calls: list[list[Call]] = [[] for _ in questions]
    texts = [""] * len(questions)
    left = list(range(len(questions)))
    with Scheduler(engine) as scheduler:
        for round in range(_CALLS + 1):
            turns: list[tuple[int, Turn]] = []
            for i in left:
                tools = questions[i].tools if offers else ()
                how: dict[str, Any] = {"max_tokens": longest, "tools": tools, "parallel": False}
                how |= {"sampling": Sampling(temperature=temperature, seed=seed + i)}
                how |= {"choice": "auto" if round < _CALLS else "none"}
                try:
                    ids = template.render(talks[i], tools=tools or None)
                    turns.append((i, turn(scheduler, engine, ids, **how)))
                except ContextError:
                    texts[i] = ""
            left = []
            for i, events in turns:
                text = ""
                for event in events:
                    if isinstance(event, Piece):
                        text += event.text
                    elif isinstance(event, Called) and tool is not None:
                        made = _played(tool, event, questions[i].row)
                        calls[i].append(made)
                        talks[i] += _messages(made)
                        left.append(i)
                texts[i] = text.strip()
    return [Reply(text, tuple(made)) for text, made in zip(texts, calls, strict=True)]


def _played(tool: Tool, called: Called, row: Mapping[str, Any]) -> Call:
    arguments = json.loads(called.arguments)
    try:
        return Call(called.name, arguments, tool(called.name, arguments, row))
    except ValueError as error:
        return Call(called.name, arguments, f"error: {error}")


def _messages(call: Call) -> list[Message]:
    """A call and its result, as a conversation has them."""
    said = {"role": "assistant", "content": "", "tool_calls": as_calls([(call.name, call.arguments)])}
    return [said, {"role": "tool", "content": call.result}]
