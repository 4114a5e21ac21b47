"""twofile's drivers and models as an MCP server, over pipes or over HTTP on loopback.

Every call is checked against its driver's schema, against `permit` for each capability that it needs, and run with a
limit of time and of output (`run_driver`); a call that the client gives up is given up here. Over pipes nothing but the
protocol is written to the output: what else is written there while it serves goes to the error output. Over HTTP only
requests to this server's own name are answered, and of pages only its own (DNS rebinding). Every version of the
protocol that the SDK knows is spoken, from 2024-11-05 on.
"""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twofile import __version__
from twofile.errors import ToolError, TwofileError
from twofile.kernel.capability import normal
from twofile.kernel.driver import Context, Driver, Drivers, Outcome, run_driver, text
from twofile.kernel.label import NOBODY

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp_types import CallToolResult
    from starlette.applications import Starlette

__all__ = ["Given", "http_app", "serve_http", "serve_stdio"]

_LARGEST = 1 << 22  # bytes of a request
_SESSIONS = 64


@dataclass(frozen=True)
class Given:
    """What is given to clients: drivers (`generate.Generate` is one), whose schemas are trusted, and what their calls
    may do. `seconds`: the longest that a call may take; `most` and `pictures`: the bytes of text and of pictures that
    it may give; `at_once`: calls that run at one time, the others wait."""

    drivers: Iterable[Driver]
    permit: Callable[[str], bool]
    seconds: float = 120.0
    most: int = 1 << 20
    pictures: int = 1 << 23
    at_once: int = 4


def serve_stdio(given: Given) -> None:
    """Serve whoever started this program, until its input ends."""
    import anyio
    from mcp.server.stdio import stdio_server

    server = _server(given)

    async def serve() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(serve)


def serve_http(given: Given, port: int) -> None:
    """Serve on loopback at http://127.0.0.1:PORT/mcp, until a signal ends it. ToolError where the port is taken."""
    import socket

    import uvicorn

    app = http_app(given, port)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise ToolError(f"cannot listen on port {port}: {error.strerror}", "choose another port") from error
        # a client's open streams are no reason to stay
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listening])


def http_app(given: Given, port: int) -> Starlette:
    """The same as an application of ASGI at /mcp, which answers to loopback's names with this port alone."""
    from mcp.server.transport_security import TransportSecuritySettings

    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts])
    return _server(given).streamable_http_app(
        transport_security=security, max_request_body_size=_LARGEST, max_sessions=_SESSIONS
    )


def _server(given: Given) -> Server[Any]:
    """The server of the SDK."""
    import anyio
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from mcp import MCPError
    from mcp.server import Server
    from mcp_types import INVALID_PARAMS, CallToolRequestParams, ListToolsResult, Tool, ToolAnnotations
    from referencing import Registry

    drivers = Drivers(given.drivers)
    tools = [
        Tool(
            name=name,
            description=drivers[name].about,
            input_schema=dict(drivers[name].schema),
            annotations=ToolAnnotations(idempotent_hint=True, read_only_hint=True) if drivers[name].pure else None,
        )
        for name in drivers.names
    ]
    checks = {name: Draft202012Validator(drivers[name].schema, registry=Registry()) for name in drivers.names}
    limit: list[anyio.CapacityLimiter] = []  # made within the loop

    async def list_tools(_context: object, _params: object) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(_context: object, params: CallToolRequestParams) -> CallToolResult:
        if params.name not in drivers:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name[:100]!r}")
        if not limit:
            limit.append(anyio.CapacityLimiter(given.at_once))
        context = Context(0, time.monotonic() + given.seconds)
        work = functools.partial(
            _called, given, drivers[params.name], checks[params.name], params.arguments or {}, context
        )
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limit[0])
        finally:
            context.cancelled.set()

    return Server("twofile", version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def _called(given: Given, driver: Driver, check: Any, arguments: Mapping[str, Any], context: Context) -> CallToolResult:
    """A call, in a thread of its own."""
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

    def refused(why: str) -> CallToolResult:
        return _result(Outcome((text(f"error: {why}"),), NOBODY, error=True))

    wrong = best_match(check.iter_errors(dict(arguments)))
    if wrong is not None:
        where = ".".join(map(str, wrong.absolute_path)) or "as a whole"
        return refused(f"wrong arguments: {where}: {wrong.message[:300]}")
    try:
        for capability in map(normal, driver.needs(arguments)):
            if not given.permit(capability):
                return refused(f"{driver.name} would need {capability}, which is not granted")
    except (TwofileError, ValueError) as error:
        return refused(str(error))
    except Exception as error:  # a driver's failure is its own
        return refused(f"{driver.name} failed ({type(error).__name__})")
    return _result(run_driver(driver, arguments, context, most=given.most, pictures=given.pictures))


def _result(outcome: Outcome) -> CallToolResult:
    """What came of a call, as the protocol has it: neighbouring texts as one, pictures after what they show."""
    from mcp_types import CallToolResult, ImageContent, TextContent

    content: list[Any] = []
    said = ""
    for part in outcome.parts:
        if part["type"] == "image":
            said += f"[{part['about']}]"
            content.append(TextContent(text=said))
            content.append(ImageContent(data=base64.b64encode(part["data"]).decode(), mime_type=part["mime"]))
            said = ""
        else:
            said += part["text"] if part["type"] == "text" else f"[{part['type']}: {part.get('about', '')}]"
    if said or not content:
        content.append(TextContent(text=said))
    return CallToolResult(content=content, is_error=outcome.error)
