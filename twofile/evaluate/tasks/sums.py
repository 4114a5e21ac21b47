"""GSM8K: sums in words. The answer is the number after the first `####`, or the last number that the model says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from twofile.evaluate.tasks.reading import find, lines_of, text_of
from twofile.evaluate.tasks.task import Item, Metrics, Question, Said, Task

__all__ = ["GSM8K", "number_of"]

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")
_STRICT = re.compile(r"#### (-?[\d.,]+)")


def _load(folder: Path, shots: int) -> list[Item]:
    solved = ""
    if shots:
        path = find(folder, "gsm8k/train.jsonl", "train.jsonl")
        rows = lines_of(text_of(path), path.name)[:shots]
        solved = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in rows)
    path = find(folder, "gsm8k/test.jsonl", "test.jsonl")
    stop = ("Question:", "</s>", "<|im_end|>")
    return [
        Question(str(i), "gsm8k", f"{solved}Question: {row['question']}\nAnswer:", row["answer"], stop, 256, solved)
        for i, row in enumerate(lines_of(text_of(path), path.name))
    ]


def number_of(text: str, strict: bool = False) -> float | None:
    """The last number of a text; `strict`: the number after the first `####`. None where there is none."""
    found = _STRICT.findall(text)[:1] if strict else _NUMBER.findall(text)[-1:]
    try:
        return float(found[0].strip(".").replace(",", "").replace("$", ""))
    except (IndexError, ValueError):
        return None


def _judge(item: Item, said: Sequence[Said] | str) -> Metrics:
    """`exact`: the number after ####; `flexible`: the last number, however the model writes its answer."""
    assert isinstance(item, Question)
    assert isinstance(said, str)
    wanted = number_of(item.answer)
    return {"exact": float(number_of(said, strict=True) == wanted), "flexible": float(number_of(said) == wanted)}


GSM8K = Task(
    "gsm8k", "sums in words", "arXiv:2110.14168", _load, _judge, {"exact": "share", "flexible": "share"}, 0.0, shots=5
)
