"""Items out of files, and labels into files that training reads.

A row of a file becomes an item: a pair or a row with `replies` a comparison, a prompt or a conversation that ends with
a user an answer to write. Labels become conversations (`conversations.jsonl`: every text that was written) and pairs
(`pairs.jsonl`: the reply that most labellers chose; a correction is chosen over what it corrects).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twofile.params.atomic import atomic_path
from twofile.serve.label.agreement import alpha
from twofile.serve.label.store import Item, Label, Store
from twofile.train.feedback.pairs import pair
from twofile.train.feedback.prompts import prompt
from twofile.train.records import read_records

__all__ = ["agreement", "conversations", "export", "item", "pairs", "read_items"]

_FORMS = "messages or a prompt, alone or with two replies (chosen and rejected, or replies)"


def read_items(path: Path) -> Iterator[Item]:
    """The items of a `.jsonl` or `.json` file, plain, .gz or .xz. TrainError names the file and the line."""
    return read_records(path, lambda row: item(row, path.name), _FORMS)


def item(row: Any, source: str = "") -> Item:
    """One row, decoded. ValueError says what it lacks."""
    if isinstance(row, dict) and "chosen" in row and "rejected" in row:
        found = pair(row)
        if found is None:
            raise ValueError("chosen and rejected are not two replies to the same")
        said = [message.get("content") for message in (found.chosen, found.rejected)]
        if not all(isinstance(text, str) for text in said):
            raise ValueError("a reply is no text")
        return Item(found.messages, tuple(map(str, said)), found.tools, source)
    messages, tools, whole = prompt(row)
    replies = whole.get("replies") or ()
    if not isinstance(replies, list | tuple) or len(replies) > 2 or not all(isinstance(text, str) for text in replies):
        raise ValueError("replies are not one or two texts")
    return Item(messages, tuple(replies), tools, source)


def conversations(store: Store) -> Iterator[dict[str, Any]]:
    """Every text that somebody wrote, as the assistant's answer."""
    labels = store.labels()  # before the items: every label then has its item
    items = {one.id: one for one in store.items()}
    for label in labels:
        if label.text.strip() and label.verdict != "skip":
            asked = items[label.item]
            yield _row(asked, messages=[*asked.messages, {"role": "assistant", "content": label.text}])


def pairs(store: Store) -> Iterator[dict[str, Any]]:
    """What most labellers chose, and every correction over what it corrects."""
    given = _by_item(label for label in store.labels() if label.verdict != "skip")
    items = {one.id: one for one in store.items()}
    for number, labels in given.items():
        asked = items[number]
        if len(asked.replies) == 2:
            votes = Counter(label.verdict for label in labels)
            first, second = votes["first"], votes["second"]
            if 2 * max(first, second) > votes.total():
                order = asked.replies if first > second else asked.replies[::-1]
                reasons = [label.reason for label in labels if label.reason]
                yield _row(
                    asked,
                    messages=asked.messages,
                    chosen=order[0],
                    rejected=order[1],
                    votes=dict(votes),
                    reasons=reasons,
                )
        for label in labels:
            if label.text.strip():
                for reply in asked.replies:
                    yield _row(asked, messages=asked.messages, chosen=label.text, rejected=reply)


def agreement(store: Store) -> float | None:
    """Krippendorff's alpha of the choices."""
    choices = ("first", "second", "tie")
    found = _by_item(store.labels()).values()
    return alpha([label.verdict for label in labels if label.verdict in choices] for labels in found)


def export(store: Store, folder: Path) -> dict[str, int]:
    """Write both files into a folder; how many rows each has."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name, rows in (("conversations", conversations(store)), ("pairs", pairs(store))):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        with atomic_path(folder / f"{name}.jsonl") as path:
            path.write_text("".join(lines), encoding="utf-8")
        counts[name] = len(lines)
    return counts


def _by_item(labels: Iterable[Label]) -> dict[int, list[Label]]:
    found: dict[int, list[Label]] = {}
    for label in labels:
        found.setdefault(label.item, []).append(label)
    return found


def _row(asked: Item, **values: Any) -> dict[str, Any]:
    tools: Mapping[str, Any] = {"tools": list(asked.tools)} if asked.tools else {}
    return {**values, "messages": list(values["messages"]), **tools}
