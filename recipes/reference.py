"""Dictionary and factbook as plain documents, for pretraining: JSON lines with a `text`.

    python recipes/reference.py --data DATA --into FOLDER

Writes `definitions.jsonl` (WordNet: a word, what it means, an example) and `countries.jsonl` (the World Factbook: a
country and its shorter facts, one a line). The standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
LONGEST = 400  # characters of a fact: longer ones are tables


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def definition(row: dict[str, Any]) -> str:
    """One meaning as a person would say it."""
    first, *others = row["w"]
    also = f" (also {', '.join(others)})" if others else ""
    text = f"What does the {KINDS[row['pos'].split('.')[0]]} {first}{also} mean? It means: {row['def']}."
    examples = "; ".join(f'"{example}"' for example in row["ex"][:2])
    return f"{text} For example: {examples}." if examples else text


def country(row: dict[str, Any]) -> str:
    """The shorter facts of a country, one a line."""
    name = row["country"] or "The world"
    facts = [(key.split(" > "), " ".join(str(value).split())) for key, value in row["facts"]]
    lines = [f"{', '.join(key[1:] or key)}: {value}" for key, value in facts if 0 < len(value) <= LONGEST]
    return "\n".join([f"Facts about {name}", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the texts")
    parser.add_argument("--into", type=Path, required=True)
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    for source, target, write in (
        ("wordnet_definitions.jsonl.xz", "definitions.jsonl", definition),
        ("cia_factbook.jsonl.xz", "countries.jsonl", country),
    ):
        with (given.into / target).open("w", encoding="utf-8") as out:
            for row in rows(given.data / source):
                out.write(json.dumps({"text": write(row)}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
