"""Files appear whole or not at all.

A temporary file in the same folder is filled, flushed to the disk and renamed over the target; then the folder is
flushed. After a full disk, an error or a kill the target is the old file or the new one, never a part of either. Costs
the room of both files at once, and two fsyncs. A kill leaves the temporary behind (its name starts with a dot and ends
in `.part`); an error does not.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twofile.errors import ParametersError, TwofileError

__all__ = ["atomic_path", "read_json", "write_json"]

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give the path of a temporary to write; when the block ends well, `path` is that file.

    A symbolic link is followed, so that what it names is replaced. Raises ParametersError when the disk refuses;
    other exceptions of the block pass through, and the temporary is gone."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise ParametersError(
            f"cannot write {path}: the folder {target.parent} does not exist", f"mkdir -p {target.parent}"
        )
    if target.is_dir():
        raise ParametersError(f"cannot write {path}: it is a folder")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in _DISK_ERRORS:
            raise ParametersError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as JSON for programs and people: UTF-8, a line for each entry. Errors as for `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path | str, error: type[TwofileError], hint: str = "") -> dict[str, Any]:
    """What `write_json` wrote of a mapping. Raises this error with this hint where there is none to read."""
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read ({cause})", hint) from cause
    return table


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
