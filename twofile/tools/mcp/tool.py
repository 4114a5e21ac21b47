"""A server's tool as a driver of the kernel, and what it gives as parts.

The driver has the definition that was approved. Text goes on as it is, for what comes from tools is escaped where it
meets the model; pictures are decoded; what the model cannot take (sound, files) is named.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twofile.kernel.driver import Context, Part, image, text
from twofile.kernel.label import Label
from twofile.tools.mcp.definition import Definition, shown

if TYPE_CHECKING:
    from mcp_types import CallToolResult

__all__ = ["RemoteTool", "parts"]

_WRONG = 4000  # characters of what a tool says is wrong


class RemoteTool:
    """The driver. `call` reaches the server."""

    def __init__(
        self, definition: Definition, call: Callable[[Definition, Mapping[str, Any], Context], CallToolResult]
    ) -> None:
        self.definition, self._call = definition, call
        self.name, self.about, self.schema = definition.known_as, definition.about, definition.schema
        self.pure = definition.pure

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return (f"mcp:{self.definition.server}/{self.definition.tool}",)

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        result = self._call(self.definition, arguments, context)
        found = list(parts(result, self.name))
        if result.is_error:
            said = "".join(part["text"] for part in found if part["type"] == "text")
            raise ValueError(said[:_WRONG] or "it failed, and does not say why")
        return found

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label.of(f"mcp:{self.definition.server}")


def parts(result: CallToolResult, name: str) -> Iterator[Part]:
    """What a result is made of."""
    first = True
    for block in result.content:
        part = _part(block, name)
        yield part if first or part["type"] != "text" else text("\n" + part["text"])
        first = False
    if first and result.structured_content is not None:
        yield text(json.dumps(result.structured_content, ensure_ascii=False))


def _part(block: Any, name: str) -> Part:
    if block.type == "text":
        return text(block.text)
    if block.type == "image":
        try:
            data = base64.b64decode(block.data, validate=True)
        except (binascii.Error, ValueError):
            return text(f"[a picture from {name} that cannot be read]")
        if not block.mime_type.startswith("image/") or not data:
            return text(f"[something from {name} that is no picture: {shown(block.mime_type, 60)}]")
        return image(data, shown(block.mime_type, 60), f"a picture from {name}")
    if block.type == "audio":
        return text(f"[sound from {name}: {shown(block.mime_type, 60)}, about {len(block.data) * 3 // 4:,} bytes]")
    if block.type == "resource_link":
        return text(f"[{shown(block.name, 200)}: {shown(block.uri, 1000)}]")
    if hasattr(block.resource, "text"):
        return text(str(block.resource.text))
    return text(f"[a file from {name}: {shown(str(block.resource.uri), 1000)}]")
