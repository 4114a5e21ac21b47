"""Where rewards come from: a reward model in a file, or a program, which may be a verifier or an oracle.

A program is the caller's own and runs as they do: it is not confined.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twofile.errors import TrainError
from twofile.train.feedback.online import Prompt, Reward
from twofile.train.feedback.reward import open_reward_model, scores
from twofile.train.feedback.rollout import Reply
from twofile.train.tune.examples import Example

__all__ = ["of_model", "of_program"]


def of_model(path: Path) -> Reward:
    """The rewards of a model that `twofile reward` made. TrainError for another; the policy must share its tokens."""
    model = open_reward_model(path)

    def reward(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[float]:
        rows = []
        for prompt, reply in zip(prompts, replies, strict=True):
            ids = np.array((*prompt.ids, *reply.ids), np.int64)
            rows.append(Example(ids, np.arange(len(ids)) >= len(prompt.ids)))
        found: list[float] = scores(model, rows).tolist()
        return found

    return reward


def of_program(path: Path, function: str) -> Reward:
    """The rewards of a Python function: messages, the reply's text and the prompt's row in, a number out. TrainError
    where the file or the function is not there, or what it gives is no finite number."""
    try:
        judge = runpy.run_path(str(path)).get(function)
    except OSError as error:
        raise TrainError(f"{path} cannot be read ({error})", "give --reward FILE.py:FUNCTION") from error
    if not callable(judge):
        raise TrainError(f"{path} has no function {function}", "give --reward FILE.py:FUNCTION")

    def reward(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[float]:
        found = []
        for prompt, reply in zip(prompts, replies, strict=True):
            value = judge(list(prompt.messages), reply.text, dict(prompt.row))
            if isinstance(value, bool | int | float) and abs(value) < float("inf"):
                found.append(float(value))
            else:
                raise TrainError(f"{path}:{function} gave {value!r}, which is no finite number")
        return found

    return reward
