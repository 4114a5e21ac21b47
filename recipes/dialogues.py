"""Dialogues as plain documents, for pretraining: JSON lines with a `text`, each a little play.

    python recipes/dialogues.py --data DATA/sft --into FOLDER

Writes `dialogues.jsonl`: task dialogues (Schema-Guided Dialogue, Taskmaster), role play (GPTeacher) and instructions
(Self-Instruct) as `User: ...` and `Assistant: ...`, a turn a line or more. Calls of services are left out, and so are
code and long replies; a dialogue that is there twice is written once. The standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NAMES = {"user": "User", "assistant": "Assistant"}
LONGEST = 1200  # characters of one turn: longer ones are essays
CODE = ("```", "def ", "import ", "function", "<html", "<div", "</", "#include", "SELECT ", "$", "\\", "{", ";\n", "=>")

Turns = list[tuple[str, str]]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def table(path: Path) -> Iterator[dict[str, Any]]:
    yield from json.loads(lzma.decompress(path.read_bytes()))


def talk(row: dict[str, Any]) -> Turns:
    """A task dialogue: its turns, without the calls of services."""
    return [(turn["s"], turn["t"]) for turn in row["turns"]]


def instruction(row: dict[str, Any]) -> Turns:
    """An instruction and its response, in GPTeacher's form or in Self-Instruct's."""
    first = row["instances"][0] if "instances" in row else row
    asked = "\n".join(part for part in (row["instruction"].strip(), (first.get("input") or "").strip()) if part)
    return [("user", asked), ("assistant", first.get("output") or first.get("response") or "")]


def play(turns: Turns) -> str:
    """The dialogue as text, empty where it is none: it has code, a turn too long, or one who speaks alone."""
    merged: Turns = []
    for who, said in turns:
        said = "\n".join(" ".join(line.split()) for line in said.split("\n") if line.strip())
        if not said:
            continue
        if merged and merged[-1][0] == who:
            said = f"{merged.pop()[1]} {said}"
        merged.append((who, said))
    while merged and merged[-1][0] == "user":  # nobody answered
        merged.pop()
    while merged and merged[0][0] == "assistant":  # nobody asked
        merged.pop(0)
    if any(len(said) > LONGEST for _, said in merged):
        return ""
    return "\n".join(f"{NAMES[who]}: {said}" for who, said in merged)


def prose(text: str) -> bool:
    return not any(mark in text for mark in CODE)


def dialogues(data: Path) -> Iterator[tuple[str, str]]:
    """(source, text) of every dialogue, in the order of the files."""
    for name in ("sgd_dialogues.jsonl.xz", "taskmaster4_coffee_toolcalls.jsonl.xz"):
        for row in rows(data / name):
            yield name, play(talk(row))
    tables: list[tuple[str, Iterable[dict[str, Any]]]] = [
        ("gpteacher_roleplay.json.xz", table(data / "gpteacher_roleplay.json.xz"))
    ]
    for name in ("selfinstruct_seed_tasks.jsonl", "selfinstruct_user_oriented_instructions.jsonl"):
        lines = (data / name).read_text(encoding="utf-8").splitlines()
        tables.append((name, [json.loads(line) for line in lines if line.strip()]))
    for name, entries in tables:
        for row in entries:
            text = play(instruction(row))
            yield name, text if prose(text) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the dialogues")
    parser.add_argument("--into", type=Path, required=True)
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    kept: Counter[str] = Counter()
    left: Counter[str] = Counter()
    seen: set[str] = set()
    size = 0
    with (given.into / "dialogues.jsonl").open("w", encoding="utf-8") as out:
        for name, text in dialogues(given.data):
            if not text or text in seen:
                left[name] += 1
                continue
            seen.add(text)
            kept[name] += 1
            size += len(text.encode())
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    for name in sorted(kept | left):
        print(f"{name}: {kept[name]} kept, {left[name]} left out")
    print(f"{sum(kept.values())} dialogues, {size} bytes")


if __name__ == "__main__":
    main()
