"""What a server says of one of its tools: its name, what it is for, the schema of its arguments; and how it is told
apart from what was said before.

The digest is of what the server said, to the byte; what the model reads of it is cut and has no characters that people
do not see (control characters, directions, tags, zero widths), for in those a server could hide what it tells the model
from the person who approves it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Definition", "shown", "visible"]

_MOST = 1 << 16  # bytes of all that is said of a tool
_ABOUT = 4000  # characters of it that the model reads
_DIFFERENCE = 20_000  # characters
_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_PROSE = ("description", "title", "$comment")


@dataclass(frozen=True)
class Definition:
    """A tool as its server defines it. `name`, `said` and `given` are the server's own; ValueError for what cannot be
    used: `why` is for the person."""

    server: str
    name: str
    said: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    pure: bool = False

    def __post_init__(self) -> None:
        if not self.name.isprintable() or visible(self.name) != self.name or not 0 < len(self.name) <= 128:
            raise ValueError(f"has a name that cannot be used: {shown(self.name)}")
        if len(self.known_as) > 64:
            raise ValueError(f"has a name that is too long: {shown(self.name)}")
        try:
            size = len(self._canonical())
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"has a definition that is no JSON: {error}") from None
        if size > _MOST:
            raise ValueError(f"has a definition of {size:,} bytes; {_MOST:,} are the most")
        _clean(self.given)

    @property
    def known_as(self) -> str:
        """The name of its driver."""
        return f"{self.server}.{self.tool}"

    @property
    def tool(self) -> str:
        """Its name as capabilities have it."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", self.name)

    @property
    def about(self) -> str:
        """What the model reads of what it is for."""
        clean = visible(self.said, "").strip()
        return clean if len(clean) <= _ABOUT else clean[:_ABOUT] + "…"

    @property
    def schema(self) -> dict[str, Any]:
        """The schema as the model and the grammar have it."""
        cleaned = _clean(self.given)
        assert isinstance(cleaned, dict)
        return cleaned

    @property
    def sha256(self) -> str:
        """Of all that is said of it: the canonical JSON of name, description, schema, and whether calls are pure."""
        return hashlib.sha256(self._canonical()).hexdigest()

    def difference(self, before: Definition | None) -> str:
        """What is other than before, line by line, as `diff -u` writes it; nothing is hidden in it."""
        lines = difflib.unified_diff(
            [] if before is None else before._written(), self._written(), "approved", "offered now", n=2, lineterm=""
        )
        text = "\n".join(lines)
        return text if len(text) <= _DIFFERENCE else text[:_DIFFERENCE] + "\n[there is more]"

    def to_json(self) -> dict[str, Any]:
        """As the pins keep it."""
        return {"name": self.name, "description": self.said, "schema": dict(self.given), "pure": self.pure}

    @classmethod
    def from_json(cls, server: str, table: Any) -> Definition:
        """What `to_json` gave. ValueError for anything else."""
        match table:
            case {"name": str(name), "description": str(said), "schema": dict(given), "pure": bool(pure)}:
                return cls(server, name, said, given, pure)
        raise ValueError("it is no definition of a tool")

    def _canonical(self) -> bytes:
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def _written(self) -> list[str]:
        schema = json.dumps(dict(self.given), indent=1, sort_keys=True, ensure_ascii=False)
        lines = [f"name: {self.name}", f"may be called twice: {'yes' if self.pure else 'no'}", "description:"]
        return [visible(line) for line in (*lines, *self.said.split("\n"), "schema:", *schema.split("\n"))]


def visible(text: str, instead: str | None = None) -> str:
    """A text whose hidden characters are written as what they are, or as `instead`; lines and tabs stay."""

    def one(c: str) -> str:
        if c in "\n\t" or unicodedata.category(c) not in _HIDDEN:
            return c
        return f"\\u{{{ord(c):x}}}" if instead is None else instead

    return "".join(map(one, text))


def shown(text: str, most: int = 300) -> str:
    """What a server said, for a line of a message."""
    line = " ".join(visible(text[: most + 1]).split())
    return line if len(text) <= most else line[:most] + "…"


def _clean(value: Any, prose: bool = False, depth: int = 0) -> Any:
    """A schema without hidden characters: prose loses them, what means something must have none."""
    if depth > 60:
        raise ValueError("has a schema that is nested too deeply")
    if isinstance(value, str):
        if prose:
            clean = visible(value, "")
            return clean if len(clean) <= _ABOUT else clean[:_ABOUT] + "…"
        if visible(value) != value:
            raise ValueError(f"has hidden characters in its schema: {shown(value)}")
        return value
    if isinstance(value, Mapping):
        found = {}
        for key, one in value.items():
            if visible(key) != key:
                raise ValueError(f"has hidden characters in its schema: {shown(key)}")
            found[key] = _clean(one, key in _PROSE, depth + 1)
        return found
    if isinstance(value, list):
        return [_clean(one, prose, depth + 1) for one in value]
    return value
