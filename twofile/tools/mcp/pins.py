"""What a person approved of what servers offer, pinned by digest, in a file.

A tool is used as it was when it was approved: one that is new, or that says anything else of itself than then, waits
until it is approved, with the difference shown. The file is written whole or not at all, for its owner's eyes; it keeps
each definition beside its digest, and one that does not match, or a file that is no such file, is an error: nothing
counts as approved because a file is broken. Who may write the file can approve: it is as safe as its folder.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Literal

from twofile.errors import ToolError
from twofile.params.atomic import atomic_path, read_json
from twofile.tools.mcp.definition import Definition, shown

__all__ = ["Pins", "State"]

State = Literal["approved", "new", "changed"]

_HINT = "mend it, or remove it and approve the tools again"


class Pins:
    """The approvals in a file; it need not be there yet. ToolError where it cannot be read or was tampered with."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._pinned = self._read()

    def reload(self) -> None:
        """Heed what another program wrote into the file."""
        with self._lock:
            self._pinned = self._read()

    def before(self, definition: Definition) -> Definition | None:
        """The tool of this server and name as it was approved."""
        return self._pinned.get((definition.server, definition.name))

    def state(self, definition: Definition) -> State:
        """Whether it may be used as it is."""
        before = self.before(definition)
        if before is None:
            return "new"
        return "approved" if before.sha256 == definition.sha256 else "changed"

    def approve(self, *definitions: Definition) -> None:
        """Approve these, as they are: what their servers say from now on is compared with them."""
        with self._lock:
            pinned = self._read() | {(one.server, one.name): one for one in definitions}
            self._write(pinned)

    def revoke(self, server: str, name: str | None = None) -> None:
        """Approve a tool of a server, or all of them, no longer."""
        with self._lock:
            kept = {key: one for key, one in self._read().items() if key[0] != server or name not in (None, key[1])}
            self._write(kept)

    def _read(self) -> dict[tuple[str, str], Definition]:
        if not self.path.exists():
            return {}
        table = read_json(self.path, ToolError, _HINT)
        found = {}
        try:
            for server, tools in table["servers"].items():
                for name, one in tools.items():
                    definition = Definition.from_json(server, one["definition"])
                    if definition.name != name or one["sha256"] != definition.sha256:
                        raise ValueError(f"the tool {shown(name)} of {shown(server)} is not what was approved")
                    found[server, name] = definition
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ToolError(f"{self.path} was changed, or is no file of approvals: {error}", _HINT) from error
        return found

    def _write(self, pinned: dict[tuple[str, str], Definition]) -> None:
        servers: dict[str, dict[str, Any]] = {}
        for (server, name), one in sorted(pinned.items()):
            servers.setdefault(server, {})[name] = {"sha256": one.sha256, "definition": one.to_json()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolError(f"cannot write {self.path}: {error.strerror}") from error
        said = json.dumps({"servers": servers}, ensure_ascii=False, indent=1)
        with atomic_path(self.path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(said + "\n", encoding="utf-8")
        self._pinned = pinned
