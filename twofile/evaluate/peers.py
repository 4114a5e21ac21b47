"""What compressors that know nothing make of the same bytes: xz -9, zstd -19, brotli.

xz comes with Python. The others are used where they are: the package (`zstandard`, `brotli`), else the command. Each at
the level that is named, which for a small file is about the best it can do; the size is that of its own file format.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["peers"]


def peers(data: bytes) -> dict[str, int | None]:
    """Bytes that each needs; None where it is not installed. Takes seconds for some megabytes."""
    return {
        "xz -9": len(lzma.compress(data, preset=9)),
        "zstd -19": _size(
            data, "zstandard", lambda zstd: zstd.ZstdCompressor(level=19).compress(data), "zstd -19 -q -c"
        ),
        "brotli -q 11": _size(data, "brotli", lambda brotli: brotli.compress(data, quality=11), "brotli -q 11 -c"),
    }


def _size(data: bytes, package: str, compress: Callable[[Any], bytes], command: str) -> int | None:
    with suppress(ImportError):
        return len(compress(import_module(package)))
    program, *flags = command.split()
    if shutil.which(program) is None:
        return None
    return len(subprocess.run([program, *flags], input=data, stdout=subprocess.PIPE, check=True).stdout)
