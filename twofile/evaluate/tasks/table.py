"""All tasks by name."""

from __future__ import annotations

from twofile.evaluate.tasks.choices import ARC_CHALLENGE, ARC_EASY, BLIMP, HELLASWAG, MMLU, TRUTHFULQA
from twofile.evaluate.tasks.cloze import LAMBADA
from twofile.evaluate.tasks.programs import HUMANEVAL
from twofile.evaluate.tasks.sums import GSM8K
from twofile.evaluate.tasks.task import Task

__all__ = ["TASKS"]

TASKS: dict[str, Task] = {
    task.name: task for task in (BLIMP, LAMBADA, ARC_EASY, ARC_CHALLENGE, HELLASWAG, MMLU, TRUTHFULQA, GSM8K, HUMANEVAL)
}
