"""Multiple choice: BLiMP, ARC, HellaSwag, MMLU and TruthfulQA. The likeliest continuation is the model's answer.

`acc` compares ln p of the continuations, `acc_norm` ln p by character, so that long answers are not the losers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twofile.evaluate.tasks.reading import find, json_of, lines_of, members, table_of, text_of
from twofile.evaluate.tasks.task import Choice, Item, Metrics, Said, Task

__all__ = ["ARC_CHALLENGE", "ARC_EASY", "BLIMP", "HELLASWAG", "MMLU", "TRUTHFULQA"]

_ANSWERS = re.compile(r"Answer(\d): ")
_LETTERS = "ABCD"


def accuracy(item: Item, said: Sequence[Said] | str) -> Metrics:
    """`acc` and `acc_norm`; the first of equals is the answer."""
    assert isinstance(item, Choice)
    assert not isinstance(said, str)
    logps = [one.logp for one in said]
    norms = [one.logp / max(1, len(option.lstrip())) for one, (_, option) in zip(said, item.options, strict=True)]
    return {
        "acc": float(logps.index(max(logps)) in item.right),
        "acc_norm": float(norms.index(max(norms)) in item.right),
    }


def _blimp(folder: Path, shots: int) -> list[Item]:
    found: list[Item] = []
    for name, text in members(find(folder, "blimp.tar.xz", "blimp"), ".jsonl"):
        for row in lines_of(text, name):
            options = ("", f" {row['sentence_good']}"), ("", f" {row['sentence_bad']}")
            found.append(Choice(f"{row['UID']}-{row['pairID']}", row["UID"], options, (0,)))
    return found


def _arc(which: str) -> Any:
    def load(folder: Path, shots: int) -> list[Item]:
        solved = ""
        if shots:
            rows = json_of(find(folder, f"{which}_train.json"))[:shots]
            for question, options, right in map(_arc_row, rows):
                solved += f"Question: {question}\nAnswer: {options[right]}\n\n"
        found: list[Item] = []
        for number, row in enumerate(json_of(find(folder, f"{which}_test.json"))):
            question, options, right = _arc_row(row)
            context = f"{solved}Question: {question}\nAnswer:"
            said = tuple((context, f" {option}") for option in options)
            found.append(Choice(str(number), which, said, (right,), solved))
        return found

    return load


def _arc_row(row: dict[str, Any]) -> tuple[str, list[str], int]:
    """The form of the published rows: one text that holds question and answers."""
    asked = (
        row["instruction"]
        .split("\n\nAnswer format:")[0]
        .removeprefix("Please choose the correct answer to the question: ")
    )
    question, _, rest = asked.partition("\n\nAnswer1: ")
    parts = _ANSWERS.split(f"Answer1: {rest}")
    return question.strip(), [part.strip() for part in parts[2::2]], int(row["answer"].removeprefix("answer")) - 1


def _hellaswag(folder: Path, shots: int) -> list[Item]:
    def clean(text: str) -> str:
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    path, found = find(folder, "hellaswag_val.jsonl", "hellaswag_val.jsonl.xz"), list[Item]()
    for number, row in enumerate(lines_of(text_of(path), path.name)):
        context = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        options = tuple((context, f" {clean(ending)}") for ending in row["endings"])
        found.append(Choice(str(number), row["activity_label"], options, (int(row["label"]),)))
    return found


def _mmlu(folder: Path, shots: int) -> list[Item]:
    path = find(folder, "mmlu.tar.xz", "mmlu")
    solved: dict[str, str] = {}
    tests: list[tuple[str, list[list[str]]]] = []
    for name, text in members(path, ".csv"):
        subject = re.sub(r"_(dev|test|val)\.csv$", "", name.rsplit("/", 1)[-1])
        if name.endswith("_dev.csv"):
            examples = (_mmlu_question(row) + f" {row[5]}" for row in table_of(text)[:shots])
            solved[subject] = "".join(f"{example}\n\n" for example in examples)
        elif name.endswith("_test.csv"):
            tests.append((subject, table_of(text)))
    found: list[Item] = []
    for subject, rows in tests:
        about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        about += solved.get(subject, "")
        for number, row in enumerate(rows):
            options = tuple((about + _mmlu_question(row), f" {letter}") for letter in _LETTERS)
            found.append(Choice(f"{subject}-{number}", subject, options, (_LETTERS.index(row[5]),), about))
    return found


def _mmlu_question(row: list[str]) -> str:
    options = "".join(f"{letter}. {text}\n" for letter, text in zip(_LETTERS, row[1:5], strict=True))
    return f"{row[0].strip()}\n{options}Answer:"


def _truthfulqa(folder: Path, shots: int) -> list[Item]:
    found: list[Item] = []
    for number, row in enumerate(json_of(find(folder, "mc_task.json"))):
        for which in ("mc1", "mc2"):
            targets: dict[str, int] = row[f"{which}_targets"]
            context = f"Q: {row['question']}\nA:"  # without the six examples that lm-evaluation-harness puts before
            right = tuple(i for i, label in enumerate(targets.values()) if label)
            found.append(Choice(f"{which}-{number}", which, tuple((context, f" {said}") for said in targets), right))
    return found


def _truth(item: Item, said: Sequence[Said] | str) -> Metrics:
    """`mc1`: the one best answer is the likeliest; `mc2`: the share of the true ones in the probability of all."""
    assert isinstance(item, Choice)
    assert not isinstance(said, str)
    if item.group == "mc1":
        return {"mc1": accuracy(item, said)["acc"]}
    most = max(one.logp for one in said)
    p = [math.exp(one.logp - most) for one in said]
    return {"mc2": sum(p[i] for i in item.right) / sum(p)}


_SHARES: Any = {"acc": "share", "acc_norm": "share"}
BLIMP = Task(
    "blimp", "grammatical sentences against ungrammatical ones", "arXiv:1912.00582", _blimp, accuracy,
    {"acc": "share"}, 0.5,
)  # fmt: skip
ARC_EASY = Task(
    "arc_easy", "science questions of grade schools", "arXiv:1803.05457", _arc("easy"), accuracy, _SHARES, 0.25
)
ARC_CHALLENGE = Task(
    "arc_challenge", "the harder of them", "arXiv:1803.05457", _arc("challenge"), accuracy, _SHARES, 0.25
)
HELLASWAG = Task(
    "hellaswag", "how everyday scenes go on", "arXiv:1905.07830", _hellaswag, accuracy,
    {"acc_norm": "share", "acc": "share"}, 0.25,
)  # fmt: skip
MMLU = Task(
    "mmlu", "exam questions of 57 subjects", "arXiv:2009.03300", _mmlu, accuracy, {"acc": "share"}, 0.25, shots=5
)
TRUTHFULQA = Task(
    "truthfulqa", "questions that many answer falsely, without the paper's examples", "arXiv:2109.07958",
    _truthfulqa, _truth,
    {"mc1": "share", "mc2": "mean"}, None,
)  # fmt: skip
