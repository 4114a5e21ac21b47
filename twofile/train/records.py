"""JSON objects of a file, one at a time: JSON lines, or one JSON array, plain, .gz or .xz.

Guarantee: a line that is no JSON is an error that names it, never a shorter file. Cost: one line in memory at a time;
of an array, which begins with `[`, all of it.
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from twofile.errors import TrainError

__all__ = ["read_records"]

_OPEN: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
_BAD = (ValueError, TypeError, AttributeError, KeyError, RecursionError)  # what decoding strange JSON can raise
Record = TypeVar("Record")


def read_records(path: Path, decode: Callable[[Any], Record], forms: str) -> Iterator[Record]:
    """What `decode` makes of each object of `path`; it raises ValueError for one that is not of the `forms`, which the
    error lists. TrainError names the file and the line, or the number in the array."""
    try:
        with _OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                if number == 1 and line.lstrip().startswith("["):
                    yield from _array(path, line + lines.read(), decode, forms)
                    return
                try:
                    found = decode(json.loads(line))
                except _BAD as error:
                    raise TrainError(f"{path.name}, line {number}: {error}", f"a line has {forms}") from error
                yield found
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise TrainError(f"{path.name}: cannot be read ({error})") from error


def _array(path: Path, text: str, decode: Callable[[Any], Record], forms: str) -> Iterator[Record]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrainError(f"{path.name}: {error}", "give JSON lines, or one JSON array") from error
    for number, row in enumerate(rows, 1):
        try:
            found = decode(row)
        except _BAD as error:
            raise TrainError(f"{path.name}, row {number}: {error}", f"a row has {forms}") from error
        yield found
