"""Prompts to answer: conversations that end with a user, out of JSON lines or one JSON array, plain, .gz or .xz.

A row has `messages`, or `prompt` (a text, or messages); an assistant's last message, as in conversations and pairs, is
left off, so that those files give their prompts too. What else a row has is kept for rewards that are programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twofile.train.feedback.pairs import Messages
from twofile.train.records import read_records
from twofile.train.tune.conversations import conversation

__all__ = ["prompt", "read_prompts"]

_FORMS = "messages that end with a user, or a prompt"


def read_prompts(path: Path) -> Iterator[tuple[Messages, Messages, Mapping[str, Any]]]:
    """Messages, tools and the whole row of each prompt. TrainError names the file and the line."""
    return read_records(path, prompt, _FORMS)


def prompt(row: Any) -> tuple[Messages, Messages, Mapping[str, Any]]:
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    asked = row.get("messages", row.get("prompt", row.get("conversations")))
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    name = "conversations" if "conversations" in row else "messages"
    talk = conversation({name: asked, "tools": row.get("tools")})
    messages = talk.messages[:-1] if talk.messages[-1:] and talk.messages[-1]["role"] == "assistant" else talk.messages
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise ValueError("it does not end with a user")
    return messages, talk.tools, row
