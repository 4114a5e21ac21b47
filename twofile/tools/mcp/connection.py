"""One server's life: started when it is needed, listed, called, and started again after it failed.

A server that came to its end, broke the protocol, or gave no answer in time is started again at the next call, four
times in a row at most; a call that went well starts the count anew. A call is never made twice. What the server offers
is listed at each start and after it said that it changed. Everything here runs on one loop (`client`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twofile import __version__
from twofile.errors import ToolError
from twofile.tools.mcp.configuration import Configured, Local
from twofile.tools.mcp.definition import Definition, shown
from twofile.tools.mcp.local import Log, spawned
from twofile.tools.mcp.remote import reached
from twofile.tools.mcp.wire import Wire

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult, Tool

__all__ = ["Connection"]

_STARTS = 4
_PAGES, _TOOLS = 50, 500
_LIST = 10.0  # seconds for a list of tools
_CLOSE = 2.0


class Connection:
    """A server. `offered`: its tools by their own names, as it last said; `problems`: what of them cannot be used."""

    def __init__(self, server: Configured, start: float = 30.0) -> None:
        self.server, self.start = server, start
        self.offered: dict[str, Definition] = {}
        self.problems: list[str] = []
        self.log = Log()
        self._wire = Wire()
        self._client: Client | None = None
        self._life: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._lock = asyncio.Lock()
        self._starting: set[asyncio.Task[Client]] = set()
        self._starts, self._doubt, self._mode = 0, False, "auto"

    async def call(
        self, name: str, arguments: Mapping[str, Any], check: Callable[[Definition], None]
    ) -> CallToolResult:
        """What a tool gives. `check` is asked of the tool as it is now, before the call, and may refuse. ToolError for
        a server that fails, ValueError for one that refuses."""
        from mcp import MCPError
        from pydantic import ValidationError

        client = await self._soon()
        if name not in self.offered:
            raise ToolError(f"the server {self.server.name} has no tool {shown(name)} any more", "")
        check(self.offered[name])
        wire = self._wire
        try:
            result = await client.call_tool(name, dict(arguments))
        except MCPError as error:
            self._doubt = True
            await asyncio.sleep(0.1 if error.code == -32000 else 0)  # what ended it may not be known yet
            if wire.wrong:
                raise self._failed(wire) from error
            raise ValueError(f"the server {self.server.name} refused: {shown(error.message, 2000)}") from error
        except ValidationError as error:
            raise ToolError(f"the server {self.server.name} gave a result that is none: {_field(error)}") from error
        except (RuntimeError, ValueError, ExceptionGroup) as error:
            self._doubt = True
            raise ToolError(f"the server {self.server.name} failed: {shown(_why(error))}") from error
        except asyncio.CancelledError:  # out of time, or nobody wants it: whether it lives is asked before the next
            self._doubt = True
            raise
        self._starts = 0
        return result

    async def ready(self, afresh: bool = False) -> Client:
        """Started, and listed since it last changed (or now, `afresh`). ToolError where it fails."""
        async with self._lock:
            if self._client is not None and self._wire.ended.is_set():
                await self._end()
            if self._client is not None and (self._doubt or afresh):
                try:
                    await self._list(self._client)
                except ToolError:
                    await self._end()
            if self._client is None:
                await self._begin()
            assert self._client is not None
            return self._client

    async def close(self) -> None:
        """End it."""
        for one in self._starting:
            one.cancel()
        async with self._lock:
            await self._end()

    def forgive(self) -> None:
        """Let it be started again, however often it failed."""
        self._starts = 0

    @property
    def noise(self) -> str:
        """What it printed that was no message, for the end of a text."""
        return self._wire.noise

    def changed(self) -> None:
        """What it offers may be other than what is known."""
        self._doubt = True

    async def _soon(self) -> Client:
        """`ready`, which goes on when the call that asked for it is given up: the next one finds it started."""
        task = asyncio.create_task(self.ready())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _begin(self) -> None:
        if self._starts >= _STARTS:
            why = f"failed {self._starts} times in a row, and is not started again"
            raise ToolError(f"the server {self.server.name} {why}; at last it {self._wire.wrong or 'gave no answer'}")
        self._starts += 1
        try:
            async with asyncio.timeout(self.start):
                try:
                    client = await self._open(self._mode)
                except ToolError:
                    if self._mode == "legacy" or not isinstance(self.server, Local):
                        raise
                    await self._end()
                    client = await self._open("legacy")  # some older servers end at the question of what they speak
                    self._mode = "legacy"
            await self._list(client)
        except TimeoutError:
            self._wire.end(f"said nothing of use for {self.start:.0f} s after its start{self._wire.noise}")
            await self._end()
            raise self._failed(self._wire) from None
        except BaseException:
            await self._end()
            raise
        self._client = client

    async def _open(self, mode: str) -> Client:
        self._wire, self._stop = Wire(), asyncio.Event()
        opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(mode, self._wire, opened, self._stop))
        return await asyncio.shield(opened)

    async def _live(self, mode: str, wire: Wire, opened: asyncio.Future[Client], stop: asyncio.Event) -> None:
        """A connection from its start to its end."""
        from mcp import Client
        from mcp_types import Implementation, ToolListChangedNotification

        async def heard(message: object) -> None:
            if isinstance(message, ToolListChangedNotification):
                self._doubt = True

        server = self.server
        transport = spawned(server, wire, self.log) if isinstance(server, Local) else reached(server, wire)
        me = Implementation(name="twofile", version=__version__)
        watch: asyncio.Task[None] | None = None
        try:
            async with Client(transport, mode=mode, cache=None, message_handler=heard, client_info=me) as client:
                watch = asyncio.create_task(self._watch(client))
                if not opened.done():
                    opened.set_result(client)
                over = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(wire.ended.wait())]
                try:
                    await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in (*over, watch):
                        one.cancel()
        except asyncio.CancelledError:
            wire.end("was stopped")
            raise
        except BaseException as error:  # of another's library, and of a server's making
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            wire.end(f"failed: {shown(_why(error))}{wire.noise}")
            told = next((one for one in _leaves(error) if isinstance(one, ToolError)), None)
            if not opened.done():
                opened.set_exception(told or self._failed(wire))
                opened.exception()  # whoever waited may be gone
        finally:
            wire.end("was stopped")

    async def _watch(self, client: Client) -> None:
        """Since 2026-07-28 a server says that its tools changed to who listens alone."""
        tools = client.server_capabilities.tools
        with contextlib.suppress(Exception):
            if client.session.discover_result is not None and tools is not None and tools.list_changed:
                async with client.listen(tools_list_changed=True) as events:
                    async for _ in events:
                        self._doubt = True

    async def _list(self, client: Client) -> None:
        """Ask what it offers."""
        from mcp import MCPError
        from pydantic import ValidationError

        name, wire = self.server.name, self._wire
        found: list[Tool] = []
        cursor, pages = None, 0
        self._doubt = False  # a change from here on is another
        try:
            async with asyncio.timeout(_LIST):
                while pages == 0 or (cursor is not None and pages < _PAGES and len(found) <= _TOOLS):
                    page = await client.list_tools(cursor=cursor)
                    found += page.tools
                    cursor, pages = page.next_cursor, pages + 1
        except TimeoutError:
            wire.end(f"gave no list of its tools in {_LIST:.0f} s{wire.noise}")
            raise self._failed(wire) from None
        except ValidationError as error:
            raise ToolError(f"the server {name} gave a list of tools that is none: {_field(error)}") from error
        except MCPError as error:
            await asyncio.sleep(0.1 if error.code == -32000 else 0)
            if wire.wrong:
                raise self._failed(wire) from error
            raise ToolError(f"the server {name} gave no list of its tools: {shown(error.message)}") from error
        except (RuntimeError, ValueError, ExceptionGroup) as error:
            raise ToolError(f"the server {name} failed: {shown(_why(error))}") from error
        self.offered, self.problems = self._judged(found, cursor is not None or len(found) > _TOOLS)

    def _judged(self, tools: list[Tool], more: bool) -> tuple[dict[str, Definition], list[str]]:
        """Those that can be used, and what is wrong with the others."""
        offered: dict[str, Definition] = {}
        problems = [f"it has more than {_TOOLS} tools; the rest is left out"] if more else []
        known: set[str] = set()
        for tool in tools[:_TOOLS]:
            hints = tool.annotations
            pure = bool(hints and (hints.read_only_hint or hints.idempotent_hint))
            try:
                one = Definition(self.server.name, tool.name, tool.description or "", tool.input_schema, pure)
                _usable(one)
                if one.known_as in known:
                    raise ValueError("is there twice")
            except ValueError as error:
                problems.append(f"the tool {shown(tool.name, 64)} {shown(str(error))}: it is left out")
                continue
            known.add(one.known_as)
            offered[one.name] = one
        return offered, problems

    async def _end(self) -> None:
        """Stop it, whatever state it is in."""
        life, self._life, opened, self._client = self._life, None, self._client is not None, None
        if life is None:
            return
        self._stop.set()
        if opened:
            await asyncio.wait([life], timeout=_CLOSE)
        if not life.done():
            life.cancel()
            await asyncio.wait([life], timeout=_CLOSE)

    def _failed(self, wire: Wire) -> ToolError:
        return ToolError(f"the server {self.server.name} {wire.wrong}")


def _usable(one: Definition) -> None:
    """ValueError for a schema that no grammar can be made of."""
    from llguidance import LLMatcher

    if one.schema.get("type") != "object":
        raise ValueError("has a schema that is not of an object")
    try:
        wrong = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(one.schema))
    except (ValueError, TypeError) as error:
        wrong = str(error)
    if wrong:
        raise ValueError(f"has a schema that cannot be used: {wrong.strip()}")


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors within a group of errors."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]


def _why(error: BaseException) -> str:
    leaf = _leaves(error)[0]
    return f"{type(leaf).__name__}: {leaf}" if str(leaf) else type(leaf).__name__


def _field(error: Any) -> str:
    """The first field that is wrong, without the address of a manual."""
    first = error.errors(include_url=False, include_input=False)[0]
    return shown(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
