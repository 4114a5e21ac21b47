"""A server that is a program on this machine, spoken to over its pipes.

It runs in a session of its own with an environment of PATH, HOME, LANG and what its configuration names; what it writes
to its error output is kept to the last 64 KiB, and read no faster than 4 MiB a second. At the end its input is closed,
and what still lives 0.2 s later is ended, then killed: all of its session, and whatever descends from it, within a
second. Not found is what left both its session and its parents (a daemon that forks twice); on systems without /proc
its process group alone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from twofile.errors import ToolError
from twofile.tools.mcp.configuration import Local
from twofile.tools.mcp.definition import shown, visible
from twofile.tools.mcp.wire import Wire, WireError, lines

if TYPE_CHECKING:
    from twofile.tools.mcp.wire import Streams

__all__ = ["Log", "spawned"]

_LOG = 1 << 16  # bytes
_LOG_SPEED = 1 << 22  # bytes a second
_PROC = os.path.exists("/proc/self/stat")
_PATIENCE = ((0, 0.2), (signal.SIGTERM, 0.3), (signal.SIGKILL, 0.3))  # seconds to heed the end of the input, a signal


class Log:
    """The end of what a server wrote to its error output."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-_LOG]

    @property
    def text(self) -> str:
        """What is kept, without hidden characters."""
        return visible(self._kept.decode("utf-8", "replace").replace("\r\n", "\n"))

    @property
    def last(self) -> str:
        """The last line, for a message."""
        return shown((self.text.strip().split("\n") or [""])[-1], 200)


@asynccontextmanager
async def spawned(server: Local, wire: Wire, log: Log) -> AsyncIterator[Streams]:
    """The program started, as a transport of the SDK: two streams of messages. ToolError where there is none."""
    from mcp.shared.message import SessionMessage

    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= server.environment
    command = shutil.which(os.path.expanduser(server.command), path=environment.get("PATH"))
    if command is None:
        raise ToolError(f"the server {server.name} cannot start: there is no program {server.command}")
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await loop.subprocess_exec(
            lambda: asyncio.subprocess.SubprocessStreamProtocol(limit=1 << 16, loop=loop),
            command,
            *server.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=server.folder,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"the server {server.name} cannot start: {error.strerror or error}") from error
    process = asyncio.subprocess.Process(transport, protocol, loop)
    into, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, out = anyio.create_memory_object_stream[SessionMessage](0)

    async def reads() -> None:
        assert process.stdout is not None
        async with into:  # its end wakes all who wait for an answer
            try:
                async for raw in lines(process.stdout):
                    if (message := wire.line(raw)) is not None:
                        await into.send(SessionMessage(message))
                await ends()
            except WireError as broken:
                wire.end(str(broken))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
                wire.end("closed its output")

    async def writes() -> None:
        assert process.stdin is not None
        async with out:
            with suppress(ConnectionError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for one in out:
                    wire.sent(one.message)
                    process.stdin.write(one.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                    await process.stdin.drain()
                return
            await anyio.sleep(0.3)  # it may have come to its end, which says more
            wire.end("closed its input")
            await into.aclose()

    async def errors() -> None:
        assert process.stderr is not None
        with suppress(ConnectionError):
            while data := await process.stderr.read(1 << 16):
                log.add(data)
                await anyio.sleep(len(data) / _LOG_SPEED)

    async def ends() -> None:
        for _ in range(20):  # the output ends a little before the program
            if process.returncode is not None:
                break
            await anyio.sleep(0.01)
        await anyio.sleep(0.05)  # and its last words may be under way
        wire.end(_how(process.returncode) + wire.noise + (f"; its last words: {log.last}" if log.last else ""))

    async def watches() -> None:
        while process.returncode is None:  # `wait` waits for the pipes too, which a child of it may hold open
            await anyio.sleep(0.25)
        await anyio.sleep(0.2)
        await ends()
        await into.aclose()

    try:
        async with anyio.create_task_group() as group:
            for task in (reads, writes, errors, watches):
                group.start_soon(task)
            try:
                yield read_stream, write_stream
            finally:
                with anyio.CancelScope(shield=True):
                    await _stop(process)
                group.cancel_scope.cancel()
    finally:
        transport.close()
        for stream in (into, read_stream, write_stream, out):
            stream.close()


def _how(code: int | None) -> str:
    if code is None:
        return "closed its output"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
    return f"came to its end (exit code {code})"


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a program and all that it started."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    found = _family(process, set())
    for number, seconds in _PATIENCE:
        for pid in found:
            with suppress(OSError):
                os.kill(pid, number) if _PROC else os.killpg(pid, number)
        deadline = anyio.current_time() + seconds
        while found and anyio.current_time() < deadline:
            await anyio.sleep(0.01)
            found = _family(process, found)
        if not found:
            break
    deadline = anyio.current_time() + 0.2
    while process.returncode is None and anyio.current_time() < deadline:
        await anyio.sleep(0.01)


def _family(process: asyncio.subprocess.Process, before: set[int]) -> set[int]:
    """The living processes of a session, those that descend from it, and those of `before`."""
    leader = process.pid
    if not _PROC:
        with suppress(OSError):
            os.killpg(leader, 0)
            return {leader}
        return set()
    families: dict[int, tuple[int, ...]] = {}  # parent, group, session
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                state, *rest = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
                if state not in "ZX":
                    families[int(entry.name)] = tuple(map(int, rest))
    if process.returncode is not None and leader in families:
        leader = -1  # another program has its number now, so nothing of it is left
    found = {pid for pid, kin in families.items() if pid in before or leader in (pid, *kin)}
    while more := {pid for pid, kin in families.items() if kin[0] in found and pid not in found}:
        found |= more
    return found
