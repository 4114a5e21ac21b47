"""`twofile evaluate`: what a model can do, on the tasks that models are compared on, and on a text of your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, table
from twofile.cli.options import engine_options, open_engine
from twofile.cli.texts import documents, seen_in
from twofile.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twofile.engine.engine import Engine
    from twofile.evaluate.tasks.run import Outcome
    from twofile.evaluate.tasks.task import Task

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("name")
@click.argument("tasks", nargs=-1)
@click.option("--data", type=_folder, default=Path(), help="The folder of the tasks' files. [.]")
@click.option("--text", "texts", multiple=True, type=_file, help="Also: bits per byte of this text.")
@click.option("--split", default="", help="What stands between documents in a text file, as a regular expression.")
@click.option("--limit", type=click.IntRange(1), help="Only so many items of a task, drawn with --seed.")
@click.option("--shots", type=click.IntRange(0), help="Solved examples before each item. [the task's]")
@click.option("--seed", type=int, default=0, show_default=True, help="Which items are drawn.")
@click.option("--chat", is_flag=True, help="Ask as a user does, through the model's chat template.")
@click.option("--train", "trained", multiple=True, type=_file, help="Training text: items in it are flagged.")
@click.option("--into", type=_folder, help="Keep each item's result here, and go on with what is there.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@engine_options
def evaluate_command(
    name: str,
    tasks: tuple[str, ...],
    data: Path,
    texts: tuple[Path, ...],
    split: str,
    limit: int | None,
    shots: int | None,
    seed: int,
    chat: bool,
    trained: tuple[Path, ...],
    into: Path | None,
    as_json: bool,
    how: dict[str, Any],
) -> None:
    """Measure the model NAME on TASKS, by the protocols of lm-evaluation-harness, with 95% intervals.

    Without tasks and texts: list the tasks. A task's files lie in --data, as their authors publish them.
    """
    from twofile.evaluate.tasks.table import TASKS

    if not tasks and not texts:
        rows = [(one.name, one.about, one.source, f"needs {one.needs}" if one.needs else "") for one in TASKS.values()]
        click.echo(table(rows, indent=""))
        return
    if unknown := [task for task in tasks if task not in TASKS]:
        raise click.UsageError(f"there is no task {unknown[0]}; the tasks are {', '.join(TASKS)}")
    found: list[dict[str, Any]] = []
    with open_engine(name, how) as engine:
        ask = _asking(engine) if chat else None
        for task in tasks:
            found += _measure(TASKS[task], engine, ask, data, limit, shots, seed, trained, into)
        for path in texts:
            found.append(_bits(engine, path, split))
    if as_json:
        click.echo(json.dumps(found))
        return
    lines = [("task", "metric", "value (95%)", "n", "chance", "shots")]
    for one in found:
        chance = "" if one["chance"] is None else f"{one['chance']:.0%}"
        lines.append((one["task"], one["metric"], one["shown"], str(one["n"]), chance, str(one.get("shots", ""))))
    click.echo(table(lines, indent=""))
    if limit is not None and tasks:
        note(f"at most {limit} items of a task, drawn with seed {seed}")


def _asking(engine: Engine) -> Callable[[str], list[int]]:
    from twofile.engine.template import ChatTemplate

    template = ChatTemplate.of(engine)
    return lambda text: template.render([{"role": "user", "content": text}])


def _measure(
    task: Task,
    engine: Engine,
    ask: Callable[[str], list[int]] | None,
    data: Path,
    limit: int | None,
    shots: int | None,
    seed: int,
    trained: tuple[Path, ...],
    into: Path | None,
) -> list[dict[str, Any]]:
    from twofile.evaluate.tasks.run import draw, evaluate
    from twofile.evaluate.tasks.scoring import Scorer
    from twofile.params.checksum import file_sha256

    if ask is not None and not task.chat:
        raise TaskError(f"{task.name} gives texts to go on from, not questions to an assistant", "leave --chat out")
    shots = task.shots if shots is None else shots
    items = draw(task.load(data, shots), limit, seed)
    seen = seen_in(trained, [item.text for item in items]) if trained else None
    model = "+".join(file_sha256(path) for path in (engine.path, engine.adapter) if path is not None)
    about = {"model": model, "shots": shots, "seed": seed, "limit": limit, "chat": ask is not None}
    path = (
        into
        / f"{(engine.adapter or engine.path).stem}-{'-'.join(sha[:8] for sha in model.split('+'))}-{task.name}.jsonl"
        if into
        else None
    )
    scorer = Scorer(engine, ask)
    outcomes = evaluate(task, items, scorer, about, path, seen=seen, progress=_progress(task.name))
    if cut := sum(one.cut for one in outcomes):
        note(f"{task.name}: {cut} items did not fit into the context and lost their beginning")
    told = {"shots": shots, "seed": seed, "model": model}
    found = _figures(task, outcomes, task.name, told)
    if seen is not None:
        clean = [one for one in outcomes if not one.seen]
        note(f"{task.name}: {len(outcomes) - len(clean)} of {len(outcomes)} items stand in the training text")
        if clean and len(clean) < len(outcomes):
            found += _figures(task, clean, f"{task.name}, unseen", told)
    return found


def _figures(task: Task, outcomes: list[Outcome], name: str, about: dict[str, Any]) -> list[dict[str, Any]]:
    from twofile.evaluate.tasks.run import summary

    found = []
    for one in summary(task, outcomes):
        value = one.value
        plain = f"{value.value:.3g} ({value.low:.3g} to {value.high:.3g})"
        shown = plain if task.metrics[one.metric] == "perplexity" else str(value)
        found.append({"task": name, "shown": shown, **one._asdict(), **about})
    return found


def _progress(name: str) -> Callable[[int, int], None]:
    """A line every tenth of the way."""

    def say(done: int, total: int) -> None:
        if total >= 1000 and done * 10 // total > (done - 1) * 10 // total:
            note(f"{name}: {done} of {total}")

    return say


def _bits(engine: Engine, path: Path, split: str) -> dict[str, Any]:
    from twofile.evaluate.bits import bits_per_byte

    bits = bits_per_byte(engine, documents((path,), split))
    return {
        "task": path.name,
        "metric": "bits per byte",
        "value": (bits.bits_per_byte, bits.low, bits.high),
        "shown": f"{bits.bits_per_byte:.3f} ({bits.low:.3f} to {bits.high:.3f})",
        "n": bits.documents,
        "chance": None,
    }
