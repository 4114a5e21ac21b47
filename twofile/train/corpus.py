"""Documents, from files to a stream.

A corpus is a list of `Source`s: text files, JSON lines and parquet tables, each plain, `.gz` or `.xz`, named by a path
or a glob. Guarantees: the same files give the same documents in the same order; whether a document is held out depends
on its own text alone, so an exact copy never lies on both sides; memory is bounded by the largest document (of a text
file: by the file).
"""

import glob
import gzip
import hashlib
import json
import lzma
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from twofile.errors import TrainError

__all__ = ["Document", "Source", "clean", "copies", "documents", "files", "sha256", "sources"]


@dataclass(frozen=True)
class Document:
    """One text and the name of the source that it came from."""

    text: str
    source: str


@dataclass(frozen=True)
class Source:
    """Where documents come from and how many of them to use."""

    path: str  # a path or a glob, relative to the folder that the caller names
    name: str
    share: float = 1.0  # how often a document is used: 2 twice, 0.25 a quarter of the documents, 0 only to validate
    held_out: float = 0.02  # fraction of documents kept for validation
    licence: str = ""
    attribution: str = ""
    column: str = "text"  # JSON lines and parquet
    split: str = ""  # text files: a regular expression between documents; empty: a file is one document
    drop: Mapping[str, str] = field(default_factory=dict)  # field -> pattern of the rows to leave out
    clean: bool = True  # mend mojibake, odd spaces and curly quotes


# UTF-8 read as Windows-1252; the last byte of a closing quote is often lost, so the bare pair stands for it
_MOJIBAKE = {"â€œ": '"', "â€™": "'", "â€˜": "'", "â€”": "-", "â€“": "-", "â€¦": "...", "â€": '"', "Ã©": "é", "ã©": "é"}
_QUOTES = {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "´": "'", "…": "..."}
_PLAIN = str.maketrans(_QUOTES | {"\ufffd": "", "\ufeff": "", "\u00ad": ""})


def clean(text: str) -> str:
    """Plain typewriter text: one kind of quote, space and line end; UTF-8 that was read as Windows-1252 mended."""
    for wrong, right in _MOJIBAKE.items():
        text = text.replace(wrong, right)
    text = text.translate(_PLAIN)
    text = re.sub(r"\r\n?|[\u2028\u2029\u0085\x0b\x0c]", "\n", text)
    text = re.sub(r"[\t\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]", " ", text)
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "", text)
    text = re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def files(source: Source, folder: Path) -> list[Path]:
    """The files of a source, sorted. TrainError when there is none."""
    found = sorted(Path(name) for name in glob.glob(str(folder / source.path), recursive=True) if Path(name).is_file())
    if not found:
        message = f"source {source.name}: no file matches {source.path} in {folder}"
        raise TrainError(message, "check `path` in the recipe, and the data folder")
    return found


def _open(path: Path) -> IO[str]:
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    return cast(IO[str], opener(path, "rt", encoding="utf-8", errors="strict", newline=None))


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a JSON lines or parquet file; an unreadable one is a TrainError naming file and line."""
    if _kind(path) == ".parquet":
        import pyarrow.parquet as parquet

        unpack: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
        with unpack(path, "rb") as stream:
            table = parquet.ParquetFile(stream)
            present = [column for column in columns if column in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=256, columns=present):
                yield from batch.to_pylist()
        return
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise TrainError(f"{path.name}, line {number}: not JSON ({error.msg})") from error
                if not isinstance(row, dict):
                    raise TrainError(f"{path.name}, line {number}: not a JSON object")
                yield row


def _kind(path: Path) -> str:
    """The suffix below `.gz` and `.xz`."""
    return Path(path.stem).suffix if path.suffix in (".gz", ".xz") else path.suffix


def _texts(source: Source, path: Path) -> Iterator[str]:
    kind = _kind(path)
    if kind in (".jsonl", ".parquet"):
        for row in _rows(path, [source.column, *source.drop]):
            if any(re.search(pattern, str(row.get(key, ""))) for key, pattern in source.drop.items()):
                continue
            text = row.get(source.column)
            if not isinstance(text, str):
                message = f"{path.name}: a row has no text in column {source.column!r}"
                raise TrainError(message, "set `column` in the recipe")
            yield text
    elif kind in (".txt", ".md", ".tokens"):
        with _open(path) as stream:
            whole = stream.read()
        yield from re.split(source.split, whole) if source.split else (whole,)
    else:
        hint = "give .txt, .jsonl or .parquet, plain, .gz or .xz"
        raise TrainError(f"{path.name}: not a format that can be read", hint)


def fraction(text: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256((salt + text).encode()).digest()[:8], "big") / 2**64


def documents(source: Source, folder: Path, *, held_out: bool = False) -> Iterator[Document]:
    """The documents of one side of a source, in file order, each once (`share` is for the packer)."""
    for path in files(source, folder):
        try:
            for text in _texts(source, path):
                text = clean(text) if source.clean else text
                if text and (fraction(text) < source.held_out) == held_out:
                    yield Document(text, source.name)
        except (ValueError, lzma.LZMAError, OSError, EOFError) as error:  # pyarrow and UTF-8 raise kinds of ValueError
            raise TrainError(f"{path.name}: cannot be read ({error})") from error


def copies(document: Document, share: float) -> int:
    """How often a document is used at this share: 2.25 is twice, and a third time for a quarter of the documents."""
    return int(share) + (fraction(document.text, "share") < share - int(share))


def sha256(source: Source, folder: Path) -> str:
    """One hash over the files of a source, as they lie on disk."""
    digest = hashlib.sha256()
    for path in files(source, folder):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def sources(table: list[dict[str, Any]]) -> list[Source]:
    """The `[[source]]` tables of a recipe. TrainError for an unknown or missing key, or a name used twice."""
    result = []
    for entry in table:
        try:
            result.append(Source(**entry))
        except TypeError as error:
            hint = "see the fields of Source in twofile/train/corpus.py"
            raise TrainError(f"recipe, source {entry.get('name', '?')}: {error}", hint) from error
    if len({source.name for source in result}) < len(result):
        raise TrainError("recipe: two sources have the same name")
    return result
