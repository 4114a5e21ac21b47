"""Documents, from files to a stream.

A corpus is a list of `Source`s: text files, JSON lines, CSV and parquet tables, each plain, `.gz`, `.xz` or `.zst`,
named by a path, a glob, a folder, or `hf:datasets/user/repo`. Guarantees: the same files give the same documents in the
same order; whether a document is held out depends on its own text alone, so an exact copy never lies on both sides;
memory is bounded by the largest document, and that by `reading.LONGEST`.

A folder that `twofile corpus` wrote (`refine`) has been cleaned and split already: each of its sources is a folder with
`train` and `held_out`, and is read as it lies.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twofile.errors import NotFoundError, TrainError
from twofile.train.corpus import hub
from twofile.train.corpus.reading import KINDS, File, kind, texts

__all__ = [
    "CARD",
    "COMPARE",
    "WORK",
    "Document",
    "Source",
    "both",
    "cards",
    "clean",
    "copies",
    "documents",
    "files",
    "fraction",
    "ignored",
    "named",
    "raw",
    "sha256",
    "sources",
    "stamp",
]

CARD = "card.json"
WORK = "work"
"""What a refined corpus has in its folder: the one when it is complete, the other before and after."""
COMPARE = "compare with recipes/bundled.toml"
"""The hint for a recipe that cannot be read."""


@dataclass(frozen=True)
class Document:
    """One text and the name of the source that it came from."""

    text: str
    source: str


@dataclass(frozen=True)
class Source:
    """Where documents come from and how many of them to use. TrainError for a name that cannot be a file's."""

    path: (
        str  # a path, a glob or a folder, relative to the folder that the caller names; or hf:datasets/user/repo[:glob]
    )
    name: str  # letters, digits, _ and -
    share: float = 1.0  # how often a document is used: 2 twice, 0.25 a quarter of the documents, 0 only to validate
    held_out: float = 0.02  # fraction of documents kept for validation
    licence: str = ""
    attribution: str = ""
    column: str = "text"  # JSON lines, CSV and parquet
    split: str = ""  # text files: a regular expression between documents; empty: a file is one document
    drop: Mapping[str, str] = field(default_factory=dict)  # field -> pattern of the rows to leave out
    clean: bool = False  # mend mojibake, and make it plain typewriter text: quotes, spaces, no indentation

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            hint = f"call it {_slug(self.name)}"
            raise TrainError(f"a source's name is made of letters, digits, _ and -, so {self.name!r} is none", hint)
        for pattern in (self.split, *self.drop.values()):
            try:
                re.compile(pattern)
            except re.error as error:
                raise TrainError(f"{pattern!r} is no regular expression: {error}", r"write \( for a bracket") from None


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


def files(source: Source, folder: Path, side: str = "") -> list[File]:
    """The files of a source, sorted; `side`: only those of one side, where they lie apart. TrainError where none is."""
    if source.path.startswith("hf:"):
        return hub.listing(source.path)
    root = folder / source.path
    if _is_split(source, folder):
        found = sorted(path for path in root.glob(f"{side or '*'}/*") if path.is_file())
        return [File(f"{root.name}/{path.parent.name}/{path.name}", path) for path in found]
    if root.is_dir():
        inside = (path for path in root.rglob("*") if path.is_file() and kind(path.name))
        found = sorted(path for path in inside if not any(part[0] == "." for part in path.relative_to(root).parts))
    else:
        found = sorted(Path(name) for name in glob.glob(str(root), recursive=True) if Path(name).is_file())
    if not found:
        what = f"no text ({', '.join(KINDS)})" if root.is_dir() else "no file"
        message = f"source {source.name}: {what} matches {source.path} in {folder}"
        raise TrainError(message, "check `path` in the recipe, and the data folder")
    above = os.path.commonpath([path.parent for path in found])
    return [File(path.relative_to(above).as_posix(), path) for path in found]


def _card(source: Source, folder: Path) -> Path:
    """Where the card is, if the source is one of a refined corpus."""
    return (folder / source.path).parent.parent / CARD


def _is_split(source: Source, folder: Path) -> bool:
    card = _card(source, folder)
    return (folder / source.path).parent.name == "texts" and not source.path.startswith("hf:") and card.is_file()


def cards(sources: Iterable[Source], folder: Path) -> dict[str, Any]:
    """The cards of the refined corpora that these sources belong to, by the corpora's folders."""
    found = {str(Path(source.path).parent.parent): source for source in sources if _is_split(source, folder)}
    return {name: json.loads(_card(source, folder).read_text(encoding="utf-8")) for name, source in found.items()}


def ignored(source: Source, folder: Path) -> list[str]:
    """The options of a source that say nothing, since it belongs to a corpus that is cut and split already."""
    if not _is_split(source, folder):
        return []
    plain = Source(source.path, source.name)
    as_split = json.loads(_card(source, folder).read_text(encoding="utf-8"))["held_out"]
    given = [name for name in ("held_out", "column", "split", "drop") if getattr(source, name) != getattr(plain, name)]
    return [name for name in given if name != "held_out" or source.held_out != as_split]


def raw(source: Source, path: Path) -> Iterator[str]:
    """The documents of a file, of both sides: its texts, cleaned where the source says so, without empty ones."""
    for text in texts(path, column=source.column, split=source.split, drop=source.drop):
        text = clean(text) if source.clean else text
        if text.strip():
            yield text


def fraction(text: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256((salt + text).encode()).digest()[:8], "big") / 2**64


def both(source: Source, folder: Path) -> Iterator[tuple[Document, bool]]:
    """The documents of a source in one reading, each with whether it is held out."""
    if _is_split(source, folder):
        for side in (True, False):
            yield from ((document, side) for document in documents(source, folder, held_out=side))
    else:
        for document in _read(source, files(source, folder)):
            yield document, fraction(document.text) < source.held_out


def documents(source: Source, folder: Path, *, held_out: bool = False) -> Iterator[Document]:
    """The documents of one side of a source, in file order, each once (`share` is for the packer)."""
    if _is_split(source, folder):
        as_written = replace(source, column="text", split="", drop={})
        return _read(as_written, files(source, folder, "held_out" if held_out else "train"))
    return (document for document, side in both(source, folder) if side == held_out)


def _read(source: Source, found: Iterable[File]) -> Iterator[Document]:
    for file in found:
        with file.here() as path:
            for text in raw(source, path):
                yield Document(text, source.name)


def copies(document: Document, share: float) -> int:
    """How often a document is used at this share: 2.25 is twice, and a third time for a quarter of the documents."""
    return int(share) + (fraction(document.text, "share") < share - int(share))


def sha256(source: Source, folder: Path) -> str:
    """One hash over the files of a source, as they lie on disk; of files on a hub, over their paths and checksums."""
    digest = hashlib.sha256()
    for file in files(source, folder):
        if file.remote is not None:
            digest.update(f"{file.remote.path} {file.remote.checksum}\n".encode())
            continue
        with file.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def stamp(source: Source, folder: Path) -> str:
    """A hash over the files' names, sizes and times (on a hub, checksums): as long as it stays, so do the texts."""
    told = [
        [str(file.path), file.size, file.remote.checksum if file.remote else file.path.stat().st_mtime_ns]
        for file in files(source, folder)
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def sources(table: list[dict[str, Any]]) -> list[Source]:
    """The `[[source]]` tables of a recipe. TrainError for an unknown or missing key, or a name used twice."""
    result = []
    for entry in table:
        try:
            result.append(Source(**entry))
        except TypeError as error:
            hint = "see the fields of Source in twofile/train/corpus/sources.py"
            raise TrainError(f"recipe, source {entry.get('name', '?')}: {error}", hint) from error
    if len({source.name for source in result}) < len(result):
        raise TrainError("recipe: two sources have the same name")
    return result


def named(names: Iterable[str], **options: Any) -> list[Source]:
    """Sources for what a person typed: files, globs, folders, refined corpora, datasets, recipes (.toml).

    `options` are fields of Source, for all but those that say themselves what they are (recipes and refined corpora).
    A path is made absolute, and each source gets a name of its own. NotFoundError for a path that leads nowhere."""
    result: list[Source] = []
    for name in names:
        path = Path(name).expanduser().absolute()
        if name.startswith("hf:"):
            found = [Source(name, _slug(hub.Dataset.parse(name).repo), **options)]
        elif (path / CARD).is_file():
            found = _refined(path)
        elif (path / WORK).is_dir():
            raise TrainError(
                f"{name} is a corpus that is not finished", f"twofile corpus ... --into {name}   (goes on)"
            )
        elif name.endswith(".toml"):
            found = _recipe(path)
        elif path.exists():
            found = [Source(glob.escape(str(path)) if path.is_file() else str(path), _stem(path), **options)]
        elif glob.has_magic(name):
            found = [Source(str(path), _stem(path.parent), **options)]
        else:
            raise NotFoundError(
                f"{name} does not exist", "give files, folders, globs in quotes, or hf:datasets/user/repo"
            )
        for source in found:
            result.append(_apart(source, {other.name for other in result}))
    return result


def _stem(path: Path) -> str:
    return _slug(path.name.split(".")[0] if path.suffix else path.name)


def _slug(name: str) -> str:
    """A name for a source, fit to be a file's."""
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "texts"


def _apart(source: Source, taken: set[str]) -> Source:
    name, count = source.name, 1
    while name in taken:
        count += 1
        name = f"{source.name}-{count}"
    return replace(source, name=name)


def _refined(folder: Path) -> list[Source]:
    """The sources of a folder that `twofile corpus` wrote."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return [
        Source(
            path=str(folder / "texts" / entry["name"]),
            name=_slug(entry["name"]),
            share=entry["share"],
            licence=entry["licence"],
            attribution=entry["attribution"],
            held_out=card["held_out"],
            clean=False,
        )
        for entry in card["sources"]
        if (folder / "texts" / entry["name"]).is_dir()
    ]


def _recipe(path: Path) -> list[Source]:
    try:
        return sources(tomllib.loads(path.read_text(encoding="utf-8"))["source"])
    except OSError as error:
        raise NotFoundError(f"the recipe {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise TrainError(f"the recipe {path.name}: {error}", COMPARE) from error
