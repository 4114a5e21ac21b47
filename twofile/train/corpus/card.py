"""The card of a corpus: what was read, what was dropped and why, what is left, whose it is, and what it should not be
tested on.

`card.json` for programs, `README.md` for people; both are made from the counts that the tasks left, by the last task of
the pipeline, which also removes what only stood between two stages.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from twofile import __version__
from twofile.errors import TrainError
from twofile.params.atomic import atomic_path, write_json
from twofile.params.checksum import file_sha256
from twofile.train.corpus import overlap
from twofile.train.corpus.filters import FILTERS
from twofile.train.corpus.sources import CARD, WORK, Source
from twofile.train.corpus.steps import evaluation_sets

if TYPE_CHECKING:
    from twofile.train.corpus.reading import File
    from twofile.train.corpus.refine import Settings

__all__ = ["Card", "markdown"]

METHOD = (
    f"runs of {overlap.LENGTH} words (letters and digits, lower case) that also occur in the training text;"
    " Brown and others 2020, arXiv:2005.14165, appendix C"
)
DOUBLES = "MinHash, Broder 1997; 14 buckets of 8 hashes, runs of 5 words"


class Card(PipelineStep):  # type: ignore[misc]
    """The last step: writes the card, and removes what is no longer needed."""

    type, name = "twofile", "card"

    def __init__(self, settings: Settings, tasks: int, checks: list[tuple[Source, File]], into: Path) -> None:
        super().__init__()
        self.settings, self.tasks, self.checks, self.into = settings, tasks, checks, into

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        card = self.gather()
        if not any(source["train"]["documents"] for source in card["sources"]):
            hint = "see what dropped them: --keep-dropped; fewer filters: --filters none"
            raise TrainError(f"nothing is left of {self.into.name} to train on: {_fate(card)}", hint)
        with atomic_path(self.into / "README.md") as temporary:
            temporary.write_text(markdown(card), encoding="utf-8")
        for name in ("filtered", "signed", "matched", "doubles"):
            shutil.rmtree(self.into / WORK / name, ignore_errors=True)
        write_json(self.into / CARD, card)

    def gather(self) -> dict[str, Any]:
        """The card as a table of tables."""
        counts = _counts(self.into / WORK / "logs")
        read, split = counts["twofile: read"], counts["twofile: split"]
        files: dict[str, list[dict[str, Any]]] = {}
        for note in sorted((self.into / WORK / "files").glob("*.json")):
            for source, name, size, checksum in json.loads(note.read_text(encoding="utf-8")):
                files.setdefault(source, []).append({"name": name, "bytes": size, "checksum": checksum})
        return {
            "twofile": __version__,
            "sources": [
                {
                    "name": source.name,
                    "path": source.path,
                    "share": source.share,
                    "licence": source.licence,
                    "attribution": source.attribution,
                    "files": sorted(files.get(source.name, []), key=lambda file: file["name"]),
                    "read": _pair(read, source.name),
                    "train": _pair(split, f"train {source.name}"),
                    "held_out": _pair(split, f"held_out {source.name}"),
                }
                for source in self.settings.sources
            ],
            "language": self.settings.language,
            "dropped": self.dropped(counts),
            "held_out": self.settings.held_out,
            "tasks": self.tasks,
            "contamination": {"method": METHOD, "sets": self.contamination()},
            "texts": _hashes(self.into),
        }

    def dropped(self, counts: dict[str, Counter[str]]) -> list[dict[str, Any]]:
        """For each filter in its order, and for the search for doubles, what went in, what came out, and why."""
        before, result = counts["twofile: read"], []
        names = [*self.settings.filters, *(["dedup"] if self.settings.dedup else [])]
        for name in names:
            after = counts[f"twofile: {name}"]
            filter_ = FILTERS.get(name)
            entry: dict[str, Any] = {
                "filter": name,
                "source": filter_.source if filter_ else DOUBLES,
                "documents": _total(before, "documents") - _total(after, "documents"),
                "bytes": _total(before, "bytes") - _total(after, "bytes"),
                "reasons": _reasons(counts[f"dropped by {name}"]),
            }
            result.append(entry)
            before = after
        return result

    def contamination(self) -> list[dict[str, Any]]:
        folder = self.into / WORK / "check"
        known = np.load(folder / "index.npy")
        seen = np.zeros((len(known) + 7) // 8, np.uint8)
        for rank in range(self.tasks):
            seen |= np.load(folder / f"{rank:05d}.npy")
        marks = np.unpackbits(seen, count=len(known)).astype(np.bool_)
        found = overlap.report(evaluation_sets(self.checks, self.into), known, marks)
        return [{"set": name, **dataclasses.asdict(entry)} for name, entry in found.items()]


def _counts(logs: Path) -> dict[str, Counter[str]]:
    """What each step of all stages counted, over all tasks; of a filter under the tally that follows it."""
    result: dict[str, Counter[str]] = {}
    for path in sorted(logs.glob("*/stats/*.json")):
        before: dict[str, Any] = {}
        for step in json.loads(path.read_text(encoding="utf-8")):
            name = step["name"]
            _add(result.setdefault(name, Counter()), step["stats"])
            if name.startswith("twofile: "):
                _add(result.setdefault(f"dropped by {name.removeprefix('twofile: ')}", Counter()), before)
            before = step["stats"]
    return result


def _add(counter: Counter[str], stats: dict[str, Any]) -> None:
    for label, value in stats.items():  # datatrove writes a sum alone, or with its mean and spread
        counter[label] += int(value["total"] if isinstance(value, dict) else value)


def _pair(counts: Counter[str], key: str) -> dict[str, int]:
    return {"documents": counts[f"documents {key}"], "bytes": counts[f"bytes {key}"]}


def _total(counts: Counter[str], what: str) -> int:
    return sum(value for label, value in counts.items() if label.startswith(f"{what} "))


def _reasons(counts: Counter[str]) -> dict[str, int]:
    """Why documents were dropped, the most frequent first; and why lines were, of documents that were kept."""
    reasons = {
        label.removeprefix("dropped_"): n
        for label, n in counts.items()
        if label.startswith(("dropped_", "line-filter-"))
    }
    return dict(sorted(reasons.items(), key=lambda item: -item[1]))


def _fate(card: dict[str, Any]) -> str:
    read = sum(source["read"]["documents"] for source in card["sources"])
    fates = [f"{entry['filter']} dropped {entry['documents']:,}" for entry in card["dropped"]]
    return "; ".join([f"{read:,} documents were read", *fates])


def _hashes(into: Path) -> list[dict[str, Any]]:
    result = []
    for path in sorted((into / "texts").glob("*/*/*")):
        size = path.stat().st_size
        result.append({"name": str(path.relative_to(into)), "bytes": size, "sha256": file_sha256(path)})
    return result


def markdown(card: dict[str, Any]) -> str:
    """The card for people."""
    lines = ["# A corpus", "", f"Made by twofile {card['twofile']}. `twofile train` takes this folder as it is.", ""]
    lines += _table(
        ["source", "licence", "attribution", "read", "for training", "held out"],
        [
            [
                f"{source['name']} ({source['path']})",
                source["licence"] or "not given",
                source["attribution"],
                *(_amount(source[what]) for what in ("read", "train", "held_out")),
            ]
            for source in card["sources"]
        ],
    )
    share = f"{card['held_out']:.2%} of the documents are held out, by the hash of their text"
    lines += ["", f"{share}. Language: {card['language']}.", "", "## What was dropped", ""]
    lines += _table(
        ["filter", "dropped", "why", "rules"],
        [
            [entry["filter"], _amount(entry), ", ".join(f"{why} {n:,}" for why, n in entry["reasons"].items()), rules]
            for entry in card["dropped"]
            for rules in [entry["source"]]
        ],
    )
    lines += ["", "## Contamination", "", f"Method: {card['contamination']['method']}.", ""]
    lines += _table(
        ["evaluation set", "documents", "too short to judge", "with any run", "more than half", "runs found"],
        [
            [
                f"{entry['set']}{' (its beginning)' if entry['cut'] else ''}",
                *(f"{entry[what]:,}" for what in ("documents", "short", "touched", "copied")),
                f"{entry['found']:,} of {entry['runs']:,}",
            ]
            for entry in card["contamination"]["sets"]
        ],
    )
    lines += [
        "",
        "Checksums of all files that were read and written, and the hashes of touched documents: `card.json`.",
        "",
    ]
    return "\n".join(lines)


def _amount(entry: dict[str, Any]) -> str:
    return f"{entry['documents']:,} documents, {entry['bytes']:,} bytes"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return ["Nothing."]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells]]
