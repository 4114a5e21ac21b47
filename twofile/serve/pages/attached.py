"""What is attached to a message, as the model reads it: text and documents whole, of pictures that they are there.

What is in a file may be an attack, and is the user's own: its label says so. PDF and Word are read in a process of
their own (`tools.search.worker`), which costs 0.2 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twofile.errors import TwofileError
from twofile.kernel.label import Label
from twofile.serve.pages.desk import Desk

__all__ = ["said_with"]

_LONGEST = 400_000  # characters of a file
_PICTURES = ("png", "jpg", "gif", "webp")


def said_with(desk: Desk, text: str, files: Sequence[Mapping[str, Any]]) -> tuple[str, Label, dict[str, Any]]:
    """The words that the model gets, their label, and what the page shows. TwofileError for a file that cannot be read,
    or is not there any more."""
    label = Label.of("user")
    words, shown = [text] if text.strip() else [], []
    for file in files:
        path, name = desk.home / "uploads" / Path(str(file.get("id"))).name, str(file.get("name"))[:100]
        kind = path.suffix[1:]
        label = label | Label.of(f"file:{name}", ["user"])
        if not path.is_file():
            raise TwofileError(f"{name} is not here any more", "attach it again")
        if kind in _PICTURES:
            kept = desk.kernel.log.keep(path.read_bytes(), kind)
            words.append(f"[The user attached the picture {name}. You cannot see it.]")
            shown.append({"name": name, "picture": kept})
            continue
        content = _read(path, kind, name)
        if len(content) > _LONGEST:
            raise TwofileError(
                f"{name} has {len(content):,} characters; a message takes {_LONGEST:,}", "take a part of it"
            )
        words.append(f"The file {name}:\n{content}\n(End of {name}.)")
        shown.append({"name": name})
    return "\n\n".join(words), label, {"text": text, "files": shown} if shown else {}


def _read(path: Path, kind: str, name: str) -> str:
    if kind == "text":
        return path.read_text("utf-8", errors="replace")
    if kind in ("pdf", "docx"):
        from twofile.tools.search.readers import UnreadableError
        from twofile.tools.search.worker import Reader

        with Reader() as reader, path.open("rb") as file:
            try:
                document = reader.read(file.fileno(), kind)
            except UnreadableError as error:
                raise TwofileError(f"{name} cannot be read: {error}") from error
        return "\n".join(passage.text for passage in document.passages)
    raise TwofileError(f"{name} is nothing that a message can hold", "text, PDF, Word and pictures can be attached")
