"""The files of tasks, as their authors publish them: JSON lines, JSON, CSV; plain, .gz, .xz, or in a .tar.xz."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twofile.errors import NotFoundError, TaskError

__all__ = ["find", "json_of", "lines_of", "members", "table_of"]


def find(folder: Path, *names: str) -> Path:
    """The first of these files that the folder, or a folder in it, has. NotFoundError names what was looked for."""
    if folder.is_file():
        return folder
    for name in names:
        for path in (folder / name, *sorted(folder.glob(f"*/{name}"))):
            if path.exists():
                return path
    wanted = " or ".join(names)
    raise NotFoundError(f"{folder} has no {wanted}", "--data names the folder of the task's files")


def text_of(path: Path) -> str:
    """The text of a file. TaskError where it cannot be read."""
    try:
        data = path.read_bytes()
        if path.suffix in (".gz", ".xz"):
            data = (gzip if path.suffix == ".gz" else lzma).decompress(data)
        return data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise TaskError(f"{path} cannot be read ({error})") from error


def members(path: Path, ending: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each file that ends so, in a folder or a tar archive, in the order of their names."""
    if path.is_dir():
        for one in sorted(path.rglob(f"*{ending}")):
            yield one.relative_to(path).as_posix(), text_of(one)
        return
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                if member.name.endswith(ending) and (file := archive.extractfile(member)) is not None:
                    yield member.name, file.read().decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, tarfile.TarError, lzma.LZMAError) as error:
        raise TaskError(f"{path} cannot be read ({error})") from error


def lines_of(text: str, what: str) -> list[Any]:
    """The objects of JSON lines. TaskError names the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise TaskError(f"{what}, line {number}: {error}") from error
    return found


def json_of(path: Path) -> Any:
    """A JSON file. TaskError where it is none."""
    try:
        return json.loads(text_of(path))
    except ValueError as error:
        raise TaskError(f"{path}: {error}") from error


def table_of(text: str) -> list[list[str]]:
    """The rows of a CSV."""
    return list(csv.reader(io.StringIO(text)))
