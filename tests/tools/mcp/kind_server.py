"""A server of the SDK that behaves: `kind_server.py stdio`, or `kind_server.py PORT` for HTTP.

What it says of the tool `add` is in the file that the variable ABOUT names, and `change` has it say that it changed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("kind", version="1")
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f00038601"
    "805a34a5d60000000049454e44ae426082"
)


def about() -> str:
    path = os.environ.get("ABOUT")
    return Path(path).read_text() if path else "Adds two numbers."


def add(a: int, b: int) -> int:
    return a + b


server.add_tool(add, description=about(), annotations=ToolAnnotations(read_only_hint=True))


@server.tool()
def echo(said: str) -> str:
    """Says it again."""
    return said


@server.tool()
def picture() -> list[str | Image]:
    """A picture."""
    return ["look:", Image(data=PIXEL, format="png")]


@server.tool()
def variables() -> dict[str, str]:
    """Its environment."""
    return dict(os.environ)


@server.tool()
async def slow(seconds: float) -> str:
    """Takes its time, and leaves a file where it was given up."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        Path(os.environ["LEFT"]).write_text("given up")
        raise
    return "done"


@server.tool()
def leave() -> str:
    """Crashes."""
    print("oh no", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
async def change(context: Context) -> str:
    """Says something else of a tool from now on."""
    server.remove_tool("add")
    server.add_tool(add, description=about(), annotations=ToolAnnotations(read_only_hint=True))
    await context.notify_tools_changed()
    return "changed"


@server.tool()
async def vanish(context: Context) -> str:
    """Takes a tool away."""
    server.remove_tool("echo")
    await context.notify_tools_changed()
    return "gone"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run()
    else:
        server.run(transport="streamable-http", port=int(sys.argv[1]))
