"""GSM8K: sums in words. The answer is the number after `####`, else the last number that the model says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from twofile.evaluate.tasks.reading import find, lines_of, text_of
from twofile.evaluate.tasks.task import Item, Metrics, Question, Said, Task

__all__ = ["GSM8K", "number_of"]

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")
_NOTE = re.compile(r"<<.*?>>")


def _load(folder: Path, shots: int) -> list[Item]:
    solved = ""
    if shots:
        path = find(folder, "gsm8k/train.jsonl", "train.jsonl")
        rows = lines_of(text_of(path), path.name)[:shots]
        solved = "".join(f"Question: {row['question']}\nAnswer: {_NOTE.sub('', row['answer'])}\n\n" for row in rows)
    path = find(folder, "gsm8k/test.jsonl", "test.jsonl")
    stop = ("Question:", "</s>", "<|im_end|>")
    return [
        Question(str(i), "gsm8k", f"{solved}Question: {row['question']}\nAnswer:", row["answer"], stop, 256)
        for i, row in enumerate(lines_of(text_of(path), path.name))
    ]


def number_of(text: str, after: str = "####") -> float | None:
    """The number after the last `after`, where there is one; else the last of all; None without any."""
    _, mark, rest = text.rpartition(after)
    numbers = _NUMBER.findall(rest if mark else text)
    if not numbers:
        return None
    return float((numbers[0] if mark else numbers[-1]).replace(",", "").replace("$", ""))


def _judge(item: Item, said: Sequence[Said] | str) -> Metrics:
    """`exact`: the number after ####; `flexible`: the last number, however the model writes its answer."""
    assert isinstance(item, Question)
    assert isinstance(said, str)
    wanted = number_of(item.answer)
    strict = number_of(said) if "####" in said else None
    return {"exact": float(strict == wanted), "flexible": float(number_of(said, "\0") == wanted)}


GSM8K = Task(
    "gsm8k", "sums in words", "arXiv:2110.14168", _load, _judge, {"exact": "share", "flexible": "share"}, 0.0, shots=5
)
