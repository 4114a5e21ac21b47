"""A folder that was granted: what is opened through it lies in it, whatever changes meanwhile.

Nothing is checked first and opened afterwards. A path is opened part by part beneath a handle of the folder, in one
call of the kernel where there is `openat2`, else by a walk; links are not followed and `..` is refused, so that what is
opened is what its path says. Only plain files are read: what was opened is looked at before it is read, and opening
does not wait (a FIFO). A file is written beside its place, flushed, and renamed within the same handle: after a kill it
is the old or the new one. What it cannot see: a hard link is the file itself, wherever its other names are.

Names may be any bytes. `shown` writes those that could be mistaken (a line break, a control character, no UTF-8) in
quotes as JSON does, and `meant` reads that again.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from twofile.errors import ToolError

__all__ = ["Entry", "Folder", "Folders", "PathError", "meant", "shown"]

_OPENAT2 = 437  # the same on every architecture that Linux numbers by its common table
_NO_LINKS, _BENEATH = 0x04, 0x08  # RESOLVE_NO_SYMLINKS (no magic ones either), RESOLVE_BENEATH
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY)  # of a folder on the way: that it can be read is not needed
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_DEPTH = 200  # folders within one another
_WORDS = {
    errno.ENOENT: "there is no such file",
    errno.EACCES: "there is no permission",
    errno.EPERM: "there is no permission",
    errno.ELOOP: "a link is on the way, and links are not followed",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "it is a folder",
    errno.ENXIO: "it is no plain file",
    errno.ENAMETOOLONG: "a name is too long",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EROFS: "it cannot be written to",
}


class PathError(ValueError):
    """What cannot be done with a path. `reason`: why, without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{shown(path) or 'the folder'}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """Something in a folder. `kind`: "file", "folder", "link" or "other"; `size` in bytes; times in nanoseconds."""

    name: str
    kind: str
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, name: str, found: os.stat_result) -> Entry:
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
        kind = kinds.get(stat.S_IFMT(found.st_mode), "other")
        return cls(name, kind, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Folder:
    """A granted folder, by its real path. Raises ToolError where there is none. Every method raises PathError, in
    words for a person, for what cannot be done; paths are relative to the folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = os.path.realpath(os.path.expanduser(path))
        if not os.path.isdir(self.path):
            raise ToolError(f"{path} is no folder", f"mkdir -p {path}")

    @contextmanager
    def opened(self, path: str) -> Iterator[tuple[int, os.stat_result]]:
        """A plain file to read from: its handle and what it is."""
        with self._root() as root, _said(path):
            handle = _beneath(root, _parts(path), _READ)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                kind = "it is a folder" if stat.S_ISDIR(found.st_mode) else "it is no plain file"
                raise PathError(path, kind)
            yield handle, found
        finally:
            os.close(handle)

    def entries(self, path: str, most: int) -> list[Entry]:
        """What is in a folder, links as links; `most`: names that are looked at."""
        found: list[Entry] = []
        with self._root() as root, _said(path):
            handle = _beneath(root, _parts(path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                with os.scandir(handle) as names:
                    for one in names:
                        if len(found) == most:
                            break
                        with suppress(FileNotFoundError):  # gone meanwhile
                            found.append(Entry.of(one.name, one.stat(follow_symlinks=False)))
            finally:
                os.close(handle)
        return sorted(found, key=lambda one: one.name)

    def write(self, path: str, data: bytes) -> bool:
        """Write a whole file, and the folders that it needs; whether there was none of its name."""
        *above, name = _parts(path) or [""]
        if not name:
            raise ValueError("a folder cannot be written to as a file")
        with self._root() as root, _said(path):
            folder = _made(root, above)
            try:
                return _replace(folder, name, data)
            finally:
                os.close(folder)

    @contextmanager
    def _root(self) -> Iterator[int]:
        """The folder itself, opened from the root of the file system: none of its parents may have become a link."""
        with _said(self.path):
            slash = os.open("/", _SEARCH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                handle = _beneath(slash, [part for part in self.path.split("/") if part], _SEARCH | os.O_DIRECTORY)
            finally:
                os.close(slash)
        try:
            yield handle
        finally:
            os.close(handle)


class Folders:
    """Granted folders, each with a name: that of the folder, and a number where two have the same."""

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self.named: dict[str, Folder] = {}
        for folder in {folder.path: folder for folder in map(Folder, paths)}.values():
            plain = os.path.basename(folder.path) or "root"
            numbered = (f"{plain}-{n}" for n in range(2, len(self.named) + 3))
            self.named[next(name for name in (plain, *numbered) if name not in self.named)] = folder

    def find(self, path: str) -> tuple[Folder, str]:
        """The folder that a path lies in, and the path within it. A path is absolute, or begins with the name of a
        folder, or, where there is but one, lies in that. ValueError for others."""
        path = meant(path)
        _parts(path)
        if path.startswith("/"):
            whole = "/" + "/".join(_parts(path))
            inside = [one for one in self.named.values() if (whole + "/").startswith(one.path.rstrip("/") + "/")]
            if not inside:
                raise ValueError(f"{shown(path)} lies in no folder that is granted; {self.known}")
            folder = max(inside, key=lambda one: len(one.path))
            return folder, whole[len(folder.path.rstrip("/")) + 1 :]
        first, *rest = _parts(path) or [""]
        if first in self.named:
            return self.named[first], "/".join(rest)
        if len(self.named) == 1:
            return next(iter(self.named.values())), "/".join(_parts(path))
        raise ValueError(f"{shown(path)} lies in no folder that is granted; {self.known}")

    @property
    def known(self) -> str:
        """Which there are, in words."""
        return f"there are: {', '.join(map(shown, self.named))}" if self.named else "none is granted"


def shown(name: str) -> str:
    """A name as it is written in a line of text."""
    if name.isprintable() and '"' not in name[:1] and name == name.strip():
        return name
    return json.dumps(name)


def meant(name: str) -> str:
    """The name that was written so."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        with suppress(ValueError):
            found = json.loads(name)
            if isinstance(found, str):
                return found
    return name


def _parts(path: str) -> list[str]:
    """The names of a path. ValueError where one of them is none."""
    if "\0" in path:
        raise ValueError("a path has no character of the number zero")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathError(path, "a path here has no '..'")
    if len(parts) > _DEPTH:
        raise PathError(path, "it is too deep")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("a path has no half of a character") from None
    return parts


@contextmanager
def _said(path: str) -> Iterator[None]:
    """An error of the system, in words."""
    try:
        yield
    except OSError as error:
        raise PathError(path, _WORDS.get(error.errno or 0) or os.strerror(error.errno or 0)) from error


def _beneath(folder: int, parts: Sequence[str], flags: int) -> int:
    """Open what lies beneath a folder, following no link."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if (call := _openat2()) is not None and len(os.fsencode("/".join(parts))) < 4000:
        how = (ctypes.c_uint64 * 3)(flags, 0, _NO_LINKS | _BENEATH)
        name = os.fsencode("/".join(parts) or ".")
        while True:
            handle = call(_OPENAT2, folder, ctypes.c_char_p(name), how, ctypes.c_size_t(24))
            if handle >= 0:
                return int(handle)
            if (number := ctypes.get_errno()) not in (errno.EINTR, errno.EAGAIN):
                raise OSError(number, os.strerror(number))
    *above, last = parts or ["."]
    held = os.dup(folder)
    try:
        for part in above:
            held = _into(held, part)
        return os.open(last, flags, dir_fd=held)
    finally:
        os.close(held)


def _into(folder: int, name: str) -> int:
    """The folder within; the handle of the one above is let go of."""
    inner = os.open(name, _SEARCH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    os.close(folder)
    return inner


@functools.cache
def _openat2() -> ctypes._NamedFuncPointer | None:
    """The call, where this kernel has it and lets it be used."""
    try:
        call = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    if not hasattr(os, "O_PATH"):  # another system, where the number means something else
        return None
    call.restype = ctypes.c_long
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, _NO_LINKS | _BENEATH)
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = call(_OPENAT2, slash, ctypes.c_char_p(b"."), how, ctypes.c_size_t(24))
    finally:
        os.close(slash)
    if handle < 0:
        return None
    os.close(handle)
    return call


def _made(root: int, parts: Sequence[str]) -> int:
    """The folder at this path, made where it is missing."""
    held = os.dup(root)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=held)
            held = _into(held, part)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
    finally:
        os.close(held)


def _replace(folder: int, name: str, data: bytes) -> bool:
    """Put a file in a place; whether there was none before."""
    try:
        before = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise PathError(name, "it is no plain file, and is not replaced")
    if before is not None and not before.st_mode & 0o222:
        raise PathError(name, "it is read-only")
    temporary = f".{secrets.token_hex(8)}.part"
    handle = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder
    )
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            if before is not None:
                os.fchmod(handle, stat.S_IMODE(before.st_mode) & 0o777)
            os.fsync(handle)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)
    return before is None
