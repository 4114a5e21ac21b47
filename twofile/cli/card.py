"""The report card of a model, for `twofile report MODEL`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note
from twofile.cli.options import find, training_libraries
from twofile.errors import TwofileError

if TYPE_CHECKING:
    from twofile.evaluate.asking import Question, Tool
    from twofile.evaluate.card.card import Judge


def write_card(
    name: str,
    out: Path | None,
    *,
    questions: Path | None,
    judge: str | None,
    tools: str | None,
    texts: Path | None,
    beside: Sequence[Path],
    limit: int | None,
    **how: Any,
) -> None:
    """Measure the models of a lineage and write the page, and the same in Markdown beside it."""
    from twofile.cli.texts import documents
    from twofile.evaluate.card.card import make_card
    from twofile.evaluate.card.lineage import lineage
    from twofile.evaluate.card.page import card_page
    from twofile.evaluate.card.words import markdown
    from twofile.params.atomic import atomic_path

    if (judge or tools) and questions is None:
        raise click.UsageError("--judge and --tools are about --questions")
    path = find(name)
    out = out or Path(f"{path.stem}.html")
    beside_it = out.with_suffix(".md")
    if beside_it.exists() and not beside_it.read_text("utf-8", "replace").startswith("# Report card of "):
        raise TwofileError(f"{beside_it} is something else than a report card", "give another --out")
    members = lineage(path, _candidates(path, beside), note)
    read = [document for document, _ in zip(documents([texts]), range(limit or 10**9), strict=False)] if texts else []
    card = make_card(
        members,
        _questions(questions, limit) if questions else (),
        _judge(judge) if judge else None,
        tool=_tool(tools) if tools else None,
        texts=read,
        say=note,
        **how,
    )
    for target, text in ((out, card_page(card)), (beside_it, markdown(card))):
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        click.echo(target)


def _candidates(path: Path, beside: Sequence[Path]) -> Iterator[Path]:
    """Where the files may lie that a model was made from: beside it, where one is told, and among the known models."""
    from twofile.params.names import bundled, local

    yield from path.resolve().parent.glob("*.gguf")
    for place in beside:
        yield from place.glob("*.gguf") if place.is_dir() else [place]
    yield from [*local().values(), *bundled().values()]


def _questions(path: Path, limit: int | None) -> list[Question]:
    """At most `limit` of each group."""
    from twofile.evaluate.asking import Question

    with training_libraries():
        from twofile.train.feedback.prompts import read_prompts
    found: dict[str, list[Question]] = {}
    for messages, tools, row in read_prompts(path):
        found.setdefault(str(row.get("group", "")), []).append(Question(messages, tools, row))
    return [question for held in found.values() for question in held[:limit]]


def _judge(judge: str) -> Judge:
    """A reward model, or a function of a person's own."""
    path, _, function = judge.rpartition(":")
    with training_libraries():
        from twofile.train.feedback.judges import program, texts_of_model
    if path.endswith(".py"):
        call = program(Path(path), function)
        return lambda question, reply: call(
            list(question.messages), reply.text, {**question.row, "calls": [vars(made) for made in reply.calls]}
        )
    score = texts_of_model(find(judge))
    return lambda question, reply: score([(question.messages, reply.text)])[0]


def _tool(tools: str) -> Tool:
    """A function of a person's own that plays the tools."""
    path, _, function = tools.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise TwofileError(f"{tools} is no function of a Python file", "give --tools FILE.py:FUNCTION")
    import runpy

    found = runpy.run_path(path).get(function)
    if not callable(found):
        raise TwofileError(f"{path} has no function {function}", "give --tools FILE.py:FUNCTION")
    return lambda name, arguments, row: str(found(name, arguments, row))
