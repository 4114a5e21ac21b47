"""LAMBADA: the last word of a passage, which needs all of it. Right is a word that greedy decoding would say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twofile.evaluate.tasks.reading import find, lines_of, text_of
from twofile.evaluate.tasks.task import Choice, Item, Metrics, Said, Task

__all__ = ["LAMBADA"]


def _load(folder: Path, shots: int) -> list[Item]:
    path, found = find(folder, "lambada_test.jsonl"), list[Item]()
    for number, row in enumerate(lines_of(text_of(path), path.name)):
        context, _, word = row["text"].strip().rpartition(" ")
        found.append(Choice(str(number), "lambada", ((context, f" {word}"),), (0,)))
    return found


def _judge(item: Item, said: Sequence[Said] | str) -> Metrics:
    assert not isinstance(said, str)
    return {"acc": float(said[0].greedy), "perplexity": -said[0].logp}


LAMBADA = Task(
    "lambada", "the last word of a passage", "arXiv:1606.06031", _load, _judge,
    {"acc": "share", "perplexity": "perplexity"}, 0.0,
)  # fmt: skip
