"""Our tools as an MCP server: for the SDK's client, and for one that speaks an older protocol by hand."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from twofile.kernel.driver import Context, Part, image
from twofile.kernel.label import Label
from twofile.tools.calculator import Calculator
from twofile.tools.mcp.generate import Generate
from twofile.tools.mcp.server import Given, http_app

pytest.importorskip("mcp", reason="mcp is not installed")

OURS = [sys.executable, "-m", "twofile", "mcp", "--tools", "calculator,clock"]


@dataclass
class Painter:
    """Gives a picture, where it may look at a folder."""

    name: str = "paint"
    about: str = "Paints."
    pure: bool = True
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ("fs:read:/tmp",)

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        return ("here: ", image(b"\x89PNG", "image/png", "a square"))

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label()


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    """A server over HTTP; its port, and what may be done, which a test changes."""
    import socket

    import uvicorn

    allowed: list[str] = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        drivers = [Calculator(), Painter(), Generate(["tiny"], lambda model, messages: f"{model} heard {len(messages)}")]
        app = http_app(Given(drivers, lambda wanted: wanted in allowed), port)
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield port, allowed
        running.should_exit = True
        thread.join(10)


def texts(result: Any) -> list[str]:
    return [one.text for one in result.content if one.type == "text"]


def test_the_sdk_s_client_over_pipes() -> None:
    from mcp import Client, StdioServerParameters

    async def talk() -> None:
        async with Client(StdioServerParameters(command=OURS[0], args=OURS[1:])) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["calculator", "clock"]
            assert texts(await client.call_tool("calculator", {"expression": "6 * 7"})) == ["42"]
            wrong = await client.call_tool("calculator", {"expression": "6 *"})
            assert wrong.is_error
            assert "no expression" in texts(wrong)[0]
            missing = await client.call_tool("calculator", {})
            assert missing.is_error
            assert "wrong arguments" in texts(missing)[0]

    asyncio.run(asyncio.wait_for(talk(), 30))


def test_the_sdk_s_client_over_http(server: tuple[int, list[str]]) -> None:
    from mcp import Client

    port, allowed = server

    async def talk() -> None:
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["calculator", "paint", "generate"]
            refused = await client.call_tool("paint", {})
            assert refused.is_error
            assert "fs:read:/tmp, which is not granted" in texts(refused)[0]
            allowed.append("fs:read:/tmp")
            painted = await client.call_tool("paint", {})
            assert texts(painted) == ["here: [a square]"]
            assert [one.mime_type for one in painted.content if one.type == "image"] == ["image/png"]
            said = await client.call_tool("generate", {"messages": [{"role": "user", "content": "hi"}]})
            assert texts(said) == ["tiny heard 1"]

    asyncio.run(asyncio.wait_for(talk(), 30))


def asked(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "by hand", "version": "1"}}


def test_an_older_protocol_by_hand_over_pipes() -> None:
    """Nothing but the protocol comes out, a line each."""
    lines = [
        asked(1, "initialize", **HELLO), {"jsonrpc": "2.0", "method": "notifications/initialized"},
        asked(2, "tools/list"), asked(3, "tools/call", name="calculator", arguments={"expression": "2**10"}),
        asked(4, "tools/call", name="telephone", arguments={}),
    ]  # fmt: skip
    process = subprocess.Popen(OURS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        found: dict[int, Any] = {}
        for line in lines:
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()
            if "id" in line:
                said = json.loads(process.stdout.readline())
                found[said["id"]] = said
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert out == b""
    assert found[1]["result"]["protocolVersion"] == "2025-06-18"
    assert [tool["name"] for tool in found[2]["result"]["tools"]] == ["calculator", "clock"]
    assert found[3]["result"]["content"][0]["text"] == "1024"
    assert found[4]["error"]["code"] == -32602


def test_an_older_protocol_by_hand_over_http(server: tuple[int, list[str]]) -> None:
    port, _ = server
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}

    def said(answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        if answer.headers["content-type"].startswith("application/json"):
            return answer.json()
        return json.loads(next(line[5:] for line in answer.text.splitlines() if line.startswith("data:") and len(line) > 7))

    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
        first = client.post("/mcp", json=asked(1, "initialize", **HELLO))
        assert said(first)["result"]["protocolVersion"] == "2025-06-18"
        if session := first.headers.get("mcp-session-id"):
            client.headers["mcp-session-id"] = session
        client.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        result = said(client.post("/mcp", json=asked(2, "tools/call", name="calculator", arguments={"expression": "1+1"})))
        assert result["result"]["content"][0]["text"] == "2"


def test_others_pages_are_refused(server: tuple[int, list[str]]) -> None:
    port, _ = server
    headers = {"Accept": "application/json, text/event-stream"}
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
        for wrong in ({"Host": "evil.example.com"}, {"Origin": "http://evil.example.com"}):
            assert client.post("/mcp", json=asked(1, "initialize", **HELLO), headers=wrong).status_code in (403, 421)
