"""Conversations to learn from, out of JSON of the forms that people keep them in.

A line, or a row of an array, is one conversation: `{"messages": [...]}` (with `tools`, where there are any); Alpaca's
`instruction`, `input`, `output` (or `response`); ShareGPT's `conversations` of `from` and `value`; or `prompt` and
`completion`. A message has a `role` and a `content`: a text, or a list of parts of `type` text. Guarantee: a line that
is none of these is an error that names it, never a shorter file. Cost: one conversation in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofile.engine.template import ROLES
from twofile.train.records import read_records

__all__ = ["Conversation", "conversation", "read"]

_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}
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
    if "messages" in row:
        messages, tools = row["messages"], row.get("tools") or ()
    elif "conversations" in row:
        messages, tools = [_of_sharegpt(turn) for turn in _list(row["conversations"])], ()
    elif "instruction" in row:
        asked = "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
        messages, tools = _exchange(asked, row.get("output", row.get("response"))), ()
    elif "prompt" in row:
        messages, tools = _exchange(row["prompt"], row.get("completion")), ()
    else:
        raise ValueError("it is no conversation")
    return Conversation(tuple(_message(message) for message in _list(messages)), tuple(_list(tools)))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError("its messages or tools are no list")
    return list(value)


def _exchange(asked: Any, answered: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _of_sharegpt(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise ValueError("a turn is no JSON object")
    speaker = turn.get("from")
    return {"role": _SPEAKERS.get(str(speaker), speaker), "content": turn.get("value")}


def _message(message: Any) -> Mapping[str, Any]:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise ValueError(f"a message has no role of {', '.join(sorted(ROLES))}")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
            raise ValueError("a message has a part that is no text, which this model cannot learn from")
    elif not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise ValueError("a message has no content")
    return message
