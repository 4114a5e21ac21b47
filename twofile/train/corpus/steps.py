"""The steps of a corpus's pipeline that are twofile's own; the others are datatrove's.

A step is copied to every task, so it holds settings and counts only; what a task finds, it writes into the folder that
it was given, under its rank. Reading is our own (`reading`) because datatrove's readers go on, with a remark in the
log, behind a line or a file that is damaged.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.readers.base import BaseReader

from twofile.params.atomic import atomic_path, write_json
from twofile.train.corpus import overlap
from twofile.train.corpus import sources as corpus
from twofile.train.corpus.reading import File, texts
from twofile.train.corpus.sources import Source

__all__ = [
    "Between",
    "Clusters",
    "Index",
    "Marks",
    "Reading",
    "Signatures",
    "Split",
    "Tally",
    "evaluation_sets",
    "row",
    "train_files",
]

Documents = Iterator[Document]


class Reading(BaseReader):  # type: ignore[misc]
    """The documents of the files that fall to a task, cleaned; notes each file's size and checksum."""

    name = "twofile"

    def __init__(self, files: list[tuple[Source, File]], notes: Path, keep: bool) -> None:
        super().__init__()
        self.files, self.notes, self.keep = files, notes, keep

    def run(self, data: Documents | None = None, rank: int = 0, world_size: int = 1) -> Documents:
        read = []
        for source, file in self.files[rank::world_size]:
            with file.here(keep=self.keep) as path:
                read.append([source.name, file.name, file.size, file.checksum()])
                for i, text in enumerate(corpus.raw(source, path)):
                    yield Document(text=text, id=f"{file.name}:{i}", metadata={"source": source.name})
        self.notes.mkdir(parents=True, exist_ok=True)
        write_json(self.notes / f"{rank:05d}.json", read)


class Tally(PipelineStep):  # type: ignore[misc]
    """Counts documents and bytes that pass, by source."""

    type = "twofile"

    def __init__(self, after: str) -> None:
        self.name = after
        super().__init__()

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        for document in data:
            self.count(document, document.metadata["source"])
            yield document

    def count(self, document: Document, key: str) -> None:
        self.stat_update(f"documents {key}")
        self.stat_update(f"bytes {key}", value=len(document.text.encode()), unit="bytes")


class Split(Tally):
    """Says of each document on which side it is, by the share that its source holds out, and counts both sides."""

    def __init__(self, held_out: dict[str, float]) -> None:
        super().__init__("split")
        self.held_out = held_out

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        for document in data:
            source = document.metadata["source"]
            side = "held_out" if corpus.fraction(document.text) < self.held_out[source] else "train"
            document.metadata["side"] = side
            self.count(document, f"{side} {source}")
            yield document


def row(_: Any, document: Document) -> dict[str, Any]:
    """A document as it stands in a corpus folder."""
    return {"text": document.text, "id": document.id}


class Signatures(MinhashDedupSignature):  # type: ignore[misc]
    """datatrove's, in memory that a long document does not multiply by the number of hashes."""

    def get_signature(self, shingles: Any) -> list[list[int]]:
        signature = super().get_signature
        parts = [signature(shingles[i : i + 4096]) for i in range(0, len(shingles), 4096)]
        return [[min(hashes) for hashes in zip(*bucket, strict=True)] for bucket in zip(*parts, strict=True)]


class Between(JsonlReader):  # type: ignore[misc]
    """datatrove's reader of what a stage left for the next, which may be nothing."""

    def run(self, data: Documents | None = None, rank: int = 0, world_size: int = 1) -> Documents:
        if self.data_folder.list_files():
            yield from super().run(data, rank, world_size)


class Clusters(MinhashDedupCluster):  # type: ignore[misc]
    """datatrove's, without its progress bar."""

    def run(self, data: Documents | None = None, rank: int = 0, world_size: int = 1) -> None:
        with redirect_stderr(io.StringIO()):
            super().run(data, rank, world_size)


def train_files(folder: Path) -> list[Path]:
    """The training side of a corpus folder."""
    return sorted((folder / "texts").glob("*/train/*"))


def evaluation_sets(checks: list[tuple[Source, File]], folder: Path) -> dict[str, Iterator[str]]:
    """What a corpus must not contain: the evaluation files that were named, and what it holds out itself."""
    sets: dict[str, Iterator[str]] = {}
    files = Counter(source.name for source, _ in checks)
    for source, file in checks:
        name = source.name if files[source.name] == 1 else f"{source.name}: {file.name}"
        sets[name] = _all(source, file)
    for held_out in sorted((folder / "texts").glob("*/held_out")):
        sets[f"{held_out.parent.name}, held out"] = (
            text for path in sorted(held_out.iterdir()) for text in texts(path)
        )
    return sets


def _all(source: Source, file: File) -> Iterator[str]:
    with file.here() as path:
        yield from corpus.raw(source, path)


class Index(PipelineStep):  # type: ignore[misc]
    """The runs of words of all evaluation sets, in one task."""

    type, name = "twofile", "index of the evaluation sets"

    def __init__(self, checks: list[tuple[Source, File]], folder: Path, into: Path) -> None:
        super().__init__()
        self.checks, self.folder, self.into = checks, folder, into

    def run(self, data: Documents | None = None, rank: int = 0, world_size: int = 1) -> None:
        self.into.mkdir(parents=True, exist_ok=True)
        sets = evaluation_sets(self.checks, self.folder)
        _save(self.into / "index.npy", overlap.index(sets.values()))


class Marks(PipelineStep):  # type: ignore[misc]
    """Which of those runs occur in the training files that fall to a task."""

    type, name = "twofile", "contamination check"

    def __init__(self, folder: Path, into: Path) -> None:
        super().__init__()
        self.folder, self.into = folder, into

    def run(self, data: Documents | None = None, rank: int = 0, world_size: int = 1) -> None:
        known = np.load(self.into / "index.npy")
        seen = np.zeros(len(known), np.bool_)
        if len(known):
            for path in train_files(self.folder)[rank::world_size]:
                for text in texts(path):
                    overlap.mark(text, known, seen)
        _save(self.into / f"{rank:05d}.npy", np.packbits(seen))


def _save(path: Path, array: Any) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
