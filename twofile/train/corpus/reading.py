"""The texts of one file, whatever its format and packing, in memory that does not grow with the file.

Text (.txt, .md, .tokens), JSON lines, CSV with a header, and parquet; each plain, .gz, .xz or .zst; UTF-8. Guarantees:
the same file gives the same texts in the same order; a damaged or truncated file is an error, never a shorter file; no
text is longer than `LONGEST` characters. Memory: a few copies of the longest text, and of the largest row of a table
(of parquet: `ROWS` rows, and a part of a row group). A longer text is cut into pieces, at a blank line where there is
one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from twofile.errors import TrainError
from twofile.params.checksum import file_sha256
from twofile.params.pull import Remote, fetch

__all__ = ["KINDS", "LONGEST", "PACKINGS", "File", "kind", "pieces", "texts"]

KINDS = (".txt", ".md", ".tokens", ".jsonl", ".csv", ".parquet")
PACKINGS = (".gz", ".xz", ".zst")
LONGEST = 1 << 20
"""Characters of the longest text: about 200,000 words; a long novel is cut in two."""
ROWS = 64
"""Rows of a parquet file that are in memory at once."""

_BLOCK = 1 << 18
_MARGIN = 1 << 16  # a separator, and what it looks at, is at most so long
_LARGEST_FIELD = 1 << 28  # of a CSV file: an open quote must not swallow what is left of it


@dataclass(frozen=True)
class File:
    """A file of a source: one that is here, or one on a hub that comes when it is opened."""

    name: str  # for people: in errors and in the card
    path: Path  # where it lies, or will lie
    remote: Remote | None = None

    @contextmanager
    def here(self, *, keep: bool = True) -> Iterator[Path]:
        """The path of the file, downloaded first where need be; `keep=False` removes a download after the block."""
        fetched = self.remote is not None and not self.path.exists()
        if self.remote is not None and fetched:
            fetch(self.remote, self.path)
        yield self.path
        if fetched and not keep:  # what was there before is another's
            self.path.unlink()

    @property
    def size(self) -> int:
        """In bytes, as it lies on the disk or on the hub."""
        return self.path.stat().st_size if self.remote is None else self.remote.size

    def checksum(self) -> str:
        """sha256; for a small file on a hub its git object id, which is what the hub names and what is checked."""
        if self.remote is not None:
            return self.remote.checksum
        return file_sha256(self.path)


def kind(name: str) -> str:
    """The suffix that says the format, below that of a packing; empty where the file cannot be read."""
    path = Path(name)
    suffix = Path(path.stem).suffix if path.suffix in PACKINGS else path.suffix
    return suffix if suffix in KINDS else ""


def texts(path: Path, *, column: str = "text", split: str = "", drop: Mapping[str, str] | None = None) -> Iterator[str]:
    """The texts of a file: of a table one a row, of a text file one between two matches of `split` (empty: one in all).

    Rows of which a field matches its pattern in `drop` are left out, and rows whose text is null. TrainError names the
    file, and where it can the line."""
    try:
        if kind(path.name) in (".txt", ".md", ".tokens"):
            with _text(path) as stream:
                yield from pieces(stream, split)
        elif kind(path.name):
            for text in map(_whole, _column(path, column, drop or {})):
                yield from (text,) if len(text) <= LONGEST else pieces(io.StringIO(text))
        else:
            hint = f"give {', '.join(KINDS)}, plain or {', '.join(PACKINGS)}"
            raise TrainError(f"{path.name}: not a format that can be read", hint)
    except _errors(path) as error:
        raise TrainError(f"{path.name}: cannot be read ({error})") from error


def pieces(stream: IO[str], split: str = "", longest: int | None = None) -> Iterator[str]:
    """What stands between the matches of `split`, and no more than `longest` characters [LONGEST] at once.

    As `re.split` would cut the whole, for separators of up to 65,536 characters with what they look at."""
    longest = longest or LONGEST
    pattern = re.compile(split) if split else None
    text, start, seen, ended = "", 0, 0, False  # the piece begins at `start`; no separator begins before `seen`
    while not ended:
        block = stream.read(_BLOCK)
        ended = not block
        before = max(0, start - _MARGIN)  # kept, since a separator may look back
        text, start, seen = text[before:] + block, start - before, seen - before
        if pattern:
            sure = len(text) if ended else len(text) - _MARGIN
            begin, seen = seen, sure
            for match in pattern.finditer(text, begin):
                if match.end() > sure:  # with more text it might be longer, or none
                    seen = match.start()
                    break
                yield text[start : match.start()]
                start = match.end()
        while len(text) - start > longest:
            cut = _cut(text, start + longest // 2, start + longest)
            yield text[start:cut]
            start = cut
        seen = max(start, seen)
    yield text[start:]


def _cut(text: str, low: int, high: int) -> int:
    """The best place to cut between two positions: after a blank line, a line, a word, or anywhere."""
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, low, high)
        if found >= 0:
            return found + len(mark)
    return high


def _unpacked(path: Path) -> IO[bytes]:
    if path.suffix == ".zst":
        return cast(IO[bytes], _zstd().open(path, "rb"))
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    return cast(IO[bytes], opener(path, "rb"))


def _text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(_unpacked(path), encoding="utf-8-sig", errors="strict", newline=newline)


def _zstd() -> Any:
    """The module of the standard library, or what stands in for it before Python 3.14."""
    from importlib import import_module

    try:
        return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ModuleNotFoundError as error:
        raise TrainError("reading .zst needs backports.zstd", "pip install 'twofile[train]'") from error


def _errors(path: Path) -> tuple[type[Exception], ...]:
    """What reading this file may raise; UTF-8 and pyarrow raise kinds of ValueError."""
    common = (ValueError, OSError, EOFError, lzma.LZMAError, csv.Error)
    return (*common, _zstd().ZstdError) if path.suffix == ".zst" else common


def _column(path: Path, column: str, drop: Mapping[str, str]) -> Iterator[str]:
    patterns = {name: re.compile(pattern) for name, pattern in drop.items()}
    rows = {".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[kind(path.name)]
    for row in rows(path, [column, *drop]):
        if any(pattern.search(str(row.get(name, ""))) for name, pattern in patterns.items()):
            continue
        text = row.get(column, 0)
        if isinstance(text, str):
            yield text
        elif text is not None:
            message = f"{path.name}: a row has no text in column {column!r}; it has {', '.join(map(str, row))}"
            raise TrainError(message, "set --column, or `column` in the recipe")


def _whole(text: str) -> str:
    """JSON can spell half a character (a lone surrogate), which is no text: U+FFFD stands for it."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _json_rows(path: Path, _: list[str]) -> Iterator[dict[str, Any]]:
    with _text(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise TrainError(f"{path.name}, line {number}: not JSON ({error.msg})") from error
                if not isinstance(row, dict):
                    raise TrainError(f"{path.name}, line {number}: not a JSON object")
                yield row


def _csv_rows(path: Path, _: list[str]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_LARGEST_FIELD)  # the module's own limit is 131,072, for the whole process
    with _text(path, newline="") as stream:
        yield from csv.DictReader(stream, strict=True)


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    # without `pre_buffer=False` it holds every row group that it has read
    with _unpacked(path) as stream, parquet.ParquetFile(stream, buffer_size=_BLOCK, pre_buffer=False) as table:
        present = [column for column in columns if column in table.schema_arrow.names]
        if columns[0] not in present:
            present = table.schema_arrow.names  # so that the error can name them
        for batch in table.iter_batches(batch_size=ROWS, columns=present):
            yield from batch.to_pylist()
