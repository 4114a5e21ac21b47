"""Our tools as an MCP server: for the SDK's client, and for one that speaks an older protocol by hand."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.tools.mcp.help import HERE, call, free_port, gone, opened, script, wait_for
from twofile.errors import ToolError
from twofile.kernel.driver import Context, Part, image
from twofile.kernel.label import Label
from twofile.tools.calculator import Calculator
from twofile.tools.mcp.configuration import Local
from twofile.tools.mcp.generate import Generate
from twofile.tools.mcp.server import Given, http_app, serve_http

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


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[int, list[str]]]:
    """A server over HTTP; its port, and what may be done."""
    import uvicorn

    allowed: list[str] = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        drivers = [
            Calculator(),
            Painter(),
            Generate(["tiny"], lambda model, messages: f"{model} heard {len(messages)}"),
        ]
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


@pytest.fixture
def server(served: tuple[int, list[str]]) -> tuple[int, list[str]]:
    """The server, of which nothing may be done yet; a test changes that."""
    served[1].clear()
    return served


def texts(result: Any) -> list[str]:
    return [one.text for one in result.content if one.type == "text"]


def note_says(note: Path, said: str) -> bool:
    deadline = time.monotonic() + 5
    while not (note.exists() and note.read_text() == said) and time.monotonic() < deadline:
        time.sleep(0.02)
    return note.read_text() == said


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


VERSIONS = ["2024-11-05", "2025-06-18", "2025-11-25"]


def hello(version: str) -> dict[str, Any]:
    info = {"name": "by hand", "version": "1"}
    return asked(1, "initialize", protocolVersion=version, capabilities={}, clientInfo=info)


def test_an_older_protocol_by_hand_over_pipes() -> None:
    """Nothing but the protocol comes out, a line each."""
    lines = [
        hello("2025-06-18"), {"jsonrpc": "2.0", "method": "notifications/initialized"},
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


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_protocol_by_hand_over_http(server: tuple[int, list[str]], version: str) -> None:
    port, _ = server

    def said(answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        if answer.headers["content-type"].startswith("application/json"):
            return answer.json()
        (data,) = [line[5:] for line in answer.text.splitlines() if line.startswith("data: {")]
        return json.loads(data)

    with by_hand(port) as client:
        first = client.post("/mcp", json=hello(version))
        assert said(first)["result"]["protocolVersion"] == version
        client.headers["MCP-Protocol-Version"] = version
        if session := first.headers.get("mcp-session-id"):
            client.headers["mcp-session-id"] = session
        heard = client.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert heard.status_code == 202
        asks = asked(2, "tools/call", name="calculator", arguments={"expression": "1+1"})
        assert said(client.post("/mcp", json=asks))["result"]["content"][0]["text"] == "2"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example.com"}, 421),
        ({"Host": "evil.example.com:{port}"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
        ({"Origin": "http://evil.example.com"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example.com:{port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://localhost:{port}"}, 403),
        ({"Origin": "http://localhost:{port}"}, 200),
        ({"Host": "localhost:{port}"}, 200),
    ],
)
def test_others_pages_are_refused(server: tuple[int, list[str]], headers: dict[str, str], status: int) -> None:
    port, _ = server
    sent = {name: value.format(port=port) for name, value in headers.items()}
    with by_hand(port) as client:
        assert client.post("/mcp", json=hello("2025-06-18"), headers=sent).status_code == status


def test_what_is_too_large_is_refused(server: tuple[int, list[str]]) -> None:
    port, _ = server
    with by_hand(port) as client:
        asks = asked(1, "tools/call", name="calculator", arguments={"expression": "1" * (1 << 22)})
        assert client.post("/mcp", json=asks).status_code == 413
        assert client.post("/mcp", content=b"{]").status_code == 400
        assert client.post("/mcp", json=hello("2025-06-18")).status_code == 200


def by_hand(port: int) -> httpx2.Client:
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    return httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False)


def test_our_own_client(tmp_path: Path) -> None:
    ours = Local("ours", OURS[0], tuple(OURS[1:]), {"MARK": "of our own client"})
    with opened(tmp_path, ours) as servers:
        assert servers.problems == {}
        assert [driver.name for driver in servers.drivers] == ["ours.calculator", "ours.clock"]
        assert call(servers, "ours.calculator", {"expression": "2 + 3"}).text == "5"
        assert "no expression" in call(servers, "ours.calculator", {"expression": "2 +"}).text
    assert gone(ours)


def test_what_drivers_print_goes_to_the_error_output() -> None:
    """Nor do they read what the client says."""
    lines = [hello("2025-11-25"), {"jsonrpc": "2.0", "method": "notifications/initialized"}]
    lines += [asked(number, "tools/call", name=name) for number, name in ((2, "prints"), (3, "breaks"), (4, "endless"))]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "our_server.py"), "20"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        process.stdin.flush()
        found = {said["id"]: said for said in (json.loads(process.stdout.readline()) for _ in range(4))}
        out, printed = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert (out, process.returncode) == (b"", 0)
    assert sorted(printed.split()) == [b"a", b"child", b"of", b"printed", b"written"]
    assert found[2]["result"]["content"] == [{"type": "text", "text": "said: "}]
    assert found[3]["result"]["isError"]
    assert "SystemExit" in found[3]["result"]["content"][0]["text"]
    assert found[4]["result"]["content"][0]["text"] == "x" * 5000 + "\n[there was more than 5,000 bytes]"


def test_a_call_that_is_given_up_ends(tmp_path: Path) -> None:
    note = tmp_path / "left"
    ours = script("our_server.py", "20", LEFT=str(note))
    with opened(tmp_path, ours) as servers:
        assert "gave no answer within 0.5 s" in call(servers, "our.waits", seconds=0.6).text
        assert note_says(note, "given up")
        note.unlink()
        asks = {"messages": [{"role": "user", "content": "hi"}]}
        assert "gave no answer" in call(servers, "our.generate", asks, seconds=0.6).text
        deadline = time.monotonic() + 5
        while not note.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert 1 < int(note.read_text()) < 100
        assert call(servers, "our.prints").text == "said: "
    assert gone(ours)


def test_a_call_that_takes_too_long_ends(tmp_path: Path) -> None:
    note = tmp_path / "left"
    with opened(tmp_path, script("our_server.py", "0.5", LEFT=str(note))) as servers:
        outcome = call(servers, "our.waits")
        assert (outcome.error, "took longer than" in outcome.text) == (True, True)


def test_the_command_over_http() -> None:
    port = free_port()
    process = subprocess.Popen([*OURS, "--http", str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        with by_hand(port) as client:
            assert client.post("/mcp", json=hello("2025-11-25")).status_code == 200
        with pytest.raises(ToolError, match=f"cannot listen on port {port}"):
            serve_http(Given([Calculator()], lambda wanted: False), port)
        with socket.socket() as other:  # the port is taken on loopback alone
            other.bind(("127.0.0.2", port))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
        assert out == b""
    finally:
        process.kill()
        process.wait()


def test_generate() -> None:
    heard: list[Any] = []

    def say(model: str, messages: Sequence[Mapping[str, str]]) -> Iterator[str]:
        heard.append((model, list(messages)))
        yield from ("good ", "day")

    asks = [{"role": "user", "content": "hi"}]
    one = Generate(["small", "large"], say)
    assert "".join(map(str, one.run({"messages": asks}, Context(0, time.monotonic() + 5)))) == "good day"
    list(one.run({"messages": asks, "model": "large"}, Context(0, time.monotonic() + 5)))
    assert heard == [("small", asks), ("large", asks)]
    assert list(one.needs({})) == []
    with pytest.raises(ValueError, match="a model"):
        Generate([], say)
