"""How every stage of tuning begins: its settings are settled, its base and the base's chat template are there.

A base model that has no chat template learns ChatML, which its file says from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from torch import nn

from twofile.engine.engine import Engine
from twofile.engine.template import ChatTemplate
from twofile.errors import TrainError
from twofile.params.vocabulary import Vocabulary
from twofile.train.loop import Result, Stage, train
from twofile.train.model import Transformer, operations
from twofile.train.parallel import World
from twofile.train.peak import matrix_peak
from twofile.train.start import Model, Start
from twofile.train.tune.chatml import CHATML
from twofile.train.tune.examples import template_of
from twofile.train.tune.lora import adapt
from twofile.train.tune.settings import Settings, begin

__all__ = ["Opened", "opening", "train_from"]


@dataclass(frozen=True)
class Opened:
    """What a stage begins with. `template` can be used while the base is open; `vocabulary` has it as well."""

    settings: Settings
    start: Start
    template: ChatTemplate
    vocabulary: Vocabulary

    @overload
    def model(self) -> Transformer: ...

    @overload
    def model(self, kind: type[Model]) -> Model: ...

    def model(self, kind: type[Transformer] = Transformer) -> Transformer:
        """The model that is to learn: the base's, or low-rank changes to it where the settings have a rank, `lora`."""
        model, options = self.start.model(kind), self.settings.options
        if rank := options.get("lora"):
            adapt(model, rank, options.get("alpha") or 2.0 * rank)
        return model


@contextmanager
def opening(settings: Settings, run: Path, say: Callable[[str], object]) -> Iterator[Opened]:
    """Settle what a run does and open its base. TrainError where an earlier run in `run` does not allow it."""
    settings = begin(settings, run, say)
    start = Start.open(settings.base)
    if settings.context > start.hyper.context_length:
        message = f"a context of {settings.context} is more than the {start.hyper.context_length} of the model"
        raise TrainError(message, "give a smaller --context")
    with Engine(start.path) as engine:
        template, own = template_of(engine)
        vocabulary = start.vocabulary
        if not own:
            vocabulary = vocabulary.with_template(CHATML)
        yield Opened(settings, start, template, vocabulary)


def train_from(opened: Opened, model: nn.Module, stage: Stage[Any], run: Path) -> Result:
    """Train, with the share of the machine's peak in the log where every row is full: all of its tokens cost, and some
    are learned."""
    settings, plan = opened.settings, opened.settings.plan
    peak = matrix_peak(torch.bfloat16 if plan.bfloat16 else torch.float32, World.here().device)
    read = settings.batch * settings.context if settings.stage == "sft" else 0
    return train(model, stage, plan, run, peak=peak, flops=read * operations(opened.start.hyper))
