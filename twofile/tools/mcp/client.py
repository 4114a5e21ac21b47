"""The servers of a configuration, and their tools as drivers.

One thread in the background has all connections; drivers wait for it, each as long as its call's deadline lets it, and
give a call up when it is cancelled (the server is told). What a server offers is used once a person has approved it, as
it was then (`pins`): all else is in `waiting`, with the difference shown.

Costs the import of the SDK (a second) at the first connection, and what the servers cost.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from twofile.errors import ToolError
from twofile.kernel.driver import Context
from twofile.tools.mcp.configuration import Configured
from twofile.tools.mcp.connection import Connection
from twofile.tools.mcp.definition import Definition
from twofile.tools.mcp.pins import Pins
from twofile.tools.mcp.tool import RemoteTool

if TYPE_CHECKING:
    from mcp_types import CallToolResult

__all__ = ["Servers", "Waiting"]

_T = TypeVar("_T")
_CLOSE = 5.0
_MARGIN = 0.1  # seconds before the deadline, so that what is said of a call that takes too long is more than that


@dataclass(frozen=True)
class Waiting:
    """A tool that waits for a person's approval."""

    definition: Definition
    why: Literal["new", "changed"]
    difference: str


class Servers:
    """MCP servers. A context manager: at its end no program of theirs is left. `start`: seconds that a server has to
    come up. ToolError for two of one name."""

    def __init__(self, servers: Iterable[Configured], pins: Pins, *, start: float = 30.0) -> None:
        self.pins = pins
        configured = list(servers)
        self._ignored = {server.name: server.ignored for server in configured}
        if len(self._ignored) < len(configured):
            raise ToolError("there are two MCP servers of one name", "give each its own")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="twofile-mcp", daemon=True)
        self._closed = False
        self._failures: dict[str, str] = {}
        self._thread.start()
        self._connections: dict[str, Connection] = self._wait(self._made(configured, start))
        atexit.register(self.close)

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def names(self) -> list[str]:
        """Of all servers."""
        return list(self._connections)

    def refresh(self) -> None:
        """Start all servers that are not running, at once, and ask each what it offers. What fails is in `problems`."""
        self.pins.reload()

        async def ask(name: str, one: Connection) -> None:
            try:
                await one.ready(afresh=True)
                self._failures.pop(name, None)
            except ToolError as error:
                self._failures[name] = error.message

        async def all_of_them() -> None:
            await asyncio.gather(*(ask(name, one) for name, one in self._connections.items()))

        self._wait(all_of_them())

    @property
    def drivers(self) -> list[RemoteTool]:
        """The tools that are approved as they are now."""
        return [RemoteTool(one, self._call) for one in self._offered() if self.pins.state(one) == "approved"]

    @property
    def waiting(self) -> list[Waiting]:
        """The tools that nobody approved as they are now."""
        found = []
        for one in self._offered():
            if (state := self.pins.state(one)) != "approved":
                found.append(Waiting(one, state, one.difference(self.pins.before(one))))
        return found

    @property
    def problems(self) -> dict[str, list[str]]:
        """What is wrong with servers, by their names: why they fail, which tools are left out, what is not heeded."""
        found: dict[str, list[str]] = {}
        for name, one in self._connections.items():
            failed = [self._failures[name]] if name in self._failures else []
            heeded = [f"what the configuration says of {field} is not heeded" for field in self._ignored[name]]
            if said := [*failed, *one.problems, *heeded]:
                found[name] = said
        return found

    def approve(self, *waiting: Waiting) -> None:
        """Approve what was shown, to the byte: what a server says otherwise since then waits again."""
        self.pins.approve(*(one.definition for one in waiting))

    def log(self, name: str) -> str:
        """The end of what a server wrote to its error output."""
        return self._connection(name).log.text

    def restart(self, name: str) -> None:
        """End a server, and start it at the next call, however often it failed."""
        one = self._connection(name)
        one.forgive()
        self._wait(one.close())

    def close(self) -> None:
        """End all servers."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)

        async def all_of_them() -> None:
            await asyncio.gather(*(one.close() for one in self._connections.values()))
            mine = asyncio.current_task()
            rest = [task for task in asyncio.all_tasks() if task is not mine]
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest, timeout=1)

        future = asyncio.run_coroutine_threadsafe(all_of_them(), self._loop)
        concurrent.futures.wait([future], timeout=_CLOSE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE)

    def _offered(self) -> Sequence[Definition]:
        return [tool for one in self._connections.values() for tool in list(one.offered.values())]

    def _connection(self, name: str) -> Connection:
        if name not in self._connections:
            raise ToolError(f"there is no MCP server {name}", f"there are: {', '.join(self._connections) or 'none'}")
        return self._connections[name]

    def _call(self, definition: Definition, arguments: Mapping[str, Any], context: Context) -> CallToolResult:
        """A call of a driver: in its own thread."""
        one = self._connection(definition.server)
        seconds = max(0.0, context.seconds - _MARGIN)

        async def within() -> CallToolResult:
            try:
                async with asyncio.timeout(seconds):
                    return await one.call(definition.name, arguments, lambda now: self._check(definition, now))
            except TimeoutError:
                said = f"the server {definition.server} gave no answer within {seconds:.1f} s{one.noise}"
                raise ToolError(said) from None

        return self._wait(within(), context.cancelled.is_set)

    def _check(self, definition: Definition, now: Definition) -> None:
        """Whether the tool is still what was approved. ToolError where it is not."""
        if now.sha256 == definition.sha256 and self.pins.state(now) == "approved":
            return
        raise ToolError(
            f"the server {definition.server} changed what it says of {definition.tool}, or it is approved no longer; "
            "it is not used until a person approves it"
        )

    async def _made(self, servers: Iterable[Configured], start: float) -> dict[str, Connection]:
        return {server.name: Connection(server, start) for server in servers}

    def _wait(self, work: Coroutine[Any, Any, _T], cancelled: Callable[[], bool] = lambda: False) -> _T:
        """Have the loop do something, and wait for it. ToolError when it is cancelled, or the servers are closed."""
        if self._closed:
            work.close()
            raise ToolError("the MCP servers are closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                done, _ = concurrent.futures.wait([future], timeout=0.05)
                if done:
                    return future.result()
                if cancelled():
                    raise ToolError("the call was cancelled")
                if not self._thread.is_alive():
                    raise ToolError("the MCP servers are closed")
        except concurrent.futures.CancelledError:
            raise ToolError("the MCP servers are closed") from None
        finally:
            future.cancel()

    def _run(self) -> None:
        for name in ("mcp", "client"):  # of the SDK: what servers say is not for the terminal
            logging.getLogger(name).addHandler(logging.NullHandler())
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
