"""Each stage of learning from feedback from beginning to end: a parameters file and a file of pairs or prompts in, a
model in a run folder out. A second call with the same run folder goes on where the first was stopped.

Held out to measure on are the pairs or prompts that a hash of the prompt's tokens chooses, so that no prompt is on both
sides. Cost: all pairs in memory; a run as for fine-tuning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from twofile.engine.engine import Engine
from twofile.engine.template import ChatTemplate
from twofile.errors import TrainError
from twofile.params.atomic import write_json
from twofile.params.vocabulary import Vocabulary
from twofile.train import checkpoint
from twofile.train.feedback.comparisons import Comparison, PairCounts, comparisons
from twofile.train.feedback.heads import ActorCritic, RewardModel
from twofile.train.feedback.online import OPTIONS, Online, Prompt, Reward
from twofile.train.feedback.pairs import read_pairs
from twofile.train.feedback.preference import Preference
from twofile.train.feedback.prompts import read_prompts
from twofile.train.feedback.quality import Quality, quality
from twofile.train.feedback.reward import Rewarding, centre
from twofile.train.feedback.rollout import Rollouts
from twofile.train.loop import Result
from twofile.train.model import Transformer
from twofile.train.split import hold_out
from twofile.train.start import Start
from twofile.train.tune.begin import Opened, opening, train_from
from twofile.train.tune.examples import template_of
from twofile.train.tune.settings import Settings

__all__ = ["Learned", "learn_rewards", "open_prompts", "prefer", "reinforce"]

Model = TypeVar("Model", bound=Transformer)


@dataclass(frozen=True)
class Learned(Generic[Model]):
    """What came of a run. `quality`: of a reward model, on the pairs held out."""

    model: Model
    start: Start
    vocabulary: Vocabulary
    result: Result
    quality: Quality | None = None


def learn_rewards(settings: Settings, run: Path, say: Callable[[str], object] = print) -> Learned[RewardModel]:
    """Train a reward model on pairs. How good it is on those held out is kept as `quality.json` in the run's folder."""
    opened, learned, held_out = _pairs(settings, run, say, room=1)  # it reads the last token too
    model = opened.model(RewardModel)
    result = train_from(opened, model, Rewarding(opened.settings, learned, held_out), run)
    if held_out:
        say(f"rewards moved by {-centre(model, held_out):+.3f}: their mean is 0 now")
    found = quality(model, held_out) if held_out else None
    if found is not None:
        write_json(run / "quality.json", dataclasses.asdict(found))
    return Learned(model, opened.start, opened.vocabulary, result, found)


def prefer(settings: Settings, run: Path, say: Callable[[str], object] = print) -> Learned[Transformer]:
    """Direct preference optimisation from pairs."""
    opened, learned, held_out = _pairs(settings, run, say)
    model, reference = opened.model(), opened.start.model()
    result = train_from(opened, model, Preference(opened.settings, reference, learned, held_out), run)
    return Learned(model, opened.start, opened.vocabulary, result)


def reinforce(
    settings: Settings,
    run: Path,
    reward: Reward,
    say: Callable[[str], object] = print,
    *,
    measured: Sequence[Prompt] = (),
    gauge: Reward | None = None,
) -> Learned[Transformer]:
    """Reinforcement learning on prompts with a reward. `settings.options`: those of `online.OPTIONS`. `measured`:
    prompts to measure on beside those held out; `gauge`: a second reward to measure by."""
    with opening(settings, run, say) as opened:
        settings = opened.settings
        room = settings.context + 1 - int({**OPTIONS, **settings.options}["longest"])
        found = _prompts(settings.data, opened.template, room, say)
    learned, held_out = hold_out(found, settings.held_out, lambda prompt: repr(prompt.ids).encode())
    held_out = [*held_out, *measured]
    checkpoint.seed_all(settings.seed)
    start = opened.start
    model = opened.model(ActorCritic) if settings.options.get("method") == "ppo" else opened.model()
    with Rollouts(start.hyper, opened.vocabulary) as rollouts:
        stage = Online(settings, model, start.model(), rollouts, reward, learned, held_out, gauge)
        result = train_from(opened, model, stage, run)
    return Learned(model, start, opened.vocabulary, result)


def _pairs(
    settings: Settings, run: Path, say: Callable[[str], object], room: int = 0
) -> tuple[Opened, list[Comparison], list[Comparison]]:
    with opening(settings, run, say) as opened:
        counts = PairCounts()
        pairs = chain.from_iterable(map(read_pairs, opened.settings.data))
        context = opened.start.hyper.context_length
        longest = min(opened.settings.context + 1, context + 1 - room)
        found = comparisons(pairs, opened.template, longest, counts)
    say(str(counts))
    checkpoint.seed_all(opened.settings.seed)
    return opened, *hold_out(found, opened.settings.held_out, _prompt)


def _prompt(pair: Comparison) -> bytes:
    """The tokens that stand before the reply."""
    return pair.chosen.ids[: int(pair.chosen.supervised.argmax())].tobytes()


def open_prompts(
    files: Sequence[Path], engine: Engine, room: int, say: Callable[[str], object] = print
) -> list[Prompt]:
    """The prompts of files, as an engine's model reads them; those of more than `room` tokens are left out and said."""
    return _prompts(files, template_of(engine)[0], room, say)


def _prompts(files: Sequence[Path], template: ChatTemplate, room: int, say: Callable[[str], object]) -> list[Prompt]:
    found, long = [], 0
    for messages, tools, row in chain.from_iterable(map(read_prompts, files)):
        try:
            ids = template.render(messages, tools=tools or None)
        except ValueError as error:
            raise TrainError(f"a prompt cannot be rendered: {error}") from error
        if len(ids) > room:
            long += 1
        else:
            found.append(Prompt(messages, tuple(ids), row))
    say(f"{len(found):,} prompts, {long:,} without room for a reply left out")
    return found
