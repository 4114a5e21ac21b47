"""Fine-tuning from beginning to end: a parameters file and conversations in, a tuned model in a run folder out.

A second call with the same run folder goes on where the first was stopped. Held out to measure on are the conversations
that a hash of their tokens chooses. Cost: all examples in memory, 9 bytes a token; a run as for pretraining.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from twofile.params.vocabulary import Vocabulary
from twofile.train import checkpoint
from twofile.train.loop import Result
from twofile.train.model import Transformer
from twofile.train.split import hold_out
from twofile.train.start import Start
from twofile.train.tune.begin import opening, train_from
from twofile.train.tune.conversations import read
from twofile.train.tune.examples import Counts, examples
from twofile.train.tune.settings import Settings
from twofile.train.tune.sft import FineTuning

__all__ = ["Tuned", "fine_tune"]


@dataclass(frozen=True)
class Tuned:
    """What came of a run; `vocabulary` has the chat template that was learned."""

    model: Transformer
    start: Start
    vocabulary: Vocabulary
    counts: Counts
    result: Result


def fine_tune(settings: Settings, run: Path, say: Callable[[str], object] = print) -> Tuned:
    """Tune. TrainError where the base, the conversations or an earlier run in `run` do not allow it."""
    with opening(settings, run, say) as opened:
        settings, counts = opened.settings, Counts()
        talks = chain.from_iterable(map(read, settings.data))
        found = examples(talks, opened.template, settings.context + 1, counts)
    say(str(counts))
    learned, held_out = hold_out(found, settings.held_out, lambda example: example.talk or example.ids.tobytes())
    checkpoint.seed_all(settings.seed)
    model = opened.model()
    stage = FineTuning(settings, opened.vocabulary, learned, held_out)
    result = train_from(opened, model, stage, run)
    return Tuned(model, opened.start, opened.vocabulary, counts, result)
