"""The one door to the web: an HTTP proxy that resolves, checks, connects to the very address it checked, and counts.

Everything that the browser fetches goes through it, whoever fetches. It takes CONNECT and absolute-form requests, on a
Unix socket in a folder that nobody else can enter, or on a loopback port for who knows its token. Guarantee: no
connection is opened to an address that `Reach` refuses or a host that `permit` refuses, a name is resolved once for
each connection, and bytes, seconds and connections are bounded, each and in all; what was refused is kept, with why.
It does not look into what passes: within a connection, a page may speak of another host to the same server.

Cost: a thread and a socket, some milliseconds to start; one proxy is for one call of the driver.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import socket
import tempfile
import threading
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from twofile.tools.browser.addresses import Reach, Refused, place

__all__ = ["Dial", "Limits", "Proxy", "Refusal", "dial"]

Dial = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_HEAD = 32 << 10  # bytes of a request's head
_KEPT = 200  # refusals that are kept; all are counted
_HOP = re.compile(rb"(?i)^(proxy-[^:]*|connection|keep-alive|host|te|upgrade)[ \t]*:")


@dataclass(frozen=True)
class Limits:
    """Bytes (both ways), seconds and connections: of one, at once, and of the proxy's whole life."""

    bytes_each: int = 16 << 20
    bytes_all: int = 48 << 20
    seconds_each: float = 60.0
    seconds_idle: float = 20.0
    seconds_to_connect: float = 8.0
    at_once: int = 40
    connections: int = 600


@dataclass(frozen=True)
class Refusal:
    """What was not let through."""

    host: str
    port: int
    why: str


async def dial(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a literal address: nothing is resolved."""
    return await asyncio.open_connection(address, port, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)


class Proxy:
    """Runs from `with` to its end, in a thread of its own. `refusals` and `moved` (bytes) may be read at any time."""

    def __init__(
        self,
        reach: Reach,
        permit: Callable[[str], bool] = lambda host: True,
        limits: Limits | None = None,
        *,
        tcp: bool = False,
        connect: Dial = dial,
    ) -> None:
        self._reach, self._permit, self._limits = reach, permit, limits or Limits()
        self._tcp, self._dial = tcp, connect
        self.refusals: list[Refusal] = []
        self.refused = self.opened = self.moved = self.port = 0
        self.token = secrets.token_urlsafe(24)
        self._at_once = 0
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._work, name="twofile-proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients over TCP find it, with its token."""
        return f"http://twofile:{self.token}@127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        self._folder = tempfile.TemporaryDirectory(prefix="twofile-proxy-")  # mode 700
        self.path = Path(self._folder.name) / "proxy.sock"
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            self.close()
            raise self._failed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Cut all connections, and stop. May be called from any thread, and twice."""
        try:
            self._loop.call_soon_threadsafe(self._loop.stop)
        except RuntimeError:  # closed already
            return
        self._thread.join(10)
        self._folder.cleanup()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            servers = [self._loop.run_until_complete(asyncio.start_unix_server(self._accept, self.path, limit=_HEAD))]
            if self._tcp:
                servers.append(
                    self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD))
                )
                self.port = servers[-1].sockets[0].getsockname()[1]
            self._ready.set()
            self._loop.run_forever()
            for server in servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.run_until_complete(asyncio.sleep(0))  # transports close themselves
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()
            self._loop.close()  # waits for no look-up that is under way

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._at_once += 1
        try:
            async with asyncio.timeout(self._limits.seconds_each):
                await self._serve(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # a connection that ends is no more than that
        finally:
            self._at_once -= 1
            self._tasks.discard(task)
            if task.cancelling():
                writer.transport.abort()
            else:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head[:-4].split(b"\r\n")
        if writer.get_extra_info("socket").family != socket.AF_UNIX and not self._knows(fields):
            await _say(writer, 407, "Proxy Authentication Required", "the token is missing")
            return
        host, port, first = "", 0, b""
        try:
            host, port, first = _asked(line, fields)
            upstream = await self._connect(host, port)
        except Refused as error:
            self.refused += 1
            if len(self.refusals) < _KEPT:
                self.refusals.append(Refusal(host[:253], port, str(error)))
            await _say(writer, 403, "Forbidden", str(error))
            return
        except OSError as error:
            await _say(writer, 502, "Bad Gateway", f"{host} cannot be reached ({error or type(error).__name__})")
            return
        far_reader, far_writer = upstream
        try:
            if first:
                far_writer.write(first)
                self.moved += len(first)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self._both(reader, writer, far_reader, far_writer)
        finally:
            far_writer.close()

    def _knows(self, fields: list[bytes]) -> bool:
        wanted = b"basic " + b64encode(f"twofile:{self.token}".encode())
        for field in fields:
            name, _, value = field.partition(b":")
            if name.strip().lower() == b"proxy-authorization":
                kind, _, rest = value.strip().partition(b" ")
                return hmac.compare_digest(kind.lower() + b" " + rest.strip(), wanted)
        return False

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the address that was checked. Refused, or OSError where none answers."""
        limits = self._limits
        if self._at_once > limits.at_once or self.opened >= limits.connections:
            raise Refused("there are too many connections")
        if self.moved >= limits.bytes_all:
            raise Refused(f"more than {limits.bytes_all >> 20} MB went through already")
        host = self._reach.host(host, port)
        if not self._permit(host):
            raise Refused(f"{host} was not granted")
        addresses = await self._loop.run_in_executor(None, self._reach.addresses, host, port)
        last: OSError = OSError("no address answers")
        for address in addresses[:4]:
            self.opened += 1
            try:
                return await asyncio.wait_for(self._dial(address, port), limits.seconds_to_connect)
            except OSError as error:  # TimeoutError is one
                last = error
        raise last

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Pass on what comes, both ways, until the far side ends, either is still for too long, or it is too much."""
        left = self._limits.bytes_each

        async def flow(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal left
            while data := await source.read(32 << 10):
                left -= len(data)
                self.moved += len(data)
                if left < 0 or self.moved > self._limits.bytes_all:
                    raise ConnectionAbortedError("too much")
                sink.write(data)
                await sink.drain()
                idle.reschedule(self._loop.time() + self._limits.seconds_idle)
            if sink is far_writer and sink.can_write_eof():
                sink.write_eof()

        async with asyncio.timeout(self._limits.seconds_idle) as idle:
            await _first_failure(flow(far_reader, writer), flow(reader, far_writer))


async def _first_failure(answer: Coroutine[Any, Any, None], request: Coroutine[Any, Any, None]) -> None:
    """Run both until the answer ends, or either fails."""
    tasks = [asyncio.ensure_future(answer), asyncio.ensure_future(request)]
    try:
        waiting = set(tasks)
        while tasks[0] in waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _asked(line: bytes, fields: list[bytes]) -> tuple[str, int, bytes]:
    """Host and port of a request, and what to send there first: the request for itself, nothing for CONNECT."""
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused("that is no request to a proxy")
    method, target, version = words
    if method == "CONNECT":
        found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]/@]*):(\d{1,5})", target)
        if found is None or not 0 < int(found[2]) < 65536:
            raise Refused("that is no host and port")
        return found[1], int(found[2]), b""
    if not re.fullmatch(r"[A-Z]{1,20}", method) or not target.lower().startswith("http://"):
        raise Refused("only http:// addresses are asked for in full")
    asked = place(target)
    parts = urlsplit(asked.url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    kept = [field for field in fields if not _HOP.match(field)]
    start = [f"{method} {path} {version}".encode(), b"Host: " + parts.netloc.encode(), b"Connection: close"]
    return asked.host, asked.port, b"\r\n".join([*start, *kept, b"", b""])


async def _say(writer: asyncio.StreamWriter, code: int, reason: str, why: str) -> None:
    body = why.encode("utf-8", "replace")
    head = f"HTTP/1.1 {code} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    await writer.drain()
