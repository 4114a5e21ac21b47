"""Chat completions: conversations in, what the assistant says and which tools it calls out, whole or as it comes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twofile.engine.calls import Called, Finished, Turn, turn
from twofile.engine.constraint import Constraint
from twofile.engine.generate import Piece
from twofile.serve.api.answering import Answering
from twofile.serve.api.asked import ChatAsked, RequestError

if TYPE_CHECKING:
    from twofile.engine.engine import Engine
    from twofile.serve.api.app import Served

__all__ = ["answer", "stream"]

_REASONS = {"end": "stop", "stop": "stop", "length": "length", "calls": "tool_calls"}


def _begin(served: Served, asked: ChatAsked) -> list[Turn]:
    """The turns of all answers, under way. Raises for what cannot be answered."""
    messages = [message.plain() for message in asked.messages]
    tools = asked.tools or []
    choice, only = asked.choice
    if tools and choice != "none" and asked.shape is not None:
        hint = "with tools, tool_choice is none, or there is no response_format"
        raise RequestError(f"a reply cannot be JSON and call tools: {hint}", param="response_format")
    more = asked.chat_template_kwargs or {}
    if taken := more.keys() & {"messages", "tools", "add_generation_prompt"}:
        raise RequestError(f"{min(taken)} is no setting of a template", param="chat_template_kwargs")
    prompt = served.template.render(messages, tools=tools or None, **more)
    constraint = None if asked.shape is None else Constraint.json_schema(served.engine, asked.shape)
    found: list[Turn] = []
    try:
        for number in range(asked.n):
            found.append(
                turn(
                    served.scheduler,
                    served.engine,
                    prompt,
                    tools=tools,
                    choice=choice,
                    only=only,
                    parallel=asked.parallel_tool_calls,
                    sampling=asked.sampling(number),
                    max_tokens=asked.longest,
                    stop=asked.stops,
                    logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
                    constraint=constraint,
                )
            )
    except BaseException:
        _cancel(found)
        raise
    return found


def _cancel(turns: list[Turn]) -> None:
    for one in turns:
        one.cancel()


def _usage(ends: list[Finished]) -> dict[str, Any]:
    read, written = ends[0].read, sum(end.written for end in ends)
    cached = {"cached_tokens": ends[0].reused}
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": cached,
    }


def _call(called: Called, index: int | None = None) -> dict[str, Any]:
    function = {"name": called.name, "arguments": called.arguments}
    shown = {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
    return shown if index is None else {"index": index, **shown}


def _logprob(piece: Piece, engine: Engine) -> dict[str, Any]:
    """A token with its probability, and those that could have come."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        raw = engine.detokenize_bytes([token], special=True)
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    assert piece.logprob is not None
    top = [one(other.token, other.logprob) for other in piece.alternatives]
    return {**one(piece.token, piece.logprob), "top_logprobs": top}


@dataclass
class _Choice:
    """An answer as it grows."""

    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    end: Finished | None = None


def answer(served: Served, asked: ChatAsked) -> Answering:
    """The whole answer, as the last part."""
    turns = _begin(served, asked)
    return Answering(_answer(served, asked, turns), turns)


def _answer(served: Served, asked: ChatAsked, turns: list[Turn]) -> Iterator[dict[str, Any]]:
    choices = [_Choice() for _ in turns]
    try:
        for choice, events in zip(choices, turns, strict=True):
            for event in events:
                if isinstance(event, Piece):
                    choice.text += event.text
                    if asked.logprobs:
                        choice.logprobs.append(_logprob(event, served.engine))
                elif isinstance(event, Called):
                    choice.calls.append(_call(event))
                elif isinstance(event, Finished):
                    choice.end = event
                yield {}
            if choice.end is None:  # it was cancelled
                return
    finally:
        _cancel(turns)
    ends = [choice.end for choice in choices if choice.end is not None]
    yield {
        **_head(served, "chat.completion"),
        "choices": [_whole(choice, number, asked) for number, choice in enumerate(choices)],
        "usage": _usage(ends),
    }


def _whole(choice: _Choice, number: int, asked: ChatAsked) -> dict[str, Any]:
    assert choice.end is not None
    message: dict[str, Any] = {"role": "assistant", "content": choice.text or (None if choice.calls else "")}
    message["refusal"] = None
    if choice.calls:
        message["tool_calls"] = choice.calls
    logprobs = {"content": choice.logprobs, "refusal": None} if asked.logprobs else None
    reason = _REASONS[choice.end.reason]
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": reason}


def _head(served: Served, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": f"twofile-{served.engine.info.kernels}",
    }


def stream(served: Served, asked: ChatAsked) -> Answering:
    """The answer in chunks; that something is wrong is raised before the first."""
    turns = _begin(served, asked)
    return Answering(_stream(served, asked, turns), turns)


def _stream(served: Served, asked: ChatAsked, turns: list[Turn]) -> Iterator[dict[str, Any]]:
    head = _head(served, "chat.completion.chunk")

    def chunk(number: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**head, "choices": [choice], **({"usage": None} if asked.counts_usage else {})}

    ends: list[Finished] = []
    open_ = dict(enumerate(turns))
    calls = [0] * len(turns)
    try:
        for number in open_:
            yield chunk(number, {"role": "assistant", "content": ""})
        while open_:  # an event of each by turns
            for number, events in list(open_.items()):
                event = next(events, None)
                if event is None:  # it was cancelled
                    return
                if isinstance(event, Piece):
                    told = {"content": [_logprob(event, served.engine)], "refusal": None} if asked.logprobs else None
                    yield chunk(number, {"content": event.text}, told) if event.text or told else {}
                elif isinstance(event, Called):
                    yield chunk(number, {"tool_calls": [_call(event, calls[number])]})
                    calls[number] += 1
                elif isinstance(event, Finished):
                    ends.append(event)
                    del open_[number]
                    yield chunk(number, {}, None, _REASONS[event.reason])
                else:
                    yield {}
        if asked.counts_usage:
            yield {**head, "choices": [], "usage": _usage(ends)}
    finally:
        _cancel(turns)
