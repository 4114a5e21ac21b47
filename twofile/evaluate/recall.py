"""Memorisation: how much of a text a model can be made to say word for word.

A passage of `prompt` tokens and `continuation` more is extractable when the model, given the first, says the second
greedily: the most likely token each time, the lower id among equals. Greedy text is the passage exactly when each token
of it is the most likely one after the true ones before it, so no text is generated: one pass over the passage, which
tells as well how far it would have gone right. Passages lie side by side in the documents, do not overlap, and are
drawn without replacement; the first of a document begins with bos where the file asks for it.

A figure for training text alone says little, as some text is foreseen by any good model ("Once upon a time there was a
little"): the same is done to text that was held out, and what counts is the difference. The intervals take passages
for independent; those of one document are not quite, so many documents are better than long ones.

Source: Carlini et al. 2022, "Quantifying Memorization Across Neural Language Models" (arXiv:2202.07646), with prompts
and continuations of 50 tokens. Costs a pass over the passages drawn, and the tokeniser's over all text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from twofile.engine.engine import Engine
from twofile.intervals import Share, wilson

__all__ = ["Passage", "Recall", "draw", "recall"]

_ROWS = 1 << 25  # bytes of logits at once
_SESSIONS = 16


@dataclass(frozen=True)
class Passage:
    """A stretch of a document, in tokens."""

    document: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Recall:
    """What became of some passages, in their order."""

    prompt: int
    continuation: int
    passages: tuple[Passage, ...]
    right: tuple[int, ...]  # tokens of each continuation that come right before the first wrong one

    @property
    def exact(self) -> tuple[bool, ...]:
        return tuple(n == self.continuation for n in self.right)

    @property
    def share(self) -> Share:
        """Of passages that are extractable, with its 95% interval."""
        return wilson(sum(self.exact), len(self.exact))

    @property
    def documents(self) -> int:
        return len({passage.document for passage in self.passages})

    @property
    def mean_right(self) -> float:
        """How far a continuation goes right, on average, in tokens."""
        return sum(self.right) / len(self.right)


def draw(engine: Engine, documents: Iterable[str], length: int, n: int, seed: int = 0) -> list[Passage]:
    """`n` passages of `length` tokens, or as many as there are; any in the documents is as likely (a reservoir)."""
    random, drawn, seen = Random(seed), list[Passage](), 0
    for number, text in enumerate(documents):
        ids = engine.prompt(text)
        for at in range(0, len(ids) - length + 1, length):
            seen += 1
            place = len(drawn) if len(drawn) < n else random.randrange(seen)
            if place < n:
                drawn[place : place + 1] = [Passage(number, tuple(ids[at : at + length]))]
    return drawn


def recall(
    engine: Engine,
    passages: Sequence[Passage],
    prompt: int = 50,
    continuation: int = 50,
) -> Recall:
    """Try passages of `prompt` + `continuation` tokens. ValueError where they have another length, or do not fit."""
    length = prompt + continuation
    if prompt < 1 or continuation < 1 or length - 1 > engine.context_length:
        raise ValueError(
            f"a prompt of {prompt} and {continuation} more: the context has {engine.context_length} tokens"
        )
    if any(len(passage.tokens) != length for passage in passages):
        raise ValueError(f"a passage has another length than {length}")
    at_once = max(1, min(_SESSIONS, _ROWS // (4 * engine.vocab_size * continuation)))
    right: list[int] = []
    for start in range(0, len(passages), at_once):
        ids_NT = np.array([passage.tokens for passage in passages[start : start + at_once]])
        right += _right(engine, ids_NT, prompt)
    return Recall(prompt, continuation, tuple(passages), tuple(right))


def _right(engine: Engine, ids_NT: NDArray[np.int64], prompt: int) -> list[int]:
    """Of each passage, how many tokens after the prompt come right before the first wrong one."""
    sessions = [engine.session() for _ in ids_NT]
    if prompt > 1:
        engine.evaluate(
            [(session, ids[: prompt - 1].tolist(), "none") for session, ids in zip(sessions, ids_NT, strict=True)]
        )
    logits_RV = engine.evaluate(
        [(session, ids[prompt - 1 : -1].tolist(), "all") for session, ids in zip(sessions, ids_NT, strict=True)]
    )
    best_NM = np.where(np.isnan(logits_RV), -np.inf, logits_RV).argmax(axis=1).reshape(len(ids_NT), -1)
    wrong_NM = best_NM != ids_NT[:, prompt:]
    return [int(wrong_M.argmax()) if wrong_M.any() else len(wrong_M) for wrong_M in wrong_NM]
