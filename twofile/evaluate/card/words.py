"""A report card in Markdown, for a repository or a model's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from twofile.evaluate.asking import Question, Reply
from twofile.evaluate.card.card import Card, Effect, Measure
from twofile.evaluate.card.lineage import Member
from twofile.html.figures import quantity, span
from twofile.intervals import Share

__all__ = ["asked", "change", "figure", "heading", "markdown", "said", "stages", "worse"]


def figure(share: Share, as_share: bool) -> str:
    """A figure with its interval."""
    if as_share:
        return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"


def change(effect: Effect, as_share: bool) -> str:
    """A change with its interval, in points of a per cent for shares."""
    value, low, high = effect.change
    if as_share:
        return f"{100 * value:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}) points"
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def heading(member: Member) -> str:
    """What a model is, in a line."""
    return f"{member.name}: {quantity(member.parameters)} parameters, {quantity(member.bytes, 'B')}"


def stages(members: Sequence[Member]) -> Iterator[tuple[str, str, str, str]]:
    """Each stage of the newest model: what was done, what it took, what from, and the file after it, where that is
    here."""
    provenance = members[-1].provenance
    after = {member.stages: member.name for member in members}
    for i, stage in enumerate(provenance.stages):
        cost, took, data = provenance.cost(i), "", ""
        if cost is not None:
            parts = [
                span(cost.seconds) if cost.seconds else "",
                f"{quantity(cost.tokens)} tokens" if cost.tokens else "",
            ]
            took = ", ".join(filter(None, [*parts, f"{quantity(cost.flops, 'FLOP')}" if cost.flops else ""]))
            data = ", ".join(cost.data)
        yield stage, took, data, after.get(i + 1, "")


def worse(card: Card) -> list[Effect]:
    """What a stage made worse."""
    return [effect for effect in card.effects if effect.verdict == "worse"]


def asked(question: Question) -> str:
    """A conversation as lines."""
    return "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in question.messages)


def said(reply: Reply) -> str:
    """A reply, the calls before it in brackets."""
    calls = "".join(f"[{call.name} {call.arguments} -> {call.result}] " for call in reply.calls)
    return calls + (reply.text or "(nothing)")


def markdown(card: Card) -> str:
    """The whole card."""
    last = card.members[-1]
    lines = [f"# Report card of {last.name}", "", heading(last) + "."]
    if last.provenance.description:
        lines += ["", last.provenance.description + "."]
    lines += ["", "## Where it comes from", "", "| stage | took | learned from | file |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in stages(card.members)]
    names = [member.name for member in card.members]
    if card.measures:
        lines += ["", "## What each stage changed", ""]
        head = ["measure", "n", *names, *(f"{before} to {after}" for before, after in pairwise(names))]
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(map(_cell, _row(card, measure)))} |" for measure in card.measures]
        lines += ["", "Figures with 95% intervals; changes are means of paired differences, above zero better."]
        lines += ["", "## What got worse", ""]
        found = worse(card)
        lines += [f"- {e.measure}, from {e.before} to {e.after}: {change(e, _share(card, e))}" for e in found]
        lines += [] if found else ["Nothing that these measures show."]
    if card.samples:
        lines += ["", "## Samples", ""]
        for sample in card.samples:
            lines += [f"**{sample.measure}**", "", *_quoted(asked(sample.question)), ""]
            for name, reply in zip(names, sample.replies, strict=True):
                lines += [f"{name}:", "", *_quoted(said(reply)), ""]
    settings = ", ".join(f"{name} {value}" for name, value in card.settings.items())
    lines += ["", f"{settings}. sha256 of {last.path.name}: {last.sha256}."]
    return "\n".join(lines).rstrip() + "\n"


def _share(card: Card, effect: Effect) -> bool:
    return next(measure.is_share for measure in card.measures if measure.name == effect.measure)


def _row(card: Card, measure: Measure) -> list[str]:
    figures = [figure(measure.of(i), measure.is_share) for i in range(len(card.members))]
    effects = [effect for effect in card.effects if effect.measure == measure.name]
    return [measure.name, str(measure.n), *figures, *(change(effect, measure.is_share) for effect in effects)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _quoted(text: str) -> list[str]:
    return [f"> {line}" for line in text.split("\n")]
