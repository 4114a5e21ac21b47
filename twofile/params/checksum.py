"""What a file is known by: the sha256 of its contents. Costs one reading, about a second a gigabyte."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["file_sha256"]


def file_sha256(path: Path | str) -> str:
    """The checksum of a whole file, in hexadecimal. OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
