"""Prompts to answer: conversations that end with a user, out of JSON lines or one JSON array, plain, .gz or .xz.

A row has `messages`, or `prompt` (a text, or messages), or is a conversation or a pair in any other form that the other
stages read; an assistant's last message is left off. What else a row has is kept for rewards that are programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twofile.train.feedback.pairs import Messages, transcript
from twofile.train.records import read_records
from twofile.train.tune.conversations import conversation

__all__ = ["prompt", "read_prompts"]

_FORMS = "messages that end with a user, a prompt, an instruction, or a chosen conversation"


def read_prompts(path: Path) -> Iterator[tuple[Messages, Messages, Mapping[str, Any]]]:
    """Messages, tools and the whole row of each prompt. TrainError names the file and the line."""
    return read_records(path, prompt, _FORMS)


def prompt(row: Any) -> tuple[Messages, Messages, Mapping[str, Any]]:
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    tools = {"tools": row.get("tools")}
    if "messages" in row or "conversations" in row:
        talk = conversation({name: row[name] for name in ("messages", "conversations") if name in row} | tools)
    elif "prompt" in row:
        asked = row["prompt"]
        talk = conversation(
            {"messages": [{"role": "user", "content": asked}] if isinstance(asked, str) else asked} | tools
        )
    elif "instruction" in row:
        talk = conversation({"instruction": row["instruction"], "input": row.get("input"), "output": ""} | tools)
    else:
        talk = conversation({"messages": transcript(row.get("chosen"))} | tools)
    messages = talk.messages[:-1] if talk.messages[-1:] and talk.messages[-1]["role"] == "assistant" else talk.messages
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise ValueError("it does not end with a user")
    return messages, talk.tools, row
