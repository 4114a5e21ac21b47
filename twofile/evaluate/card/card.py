"""What a report card says, before it is a page: the lineage, and what each of its models does with the same questions.

Every model that is at hand answers the same questions with the same seeds, a judge gives each answer a number, and the
effect of a stage is the mean of the paired differences between the model after it and that before, with its 95%
interval; so it is for the bits per byte of each document. A change counts as better or worse where the interval has no
zero in it: of twenty changes that are none, one will. Cost: the answers of all models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from twofile.engine.engine import Engine
from twofile.evaluate.asking import Question, Reply, Tool, ask
from twofile.evaluate.bits import bits_per_byte
from twofile.evaluate.card.lineage import Member
from twofile.intervals import Share, mean, paired, wilson

__all__ = ["Card", "Effect", "Judge", "Measure", "Sample", "make_card"]

Judge = Callable[[Question, Reply], float]
"""How good a reply is: the larger is the better."""

BITS = "bits per byte"


@dataclass(frozen=True)
class Measure:
    """One thing that is measured, for every model of the lineage in turn. `values`: of each question or document."""

    name: str
    values: tuple[tuple[float, ...], ...]
    lower_is_better: bool = False

    @property
    def n(self) -> int:
        return len(self.values[0])

    @property
    def is_share(self) -> bool:
        """Whether every value is right or wrong."""
        return all(value in (0.0, 1.0) for values in self.values for value in values)

    def of(self, model: int) -> Share:
        """The figure of a model."""
        values = self.values[model]
        return wilson(sum(values), len(values)) if self.is_share else mean(values)


@dataclass(frozen=True)
class Effect:
    """What the stages between two models of a lineage changed; above zero is better."""

    measure: str
    before: str
    after: str
    change: Share
    n: int

    @property
    def verdict(self) -> str:
        if self.change.low > 0:
            return "better"
        return "worse" if self.change.high < 0 else "no difference shown"


@dataclass(frozen=True)
class Sample:
    """A question, and what each model said to it."""

    measure: str
    question: Question
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Card:
    """The whole card. `members`: the lineage, the oldest first."""

    members: tuple[Member, ...]
    measures: tuple[Measure, ...] = ()
    samples: tuple[Sample, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def effects(self) -> list[Effect]:
        """Of each measure and each step from one model to the next."""
        found = []
        for measure in self.measures:
            for i, (before, after) in enumerate(zip(self.members, self.members[1:], strict=False)):
                sign = -1.0 if measure.lower_is_better else 1.0
                pairs = zip(measure.values[i], measure.values[i + 1], strict=True)
                change = paired([sign * (b - a) for a, b in pairs])
                found.append(Effect(measure.name, before.name, after.name, change, measure.n))
        return found


def make_card(
    members: Sequence[Member],
    questions: Sequence[Question] = (),
    judge: Judge | None = None,
    *,
    tool: Tool | None = None,
    texts: Sequence[str] = (),
    longest: int = 200,
    temperature: float = 0.0,
    seed: int = 0,
    samples: int = 1,
    say: Callable[[str], object] = print,
) -> Card:
    """Measure every member. A question's row may name the `group` that it is counted in; with `tool`, questions that
    offer tools are asked once more without them. `texts`: held-out documents; `samples`: questions of each group to
    show."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        name = str(question.row.get("group", "questions"))
        groups.setdefault(name, []).append(question)
        if tool is not None and question.tools:
            bare = Question(question.messages, (), question.row)
            groups.setdefault(f"{name}, without tools", []).append(bare)
    flat = [(name, question) for name, held in groups.items() for question in held]
    replies: list[list[Reply]] = []
    bits: list[tuple[float, ...]] = []
    for member in members:
        with Engine(member.path) as engine:
            say(f"{member.name}: {len(flat)} questions, {len(texts)} texts")
            asked = [question for _, question in flat]
            how = {"tool": tool, "longest": longest, "temperature": temperature, "seed": seed}
            replies.append(ask(engine, asked, **how) if asked else [])  # type: ignore[arg-type]
            bits.append(tuple(bits_per_byte(engine, [text]).bits_per_byte for text in texts if text.strip()))
    measures = [Measure(BITS, tuple(bits), lower_is_better=True)] if bits and bits[0] else []
    if judge is not None:
        for name in groups:
            places = [i for i, (group, _) in enumerate(flat) if group == name]
            values = tuple(tuple(judge(flat[i][1], said[i]) for i in places) for said in replies)
            measures.append(Measure(name, values))
    shown = []
    for name in groups:
        for i in [i for i, (group, _) in enumerate(flat) if group == name][:samples]:
            shown.append(Sample(name, flat[i][1], tuple(said[i] for said in replies)))
    settings = {"temperature": f"{temperature:g}", "seed": str(seed), "tokens of an answer": str(longest)}
    return Card(tuple(members), tuple(measures), tuple(shown), settings)
