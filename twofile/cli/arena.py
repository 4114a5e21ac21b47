"""`twofile arena`: models answer the same prompts, a judge compares, everybody gets a rating."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twofile.cli.console import note, table
from twofile.cli.options import find, open_engine, training_libraries
from twofile.errors import TaskError

if TYPE_CHECKING:
    from twofile.evaluate.arena import Arena, Asked, Score
    from twofile.evaluate.ratings import Comparison

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_path = click.Path(dir_okay=False, path_type=Path)


@click.command("arena")
@click.argument("models", nargs=-1)
@click.option("--prompts", type=_file, help="What they answer: JSON lines with messages or a prompt.")
@click.option("--judge", help="A reward model, FILE.py:FUNCTION of your own, or `people`: twofile label --into LABELS.")
@click.option("--labels", type=_path, help="The file of labels that people judge in. [beside the arena's file]")
@click.option("--into", type=_path, default=Path("arena.jsonl"), show_default=True, help="The arena's file.")
@click.option("--longest", type=click.IntRange(1), default=256, show_default=True, help="Tokens of an answer.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many prompts.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the answers.")
@click.option("--json", "as_json", is_flag=True, help="Print the ratings as JSON.")
def arena_command(
    models: tuple[str, ...],
    prompts: Path | None,
    judge: str | None,
    labels: Path | None,
    into: Path,
    longest: int,
    limit: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Let MODELS answer the prompts, compare every two answers, and print ratings with 95% intervals.

    Models that come later are compared with those that are there. A FUNCTION(messages, reply, row) says in a number how
    good a reply is. Without MODELS: the ratings of an arena that is there.
    """
    from twofile.evaluate.arena import Arena, Asked
    from twofile.evaluate.ratings import ratings

    if not models and not into.exists():
        raise click.UsageError("give models that answer, or --into of an arena that is there")
    if models and (prompts is None or judge is None):
        raise click.UsageError("models need --prompts and --judge")
    arena = Arena(into, {"longest": longest, "seed": seed} if models else None)
    asked: list[Asked] = []
    if prompts is not None:
        from twofile.train.feedback.prompts import read_prompts

        asked = [Asked(messages, row) for messages, _, row in read_prompts(prompts)][:limit]
    for name in models:
        with open_engine(name, {}) as engine:
            known_as = _known_as(engine.path)
            count = arena.answer(known_as, engine, asked, longest, seed)
            note(f"{known_as}: {count} answers, {len(asked) - count} were there")
    known = sorted({model for _, model in arena.answers})
    votes = labels or into.with_suffix(".labels.db")
    if not asked and votes.exists():
        asked = _labelled(votes)
    if judge == "people" and not asked:
        raise click.UsageError("people judge what --prompts asks")
    by = judge
    if judge not in (None, "people"):
        path, _, function = judge.rpartition(":")
        by = f"{_known_as(Path(path))}:{function}" if path.endswith(".py") else _known_as(find(judge))
        if asked:
            note(f"{arena.judge(by, _score(judge), known, asked)} comparisons by {by}")
    found = {one: ratings(arena.of(one)) for one in sorted({one for one, *_ in arena.comparisons}) if by in (None, one)}
    if by == "people" or (by is None and asked):
        found["people"] = ratings(_people(arena, known, asked, votes))
    if as_json:
        click.echo(json.dumps({by: [vars(one) for one in rows] for by, rows in found.items()}))
        return
    for by, rows in found.items():
        lines = [(by, "rating (95%)", "wins", "of")]
        lines += [
            (one.name, f"{one.rating:.0f} ({one.low:.0f} to {one.high:.0f})", f"{one.wins:g}", str(one.comparisons))
            for one in rows
        ]
        click.echo(table(lines, indent=""))


def _labelled(path: Path) -> list[Asked]:
    """The prompts of an arena that people were asked about."""
    from twofile.evaluate.arena import Asked
    from twofile.serve.label.store import Store

    store = Store(path)
    try:
        found = {(one := Asked(item.messages, {})).key: one for item in store.items() if item.source == "arena"}
    finally:
        store.close()
    return list(found.values())


def _known_as(path: Path) -> str:
    """A file by its name and the beginning of its checksum."""
    from twofile.params.checksum import file_sha256

    if not path.is_file():
        raise TaskError(f"there is no file {path}", "give a reward model, FILE.py:FUNCTION, or people")
    return f"{path.stem}-{file_sha256(path)[:8]}"


def _score(judge: str) -> Score:
    """How a reward model or a program judges."""
    path, _, function = judge.rpartition(":")
    if path.endswith(".py"):
        from twofile.train.feedback.judges import program

        call = program(Path(path), function)
        return lambda said: [call(list(asked.messages), text, dict(asked.row)) for asked, text in said]
    with training_libraries():
        from twofile.train.feedback.judges import texts_of_model
    score = texts_of_model(find(judge))
    return lambda said: score([(asked.messages, text) for asked, text in said])


def _people(arena: Arena, names: Sequence[str], asked: Sequence[Asked], path: Path) -> list[Comparison]:
    """What people have judged by now; the rest they are asked for. A pair is known by its prompt and both texts; what
    people passed over stays open."""
    from twofile.evaluate.ratings import Comparison, pairs
    from twofile.serve.label.store import Item, Store

    scores = {"first": 1.0, "tie": 0.5, "second": 0.0}
    found, wanted = [], []
    store = Store(path)
    try:
        keys = {item.id: item.key for item in store.items()}
        said: dict[str, list[float]] = {}
        for label in store.labels():
            if label.verdict in scores:
                said.setdefault(keys[label.item], []).append(scores[label.verdict])
        for one in asked:
            for first, second in pairs(sorted(names)):
                replies = tuple(arena.answers.get((one.key, name), "") for name in (first, second))
                item, turned = Item(one.messages, replies), Item(one.messages, replies[::-1])
                if any((one.key, name) not in arena.answers for name in (first, second)):
                    continue
                votes = said.get(item.key, []) + [1 - vote for vote in said.get(turned.key, [])]
                if replies[0] == replies[1]:
                    found.append(Comparison(one.key, first, second, 0.5))
                elif votes:
                    found.append(Comparison(one.key, first, second, sum(votes) / len(votes)))
                elif turned.key not in keys.values():
                    wanted.append(Item(one.messages, replies, source="arena"))
        store.add(wanted)
    finally:
        store.close()
    if wanted:
        note(f"{len(wanted)} comparisons wait for people: twofile label --into {path}, then this command again")
    return found
