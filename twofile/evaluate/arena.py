"""An arena: models answer the same prompts, a judge compares their answers, and everybody gets a rating.

The file of an arena is JSON lines: how models answer here (their longest answer, the seed), an answer of a model, or a
comparison of two answers. Guarantee: what is there is neither answered nor compared again, so that a model that comes
later meets the others where they were; a model and a judge are known by their files' checksums, and an arena with
other settings is refused. Cost: the answers; a judge's time for each pair of models and prompt.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofile.engine.engine import Engine
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.engine.template import ChatTemplate
from twofile.errors import TaskError
from twofile.evaluate.ratings import Comparison, pairs

__all__ = ["Answer", "Arena", "Asked", "Score"]

_FIELDS = ("prompt", "model", "text")


@dataclass(frozen=True)
class Asked:
    """A conversation to answer, and what else its row had, for a judge that is a program."""

    messages: tuple[Mapping[str, Any], ...]
    row: Mapping[str, Any]

    @property
    def key(self) -> str:
        whole = json.dumps(list(self.messages), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Answer:
    """What a model said to a prompt."""

    prompt: str
    model: str
    text: str


Score = Callable[[Sequence[tuple[Asked, str]]], Sequence[float]]
"""How good each answer is to its prompt: the larger is the better, equal ones are a tie."""


class Arena:
    """An arena in a file, which is made where there is none. `settings`: how models answer; None takes those that are
    there. TaskError where the file is something else, or has other settings."""

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.answers: dict[tuple[str, str], str] = {}
        self.comparisons: dict[tuple[str, str, str], Comparison] = {}  # by judge, round, and both models
        self.settings: dict[str, Any] | None = None
        for line in _lines(path):
            try:
                if self.settings is None:
                    self.settings = dict(line["arena"])
                elif line.keys() == set(_FIELDS):
                    self.answers[line["prompt"], line["model"]] = line["text"]
                else:
                    self._know(line.pop("judge"), Comparison(**line))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise TaskError(f"{path} is no file of an arena", "name another with --into") from error
        if settings is None:
            return
        if self.settings is None:
            self.settings = dict(settings)
            self._write({"arena": self.settings})
        elif self.settings != dict(settings):
            was, now = (", ".join(f"{k} {v}" for k, v in s.items()) for s in (self.settings, settings))
            raise TaskError(f"models answered in {path} with {was}, not {now}", "give the same, or another --into")

    def _know(self, judge: str, found: Comparison) -> None:
        self.comparisons[judge, found.round, f"{found.first} {found.second}"] = found

    def answer(self, name: str, engine: Engine, prompts: Sequence[Asked], longest: int, seed: int = 0) -> int:
        """Let a model answer what it has not answered yet; how many that was."""
        left = [(i, asked) for i, asked in enumerate(prompts) if (asked.key, name) not in self.answers]
        template = ChatTemplate.of(engine)
        with Scheduler(engine) as scheduler:
            streams = [
                scheduler.submit(template.render(asked.messages), Sampling(seed=seed + i), longest) for i, asked in left
            ]
            for (_, asked), stream in zip(left, streams, strict=True):
                text = "".join(piece.text for piece in stream).strip()
                self.answers[asked.key, name] = text
                self._write(vars(Answer(asked.key, name, text)))
        return len(left)

    def open(self, judge: str, names: Sequence[str], prompts: Sequence[Asked]) -> Iterator[tuple[Asked, str, str]]:
        """What a judge has not compared yet: (prompt, first model, second model), where both have answered."""
        for asked in prompts:
            for first, second in pairs(sorted(names)):
                there = all((asked.key, name) in self.answers for name in (first, second))
                if there and (judge, asked.key, f"{first} {second}") not in self.comparisons:
                    yield asked, first, second

    def judge(self, judge: str, score: Score, names: Sequence[str], prompts: Sequence[Asked]) -> int:
        """Compare what has not been compared yet; how many that was."""
        left = list(self.open(judge, names, prompts))
        wanted = list({(asked.key, name): (asked, name) for asked, *both in left for name in both}.values())
        said = [(asked, self.answers[asked.key, name]) for asked, name in wanted]
        scores = {(a.key, name): s for (a, name), s in zip(wanted, score(said) if said else (), strict=True)}
        for asked, first, second in left:
            one, other = scores[asked.key, first], scores[asked.key, second]
            self.add(judge, Comparison(asked.key, first, second, 0.5 if one == other else float(one > other)))
        return len(left)

    def add(self, judge: str, found: Comparison) -> None:
        """Keep a comparison."""
        self._know(judge, found)
        self._write({"judge": judge, **vars(found)})

    def of(self, judge: str) -> list[Comparison]:
        """The comparisons of a judge."""
        return [found for (by, *_), found in self.comparisons.items() if by == judge]

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file. A last one that a kill tore is cut off, where the others are those of an arena."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    for line in data[:end].splitlines():
        try:
            yield json.loads(line)
        except ValueError as error:
            raise TaskError(f"{path} is no file of an arena", "name another with --into") from error
    if end < len(data):
        if not data[end:].startswith((b'{"arena"', b"{")[: 2 if end else 1]):
            raise TaskError(f"{path} is no file of an arena", "name another with --into")
        os.truncate(path, end)
