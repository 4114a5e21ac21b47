"""A whole task, resumable: what was measured is written item by item, and not measured again.

The file of a task begins with what it was measured with (the checksums of the model and of the items, the task, shots,
seed, chat) and is refused for another. `limit` draws so many items with a seed, the same for every model. Items whose
text has a run of 13 words in the training text are flagged, where that text is given; figures are then given with and
without them. Cost: that of `scoring`, and a line of JSON an item.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from twofile.errors import TaskError
from twofile.evaluate.tasks.scoring import Scorer
from twofile.evaluate.tasks.task import Choice, Item, Question, Said, Task
from twofile.intervals import Share, mean, wilson

__all__ = ["Figure", "Outcome", "draw", "evaluate", "summary"]


@dataclass(frozen=True)
class Outcome:
    """An item, measured."""

    id: str
    group: str
    metrics: dict[str, float]
    cut: bool  # whether its context lost its beginning
    seen: bool | None = None  # whether its text has a run in the training text; None: nobody looked


class Figure(NamedTuple):
    """A metric of a task over `n` items; `chance`: of who answers blindly."""

    metric: str
    value: Share
    n: int
    chance: float | None


def evaluate(
    task: Task,
    items: Sequence[Item],
    scorer: Scorer,
    about: dict[str, Any],
    path: Path | None = None,
    *,
    seen: Callable[[str], bool] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[Outcome]:
    """Measure items, in their order. `about`: what tells this measurement from others. `path`: the file to go on with.
    TaskError where that is of another measurement."""
    digest = hashlib.sha256(repr(list(items)).encode("utf-8", "surrogatepass")).hexdigest()
    done = _resume(path, {"task": task.name, "items": digest, **about}) if path is not None else {}
    for item, said in _said([item for item in items if item.id not in done], scorer):
        done[item.id] = Outcome(item.id, item.group, dict(task.judge(item, said)), item.id in scorer.cut)
        if path is not None:
            _append(path, done[item.id])
        if progress is not None:
            progress(len(done), len(items))
    found = [done[item.id] for item in items]
    if seen is None:
        return found
    return [replace(one, seen=seen(item.text)) for one, item in zip(found, items, strict=True)]


def draw(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """`limit` of the items, in their order; all where there is no limit."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[i] for i in chosen]


def summary(task: Task, outcomes: Sequence[Outcome]) -> list[Figure]:
    """The figures of a task, the first metric first. A perplexity's interval is that of the mean of its nats."""
    found = []
    for metric, kind in task.metrics.items():
        values = [one.metrics[metric] for one in outcomes if metric in one.metrics]
        if not values:
            continue
        share = wilson(sum(values), len(values)) if kind == "share" else mean(values)
        if kind == "perplexity":
            share = Share(*(math.exp(value) for value in share))
        chance = task.chance if metric == next(iter(task.metrics)) else None
        found.append(Figure(metric, share, len(values), chance))
    return found


def _said(items: Sequence[Item], scorer: Scorer) -> Iterator[tuple[Item, Sequence[Said] | str]]:
    choices = [item for item in items if isinstance(item, Choice)]
    for number, said in scorer.choices(choices):
        yield choices[number], said
    questions = [item for item in items if isinstance(item, Question)]
    if questions:
        for number, reply in scorer.answers(questions):
            yield questions[number], reply


def _resume(path: Path, about: dict[str, Any]) -> dict[str, Outcome]:
    """What the file holds; a new file where there is none. A line that a kill tore is measured again."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about) + "\n", encoding="utf-8")
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        before = json.loads(lines[0]) if lines else {}
    except ValueError:
        before = {}
    if before != about:
        other = sorted(name for name in before.keys() | about.keys() if before.get(name) != about.get(name))
        hint = "name another folder, or remove the file"
        raise TaskError(f"{path} was measured otherwise ({', '.join(other) or 'it has no head'})", hint)
    found = {}
    whole = [lines[0]]
    for line in lines[1:]:
        try:
            one = Outcome(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[one.id] = one
        whole.append(line)
    if len(whole) != len(lines) or not path.read_bytes().endswith(b"\n"):
        path.write_text("\n".join(whole) + "\n", encoding="utf-8")
    return found


def _append(path: Path, one: Outcome) -> None:
    line = {name: value for name, value in vars(one).items() if name != "seen"}  # of the text given this time
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
