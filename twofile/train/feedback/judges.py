"""Where rewards come from: a reward model in a file, or a program, which may be a verifier or an oracle.

A program is the caller's own and runs as they do: it is not confined.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twofile.engine.engine import Engine
from twofile.errors import TrainError
from twofile.params.parameters import read_vocabulary
from twofile.train.tune.examples import Example, reply, template_of

if TYPE_CHECKING:
    from twofile.train.feedback.online import Prompt, Reward
    from twofile.train.feedback.rollout import Reply

__all__ = ["Program", "of_model", "of_program", "program", "texts_of_model"]

Program = Callable[[list[Mapping[str, Any]], str, dict[str, Any]], float]
"""Messages, a reply and the prompt's row in, how good the reply is out."""


def of_model(path: Path, policy: Path) -> Reward:
    """The rewards of a model that `twofile reward` made, for replies of the model in `policy`. TrainError for another
    one, and where the two do not have the same tokens."""
    from twofile.train.feedback.reward import open_reward_model, scores

    model = open_reward_model(path)
    if read_vocabulary(path).tokens != read_vocabulary(policy).tokens:
        hint = "make a reward model of the same base: twofile reward"
        raise TrainError(f"{path.name} reads other tokens than {policy.name} writes", hint)
    longest = model.hyper.context_length

    def reward(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[float]:
        rows = []
        for prompt, said in zip(prompts, replies, strict=True):
            ids = np.array((*prompt.ids, *said.ids), np.int64)
            row = Example(ids, np.arange(len(ids)) >= len(prompt.ids))
            rows.append(Example(row.ids[-longest:], row.supervised[-longest:]))
        found: list[float] = scores(model, rows).tolist()
        return found

    return reward


def texts_of_model(path: Path) -> Callable[[Sequence[tuple[Sequence[Mapping[str, Any]], str]]], list[float]]:
    """The same for texts, of whatever model: (messages, reply) as the reward model's own template writes them. A
    conversation that does not fit loses its beginning."""
    from twofile.train.feedback.reward import open_reward_model, scores

    model = open_reward_model(path)
    longest = model.hyper.context_length

    def score(said: Sequence[tuple[Sequence[Mapping[str, Any]], str]]) -> list[float]:
        with Engine(path) as engine:
            template, _ = template_of(engine)
            rows = [reply(messages, {"role": "assistant", "content": text}, (), template) for messages, text in said]
        rows = [Example(row.ids[-longest:], row.supervised[-longest:]) for row in rows]
        found: list[float] = scores(model, rows).tolist()
        return found

    return score


def program(path: Path, function: str) -> Program:
    """A function of a Python file. TrainError where the file or the function is not there, or what it gives is no
    finite number."""
    try:
        judge = runpy.run_path(str(path)).get(function)
    except Exception as error:  # whatever a person's own program does
        raise TrainError(f"{path} cannot be run ({type(error).__name__}: {error})", "give FILE.py:FUNCTION") from error
    if not callable(judge):
        raise TrainError(f"{path} has no function {function}", "give FILE.py:FUNCTION")

    def checked(messages: list[Mapping[str, Any]], text: str, row: dict[str, Any]) -> float:
        value = judge(messages, text, row)
        try:
            number = float(value) if not isinstance(value, str) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise TrainError(f"{path}:{function} gave {value!r}, which is no finite number")
        return number

    return checked


def of_program(path: Path, function: str) -> Reward:
    """The rewards of such a function."""
    judge = program(path, function)

    def reward(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[float]:
        both = zip(prompts, replies, strict=True)
        return [judge(list(prompt.messages), said.text, dict(prompt.row)) for prompt, said in both]

    return reward
