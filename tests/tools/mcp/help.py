"""What the tests of MCP share: servers as scripts, and how to see that nothing of them is left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from twofile.kernel.driver import Context, Drivers, Outcome, run_driver
from twofile.tools.mcp.client import Servers
from twofile.tools.mcp.configuration import Configured, Local, Remote
from twofile.tools.mcp.pins import Pins

HERE = Path(__file__).parent


def script(name: str, *arguments: str, called: str = "", **environment: str) -> Local:
    """A server that is a script of this folder."""
    marked = {"MARK": uuid.uuid4().hex, **environment}
    return Local(called or name.partition("_")[0], sys.executable, (str(HERE / name), *arguments), marked)


@contextmanager
def opened(tmp_path: Path, *servers: Configured, start: float = 20.0, approve: bool = True) -> Iterator[Servers]:
    """Servers whose tools are approved."""
    with Servers(servers, Pins(tmp_path / "pins.json"), start=start) as found:
        found.refresh()
        if approve:
            found.approve(*found.waiting)
        yield found


def call(servers: Servers, name: str, arguments: Mapping[str, Any] | None = None, seconds: float = 10.0) -> Outcome:
    """A call as the kernel makes it."""
    driver = Drivers(servers.drivers)[name]
    return run_driver(driver, arguments or {}, Context(1, time.monotonic() + seconds))


def left(server: Local) -> list[int]:
    """The processes that a server has left behind."""
    mark, found = server.environment["MARK"].encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def gone(server: Local, seconds: float = 1.0) -> bool:
    """Whether nothing of a server is left a second later."""
    deadline = time.monotonic() + seconds
    while left(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not left(server)


@contextmanager
def over_http(name: str, *arguments: str) -> Iterator[Remote]:
    """A script of this folder that serves HTTP. Without arguments it is told a port; with some it prints its own."""
    port = free_port()
    told = arguments or (str(port),)
    process = subprocess.Popen([sys.executable, str(HERE / name), *told], stdout=subprocess.PIPE, env={**os.environ})
    try:
        assert process.stdout is not None
        if arguments and arguments[0] == "http":
            port = int(process.stdout.readline())
        wait_for(port)
        yield Remote(name.partition("_")[0], f"http://127.0.0.1:{port}/mcp")
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False)
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server does not come up")
