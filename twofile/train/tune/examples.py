"""What a conversation teaches: its tokens, and which of them the model is to learn to say.

The tokens are those of the model's own chat template. Supervised is what the assistant says, with the token that ends
its turn: calls of tools among it, never what users, tools or the template say, and none of their texts becomes a
control token. A conversation longer than the context is cut where a user speaks, each piece with the system's words
before it; a piece that is too long by itself is left out. Both are counted. Cost: two renderings for each reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofile.engine.engine import Engine
from twofile.engine.template import ChatTemplate
from twofile.errors import TrainError
from twofile.train.tune.chatml import CHATML
from twofile.train.tune.conversations import Conversation

__all__ = ["Counts", "Example", "examples", "reply", "template_of"]


@dataclass(frozen=True)
class Example:
    """Tokens, and for each whether it is supervised; the first never is. `talk` tells the conversation of which it is a
    piece from others; b"" where it is a whole one."""

    ids: NDArray[np.int64]
    supervised: NDArray[np.bool_]
    talk: bytes = b""


@dataclass
class Counts:
    """What became of the conversations."""

    conversations: int = 0
    examples: int = 0
    cut: int = 0  # conversations that became several examples, or lost a piece
    too_long: int = 0  # pieces left out: longer than the context by themselves
    silent: int = 0  # pieces left out: nobody to learn from speaks in them
    tokens: int = 0
    supervised: int = 0

    def __str__(self) -> str:
        kept = f"{self.conversations:,} conversations, {self.examples:,} examples, {self.tokens:,} tokens"
        left = f"{self.cut:,} cut, {self.too_long:,} pieces too long and {self.silent:,} without an answer left out"
        return f"{kept} of which {self.supervised:,} are learned; {left}"


def template_of(engine: Engine) -> tuple[ChatTemplate, bool]:
    """The chat template of a model, and whether it is its own: a base model that has none gets ChatML. TrainError where
    its vocabulary has no tokens for that."""
    found = ChatTemplate.of(engine)
    if found.source is not None:
        return found, True
    if missing := [text for text in ("<|im_start|>", "<|im_end|>") if text not in engine.control_tokens]:
        message = f"the model has no chat template, and its vocabulary no {' or '.join(missing)} to make one with"
        raise TrainError(message, "tune a model that has a chat template, or train a base with twofile train")
    begin = engine.info.bos if engine.info.add_bos and engine.info.bos >= 0 else None
    return ChatTemplate(CHATML, engine.control_tokens, engine.tokenize, begin=begin), False


def examples(
    conversations: Iterable[Conversation], template: ChatTemplate, longest: int, counts: Counts | None = None
) -> list[Example]:
    """All examples of at most `longest` tokens. TrainError for a conversation that the template cannot render."""
    counts = Counts() if counts is None else counts
    found = []
    for talk in conversations:
        counts.conversations += 1
        whole = _example(talk.messages, talk.tools, template)
        pieces = [whole] if len(whole.ids) <= longest else _pieces(talk, template, longest)
        counts.cut += len(pieces) > 1
        for piece in pieces:
            if len(piece.ids) > longest:
                counts.too_long += 1
            elif not piece.supervised.any():
                counts.silent += 1
            else:
                counts.examples += 1
                counts.tokens += len(piece.ids)
                counts.supervised += int(piece.supervised.sum())
                found.append(replace(piece, talk=whole.ids.tobytes()) if len(pieces) > 1 else piece)
    return found


def reply(
    messages: Sequence[Mapping[str, Any]],
    said: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]],
    template: ChatTemplate,
) -> Example:
    """A conversation that ends with what the assistant `said`, of which that alone is supervised."""
    whole = _example([*messages, said], tools, template)
    start = len(whole.ids) - int(whole.supervised[::-1].argmax())  # after the last supervised token
    while start and whole.supervised[start - 1]:
        start -= 1
    supervised = whole.supervised.copy()
    supervised[:start] = False
    return Example(whole.ids, supervised)


def _pieces(talk: Conversation, template: ChatTemplate, longest: int) -> list[Example]:
    """A long conversation, cut where a user speaks into pieces as long as may be."""
    starts = [i for i, message in enumerate(talk.messages) if message["role"] == "user"]
    head = [message for message in talk.messages[: starts[0] if starts else 0] if message["role"] != "assistant"]
    ends = [*starts[1:], len(talk.messages)]
    turns = [list(talk.messages[start:end]) for start, end in zip(starts, ends, strict=True)]
    if turns:  # a greeting before the first user stays with the first turn
        turns[0][:0] = [message for message in talk.messages[: starts[0]] if message["role"] == "assistant"]
    found: list[Example] = []
    held: list[Mapping[str, Any]] = []
    last: Example | None = None
    for turn in turns:
        grown = _example([*head, *held, *turn], talk.tools, template)
        if held and len(grown.ids) > longest:
            assert last is not None
            found.append(last)
            held, grown = [], _example([*head, *turn], talk.tools, template)
        held, last = [*held, *turn], grown
    return [*found, last] if last is not None else [_example(talk.messages, talk.tools, template)]


def _example(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], template: ChatTemplate
) -> Example:
    try:
        parts = template.parts(messages, tools or None)
    except ValueError as error:
        raise TrainError(f"a conversation cannot be rendered: {error}") from error
    ids = np.array([token for part, _ in parts for token in part], np.int64)
    supervised = np.array([said for part, said in parts for _ in part], np.bool_)
    return Example(ids, supervised)
