"""Replies of a model in training, made by the program that runs finished ones, with its present weights.

The weights go through a file in memory (`/dev/shm`, or the folder for temporary files where there is none), which the
engine opens anew after each change. Guarantee: a reply is a function of the weights, the prompt and its seed, whatever
else is asked for at once. Its log-probabilities are those of the engine, whose arithmetic is not the trainer's to the
last bit: `online` measures the gap and corrects for it. Cost: writing and opening the weights, some 10 ms a million.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import nn

from twofile.engine.engine import Engine
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.params.hyper import Hyperparameters
from twofile.params.vocabulary import Vocabulary
from twofile.params.write import write
from twofile.train.tune.lora import weights

__all__ = ["Reply", "Rollouts"]

_STREAMS = 64
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Reply:
    """What a model said: its tokens (the one that ends its turn too), ln p of each, and the text of all but that."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    text: str
    ended: bool  # False: the longest length was reached


class Rollouts:
    """Holds an engine with the weights that were loaded last. `type`: of the matrices in it; the F32 of the trainer, or
    a smaller one that is faster and further from it. A context manager; closing it removes the file."""

    def __init__(self, hyper: Hyperparameters, vocabulary: Vocabulary, *, type: str = "F32", threads: int = 0) -> None:
        self.hyper, self.vocabulary, self.type, self.threads = hyper, vocabulary, type, threads
        self._folder = tempfile.TemporaryDirectory(prefix="twofile-", dir=_MEMORY if _MEMORY.is_dir() else None)
        self._engine: Engine | None = None

    def load(self, model: nn.Module) -> None:
        """Go on with the weights that `model` has now. What is not of the parameters file (a head) stays behind."""
        path = Path(self._folder.name) / "policy.gguf"
        shapes = self.hyper.shapes()
        found = ((name, weight.cpu().numpy()) for name, weight in weights(model) if name in shapes)
        write(path, self.hyper, self.vocabulary, found, type=self.type)
        if self._engine is not None:
            self._engine.close()
        self._engine = Engine(path, threads=self.threads)

    def replies(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], longest: int, temperature: float = 1.0
    ) -> list[Reply]:
        """A reply of at most `longest` tokens to each prompt, sampled from the whole vocabulary."""
        assert self._engine is not None, "load comes first"
        with Scheduler(self._engine, streams=_STREAMS) as scheduler:
            streams = [
                scheduler.submit(prompt, Sampling(temperature=temperature, top_p=1.0, seed=seed), longest, logprobs=0)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            found = []
            for stream in streams:
                pieces = list(stream)
                logp = tuple(piece.logprob for piece in pieces if piece.logprob is not None)
                text = "".join(piece.text for piece in pieces)
                found.append(Reply(tuple(piece.token for piece in pieces), logp, text, pieces[-1].finish == "end"))
        return found

    def close(self) -> None:
        """Let go of the engine and of the file. Closing twice is fine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
