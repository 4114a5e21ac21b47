"""Texts that commands read beside a model: files of documents, and what of a set of texts stands in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["documents", "seen_in"]


def documents(files: Sequence[Path], split: str = "") -> Iterator[str]:
    """The documents of files (.txt, .md, .jsonl, .parquet; also .gz, .xz), one at a time."""
    import glob

    from twofile.train.corpus.sources import Source
    from twofile.train.corpus.sources import documents as read

    for file in files:
        source = Source(glob.escape(str(file.resolve())), file.stem, held_out=0.0, split=split)
        for document in read(source, Path()):
            yield document.text


def seen_in(files: Sequence[Path], texts: Sequence[str]) -> Callable[[str], bool]:
    """Whether one of `texts` has a run of 13 words that stands in the files; reads them once, now."""
    import numpy as np

    from twofile.train.corpus import overlap

    known = overlap.index([texts])
    seen = np.zeros(len(known), np.bool_)
    if len(known):
        for document in documents(files):
            overlap.mark(document, known, seen)

    def judge(text: str) -> bool:
        return overlap.touched(text, known, seen)

    return judge
