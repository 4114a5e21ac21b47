"""Conversations to learn from, out of JSON of the forms that people keep them in.

A line, or a row of an array, is one conversation: `{"messages": [...]}` (with `tools`, where there are any); Alpaca's
`instruction`, `input`, `output` (or `response`), with `system` and `history`; ShareGPT's `conversations` of `from` and
`value`, with `system`; or `prompt` and `completion`. A message has a `role` and a `content`: a text, or parts of the
types text, thinking, tool_call (`name`, `arguments`) and tool_result (`content`). Guarantee: a line that is none of
these, or has a part that a model of text cannot learn from (an image, a sound), is an error that names it, never a
shorter file. Cost: one conversation in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twofile.engine.template import ROLES
from twofile.train.records import read_records

__all__ = ["Conversation", "conversation", "read"]

_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "observation": "tool"}
_FORMS = "messages, conversations, instruction and output, or prompt and completion"


@dataclass(frozen=True)
class Conversation:
    """Messages as a chat template takes them, and the tools that they may call."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()


def read(path: Path) -> Iterator[Conversation]:
    """The conversations of a `.jsonl` or `.json` file, plain, .gz or .xz. TrainError names the file and the line."""
    return read_records(path, conversation, _FORMS)


def conversation(row: Any) -> Conversation:
    """One line, decoded. ValueError says what it lacks."""
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    tools: Any = row.get("tools") or ()
    if isinstance(tools, str):
        tools = json.loads(tools)
    if "messages" in row:
        messages = row["messages"]
    elif "conversations" in row:
        messages = _system(row) + [_of_sharegpt(turn) for turn in _list(row["conversations"])]
    elif "instruction" in row:
        asked = "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
        earlier = [message for turn in row.get("history") or () for message in _exchange(*turn)]
        messages = _system(row) + earlier + _exchange(asked, row.get("output", row.get("response")))
    elif "prompt" in row:
        messages = _exchange(row["prompt"], row.get("completion"))
    else:
        raise ValueError("it is no conversation")
    found = [plain for message in _list(messages) for plain in _plain(message)]
    return Conversation(tuple(found), tuple(_list(tools)))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError("its messages or tools are no list")
    return list(value)


def _system(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What stands beside a conversation in some forms."""
    return [{"role": "system", "content": row["system"]}] if row.get("system") else []


def _exchange(asked: Any, answered: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _of_sharegpt(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise ValueError("a turn is no JSON object")
    speaker, value = str(turn.get("from")), turn.get("value")
    if speaker == "function_call" and isinstance(value, str):
        return {"role": "assistant", "content": "", "tool_calls": [_call(json.loads(value))]}
    return {"role": _SPEAKERS.get(speaker, speaker), "content": value}


def _plain(message: Any) -> Iterator[Mapping[str, Any]]:
    """A message as chat templates take it. Its typed parts become a text, calls and thinking; results of tools become
    messages of their own."""
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise ValueError(f"a message has no role of {', '.join(sorted(ROLES))}")
    parts = message.get("content")
    if isinstance(parts, str) or (parts is None and message.get("tool_calls")):
        yield message
        return
    if not isinstance(parts, list):
        raise ValueError("a message has no content")
    rest = {key: value for key, value in message.items() if key not in ("content", "tool_calls")}
    held = _Held(calls=list(message.get("tool_calls") or ()))
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            held.text += part["text"]
        elif kind == "thinking" and isinstance(part.get("thinking"), str):
            held.thinking += part["thinking"]
        elif kind == "tool_call":
            held.calls.append(_call(part))
        elif kind == "tool_result":
            if held != _Held():
                yield held.message(rest)
            held, given = _Held(), part.get("content")
            yield {
                "role": "tool",
                "content": given if isinstance(given, str) else json.dumps(given, ensure_ascii=False),
            }
        else:
            raise ValueError(f"a message has a part of type {kind!r}, which a model of text cannot learn from")
    if held != _Held():
        yield held.message(rest)


@dataclass
class _Held:
    """Parts of a message, up to a result of a tool."""

    text: str = ""
    thinking: str = ""
    calls: list[Any] = field(default_factory=list)

    def message(self, rest: Mapping[str, Any]) -> dict[str, Any]:
        more: dict[str, Any] = {"reasoning_content": self.thinking} if self.thinking else {}
        return {**rest, **more, **({"tool_calls": self.calls} if self.calls else {}), "content": self.text}


def _call(said: Any) -> dict[str, Any]:
    """A call of a tool in the form of chat templates."""
    if not isinstance(said, Mapping) or not isinstance(said.get("name"), str):
        raise ValueError("a call of a tool has no name")
    arguments = said.get("arguments", {})
    return {"type": "function", "function": {"name": said["name"], "arguments": arguments}}
