"""Fine-tuning from beginning to end: a parameters file and conversations in, a tuned model in a run folder out.

A second call with the same run folder goes on where the first was stopped. Held out to measure on are the examples that
a hash of their tokens chooses, so that they stay the same whatever stands beside them. Cost: all examples in memory,
9 bytes a token; a run as for pretraining.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import torch

from twofile.engine.engine import Engine
from twofile.errors import TrainError
from twofile.params.vocabulary import Vocabulary
from twofile.train import checkpoint
from twofile.train.loop import Result, train
from twofile.train.model import Transformer, operations
from twofile.train.parallel import World
from twofile.train.peak import matrix_peak
from twofile.train.start import Start
from twofile.train.tune.conversations import read
from twofile.train.tune.examples import CHATML, Counts, Example, examples, template_of
from twofile.train.tune.settings import Settings, begin
from twofile.train.tune.sft import FineTuning

__all__ = ["Tuned", "fine_tune"]


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What came of a run; `vocabulary` has the chat template that was learned."""

    model: Transformer
    start: Start
    vocabulary: Vocabulary
    counts: Counts
    result: Result


def fine_tune(settings: Settings, run: Path, say: Callable[[str], object] = print) -> Tuned:
    """Tune. TrainError where the base, the conversations or an earlier run in `run` do not allow it."""
    settings = begin(settings, run, say)
    start = Start.open(settings.base)
    if settings.context > start.hyper.context_length:
        message = f"a context of {settings.context} is more than the {start.hyper.context_length} of the model"
        raise TrainError(message, "give a smaller --context")
    with Engine(start.path) as engine:
        template, own = template_of(engine)
        counts = Counts()
        talks = chain.from_iterable(map(read, settings.data))
        found = examples(talks, template, settings.context + 1, counts)
    say(str(counts))
    vocabulary = start.vocabulary
    if not own:
        end = vocabulary.tokens.index("<|im_end|>")
        vocabulary = dataclasses.replace(vocabulary, chat_template=CHATML, eot=end)
    learned = [example for example in found if _fraction(example) >= settings.held_out]
    held_out = [example for example in found if _fraction(example) < settings.held_out]
    bfloat16 = settings.plan.bfloat16
    peak = matrix_peak(torch.bfloat16 if bfloat16 else torch.float32, World.here().device)
    checkpoint.seed_all(settings.seed)
    model = start.model()
    stage = FineTuning(settings, vocabulary, learned, held_out)
    result = train(model, stage, settings.plan, run, peak=peak, flops=operations(start.hyper))
    return Tuned(model, start, vocabulary, counts, result)


def _fraction(example: Example) -> float:
    """From 0 to 1, by the tokens alone."""
    return int.from_bytes(hashlib.sha256(example.ids.tobytes()).digest()[:8]) / 2**64
