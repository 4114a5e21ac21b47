"""Files of the folders that were granted: three drivers, to read a text, to write one, to see what is in a folder.

They are three because what they do differs: reading and listing change nothing and may be done twice, writing does
not. Each call names the one capability that it needs, with the real path; a folder that is granted for reading alone is
never written to. Guarantee: what is read, written and listed lies in a granted folder, whatever links there are and
whatever becomes one meanwhile (`search.folder`), and how much is bounded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twofile.kernel.driver import Context, Part
from twofile.kernel.label import Label
from twofile.tools.search.folder import Folder, Folders, meant, shown
from twofile.tools.search.readers import kind_of
from twofile.tools.search.text import decoded
from twofile.tools.search.worker import Reader

__all__ = ["ListFiles", "ReadFile", "WriteFile"]

_PROBE = 1 << 13  # bytes by which a text is told from what is none
_NAMES = 100_000  # that are looked at in a folder


class _Files:
    """What the three have in common. `folders`: those that were granted to it."""

    name: str
    about: str
    verb: str
    properties: Mapping[str, Any]
    required: tuple[str, ...] = ("path",)

    def __init__(self, folders: Iterable[Path | str]) -> None:
        self.folders = Folders(folders)

    @property
    def schema(self) -> Mapping[str, Any]:
        return {
            "type": "object",
            "properties": dict(self.properties),
            "required": list(self.required),
            "additionalProperties": False,
        }

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return (f"fs:{self.verb}:{self._real(arguments)}",)

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label.of(f"file:{self._real(arguments)}", {"user"})

    def _find(self, arguments: Mapping[str, Any]) -> tuple[Folder, str]:
        path = arguments.get("path", "")
        if not isinstance(path, str):
            raise ValueError("a path is a text")
        return self.folders.find(path)

    def _real(self, arguments: Mapping[str, Any]) -> str:
        """The path as it is without links: there are none within a granted folder that are followed."""
        folder, path = self._find(arguments)
        return os.path.join(folder.path, path) if path else folder.path


class ReadFile(_Files):
    """Reads a text, a part at a time; of a PDF or a Word file the text that is in it. `most`: bytes given at once."""

    name = "read_file"
    about = "Reads a text file of the user's folders."
    verb = "read"
    pure = True
    properties: Mapping[str, Any] = {
        "path": {"type": "string"},
        "offset": {"type": "integer", "minimum": 0, "description": "bytes of the file to leave out"},
    }

    def __init__(self, folders: Iterable[Path | str], most: int = 1 << 15) -> None:
        super().__init__(folders)
        self.most = most

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        folder, path = self._find(arguments)
        offset = arguments.get("offset", 0)
        if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < 1 << 62:
            raise ValueError("offset is a number of bytes")
        with folder.opened(path) as (handle, found):
            size = found.st_size
            if (kind := kind_of(path)) in ("pdf", "docx"):
                whole = _text(handle, kind, context)
                size, head, data = len(whole), whole[:_PROBE], whole[offset : offset + self.most]
            else:
                head = os.pread(handle, _PROBE, 0)
                data = os.pread(handle, self.most, offset)
        if offset and not data:
            raise ValueError(f"{shown(path)} has {size:,} bytes: there is nothing at {offset:,}")
        if not data:
            return ("[the file is empty]",)
        text, used = decoded(data, head, offset)
        end = offset + used
        if end < size and used:
            text += f"\n[bytes {offset:,} to {end:,} of {size:,}; go on with offset {end}]"
        return (text,)


def _text(handle: int, kind: str, context: Context) -> bytes:
    """The text of a PDF or a Word file, with its places in brackets. ValueError where it cannot be read."""
    with Reader(min(30.0, max(1.0, context.seconds - 1))) as reader:
        document = reader.read(handle, kind)
    lines = [document.title] if document.title else []
    place = ""
    for one in document.passages:
        lines += [f"[{one.place}]"] if one.place != place else []
        lines.append(one.text)
        place = one.place
    return "\n".join([*lines, *([f"[{document.note}]"] if document.note else [])]).encode()


class WriteFile(_Files):
    """Writes a whole text. `most`: bytes of it."""

    name = "write_file"
    about = "Writes a text to a file of the user's folders; what was in it is replaced."
    verb = "write"
    pure = False
    properties: Mapping[str, Any] = {"path": {"type": "string"}, "text": {"type": "string"}}
    required = ("path", "text")

    def __init__(self, folders: Iterable[Path | str], most: int = 10 << 20) -> None:
        super().__init__(folders)
        self.most = most

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        folder, path = self._find(arguments)
        text = arguments.get("text")
        if not isinstance(text, str):
            raise ValueError("what is written is a text")
        try:
            data = text.encode()
        except UnicodeEncodeError:
            raise ValueError("the text has half of a character in it, which no file can hold") from None
        if len(data) > self.most:
            raise ValueError(f"that is {len(data):,} bytes, and a file that is written has at most {self.most:,}")
        new = folder.write(path, data)
        return (f"{'wrote' if new else 'replaced'} {shown(meant(arguments['path']))}, {len(data):,} bytes",)

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label()  # what it says is made of what it was given


class ListFiles(_Files):
    """Lists a folder. `most`: names that are given."""

    name = "list_files"
    about = "Lists a folder of the user; without a path, the folders that there are."
    verb = "read"
    pure = True
    properties: Mapping[str, Any] = {"path": {"type": "string"}}
    required = ()

    def __init__(self, folders: Iterable[Path | str], most: int = 500) -> None:
        super().__init__(folders)
        self.most = most

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return super().needs(arguments) if arguments.get("path") else ()

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return super().label(arguments) if arguments.get("path") else Label.of("system", {"user"})

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        if not arguments.get("path"):
            return ("\n".join(f"{shown(name)}/" for name in self.folders.named) or "no folder is granted",)
        folder, path = self._find(arguments)
        entries = folder.entries(path, _NAMES)
        lines = []
        for one in entries[: self.most]:
            if one.kind == "file":
                day = time.strftime("%Y-%m-%d", time.gmtime(one.modified // 10**9))
                lines.append(f"{shown(one.name)}  {one.size:,} bytes, {day}")
            else:
                lines.append(f"{shown(one.name)}/" if one.kind == "folder" else f"{shown(one.name)}  ({one.kind})")
        if len(entries) > self.most:
            more = "more than " if len(entries) == _NAMES else ""
            lines.append(f"[and {more}{len(entries) - self.most:,} others]")
        return ("\n".join(lines) or "the folder is empty",)
