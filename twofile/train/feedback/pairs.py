"""What people preferred: a prompt, the reply they chose and the one they did not, out of JSON of several forms.

A line, or a row of an array, has `chosen` and `rejected`, each a text, a message, or messages that end with the
assistant's; and the prompt as `messages`, `prompt` (a text or messages) or ShareGPT's `conversations`. Without a prompt
both are whole conversations that begin alike: lists of messages, or texts of "Human:" and "Assistant:". Or it is an
`instruction` with `response1`, `response2` and the votes of annotators (1, 2, or 0 for a tie), of which the majority
counts. A tie is no pair, nor are conversations that part before their last message. Cost: one pair in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from twofile.train.records import read_records
from twofile.train.tune.conversations import Conversation, conversation

__all__ = ["Messages", "Pair", "pair", "read_pairs", "transcript"]

_FORMS = "chosen and rejected with messages, prompt or conversations, or an instruction, two responses and votes"
Messages = tuple[Mapping[str, Any], ...]
_TURN = re.compile(r"\n\n(Human|Assistant): ")


@dataclass(frozen=True)
class Pair:
    """A conversation that the assistant is to answer, and two messages of its."""

    messages: Messages
    chosen: Mapping[str, Any]
    rejected: Mapping[str, Any]
    tools: Messages = ()


def read_pairs(path: Path) -> Iterator[Pair | None]:
    """Of each row of a `.jsonl` or `.json` file, plain, .gz or .xz, the pair, or None where nothing was preferred.
    TrainError names the file and the line."""
    return read_records(path, pair, _FORMS)


def pair(row: Any) -> Pair | None:
    """One row, decoded; None where nothing was preferred. ValueError says what it lacks."""
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    if "response1" in row and "response2" in row:
        return _voted(row)
    if "chosen" not in row or "rejected" not in row:
        raise ValueError("it has no chosen and rejected")
    if row["chosen"] == row["rejected"]:
        return None
    asked = {"tools": row.get("tools")}
    if _conversation(row["chosen"]) and _conversation(row["rejected"]):  # whole ones, whatever else the row says
        return _whole(*(conversation({"messages": transcript(row[name]), **asked}) for name in ("chosen", "rejected")))
    if "messages" in row:
        prompt = row["messages"]
    elif "conversations" in row:
        prompt = conversation({"conversations": row["conversations"]}).messages
    elif "prompt" in row:
        prompt = row["prompt"]
    else:
        raise ValueError("chosen or rejected has no prompt, and is no conversation by itself")
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return _whole(
        *(conversation({"messages": [*prompt, *_reply(row[name])], **asked}) for name in ("chosen", "rejected"))
    )


def _conversation(value: Any) -> bool:
    """Whether this is more than a reply: it begins with somebody else than the assistant."""
    if isinstance(value, str):
        return value.startswith("\n\nHuman: ")
    return isinstance(value, list) and bool(value) and value[0].get("role") != "assistant"


def _reply(value: Any) -> list[Any]:
    """A reply as messages: of the last one it is."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if isinstance(value, Mapping) and "from" in value:
        return list(conversation({"conversations": [value]}).messages)
    return [value] if isinstance(value, Mapping) else list(value)


def _whole(one: Conversation, other: Conversation) -> Pair | None:
    """Two conversations that differ in their last message alone."""
    chosen, rejected = one.messages, other.messages
    same = len(list(takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False))))
    if same == len(chosen) == len(rejected) or len(chosen) != same + 1 or len(rejected) != same + 1:
        return None
    if any(talk[-1].get("role") != "assistant" for talk in (chosen, rejected)):
        raise ValueError("chosen or rejected is not the assistant's")
    return Pair(chosen[:-1], chosen[-1], rejected[-1], one.tools)


def transcript(value: Any) -> Any:
    """Messages of a list of them, or of a text of "Human:" and "Assistant:"."""
    if not isinstance(value, str):
        return value
    _, *parts = _TURN.split(value)
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[who], "content": said.strip()} for who, said in turns]


def _voted(row: Mapping[str, Any]) -> Pair | None:
    votes = [value for name, value in row.items() if name.startswith("annotator")]
    first, second = (sum(vote == which for vote in votes) for which in (1, 2))
    if 2 * max(first, second) <= len(votes):
        return None
    order = ("response1", "response2") if first > second else ("response2", "response1")
    asked = {name: row.get(name) for name in ("instruction", "input")}
    said = {name: str(row[name]) if isinstance(row[name], bool | int | float) else row[name] for name in order}
    return _whole(*(conversation({**asked, "output": said[name]}) for name in order))
