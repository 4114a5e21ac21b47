"""The nouns: a task has items; an item has options that are scored, or a prompt that is answered.

The protocols are those of EleutherAI's lm-evaluation-harness, which most published figures come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Choice", "Item", "Metrics", "Question", "Said", "Task"]

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """Continuations of contexts, of which some are right: how likely is each? `options`: (context, continuation);
    `solved`: the examples that each context begins with."""

    id: str
    group: str
    options: tuple[tuple[str, str], ...]
    right: tuple[int, ...]
    solved: str = ""

    @property
    def text(self) -> str:
        """All of it but the examples, to look for in the training text."""
        context = self.options[0][0].removeprefix(self.solved)
        return context + " ".join(continuation for _, continuation in self.options)

    @property
    def texts(self) -> tuple[str, ...]:
        """As they would stand somewhere: each context with its continuation."""
        return tuple((context.removeprefix(self.solved) + said).strip() for context, said in self.options)


@dataclass(frozen=True)
class Question:
    """A prompt, which begins with the examples `solved`, that the model goes on from until it says one of `stop`.
    `answer`: what the task checks it against."""

    id: str
    group: str
    prompt: str
    answer: str
    stop: tuple[str, ...]
    longest: int  # tokens
    solved: str = ""

    @property
    def text(self) -> str:
        return f"{self.prompt.removeprefix(self.solved)} {self.answer}"

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,)


Item = Choice | Question


@dataclass(frozen=True)
class Said:
    """What a model says of one option: ln p of the continuation, whether each of its tokens is the likeliest."""

    logp: float
    greedy: bool
    tokens: int


@dataclass(frozen=True)
class Task:
    """`load(folder, shots)` reads the items of the task's files, with so many solved examples before each. `judge`
    makes metrics of an item and what came of it: one `Said` an option, or the reply. The first metric is the task's.
    `kind` of a metric: "share" of right items, "mean" of numbers, "perplexity" of nats."""

    name: str
    about: str
    source: str
    load: Callable[[Path, int], Sequence[Item]]
    judge: Callable[[Item, Sequence[Said] | str], Metrics]
    metrics: Mapping[str, Literal["share", "mean", "perplexity"]]
    chance: float | None  # of the first metric, for who answers blindly
    shots: int = 0
    needs: str = ""  # what must be there beside the data
    chat: bool = True  # whether an assistant can be asked it
