"""A server that is reached over streamable HTTP.

Its answers are bounded as those over pipes are: 16 MiB for one, and for streams that do not end the flow of a `Wire`.
Nothing compressed is taken, for it can be a thousand times what it seems. A redirect is followed within the server's
own origin alone, and no proxy of the environment is used. A stream that ends is opened again once a second at most,
whatever the server asks for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from twofile.tools.mcp.configuration import Remote
from twofile.tools.mcp.wire import LARGEST, Wire, WireError

if TYPE_CHECKING:
    import httpx2

    from twofile.tools.mcp.wire import Streams

__all__ = ["reached"]

_SECONDS, _SILENCE = 30.0, 300.0  # to connect and write; between two pieces of an answer
_AGAIN = 1.0  # seconds between two openings of streams


@asynccontextmanager
async def reached(server: Remote, wire: Wire) -> AsyncIterator[Streams]:
    """The server, as a transport of the SDK: two streams of messages."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.message import SessionMessage

    client = httpx2.AsyncClient(
        headers={**server.headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(_SECONDS, read=_SILENCE),
        transport=_bounded(wire),
        trust_env=False,
    )
    into, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, out = anyio.create_memory_object_stream[SessionMessage](0)
    async with (
        client,
        into,
        read_stream,
        write_stream,
        out,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=LARGEST) as (theirs, ours),
        anyio.create_task_group() as group,
    ):

        async def reads() -> None:
            async with into:
                try:
                    async for one in theirs:
                        if isinstance(one, Exception):
                            raise WireError("sent something that is no message")
                        if (message := wire.received(one.message)) is not None:
                            await into.send(SessionMessage(message, one.metadata))
                except WireError as broken:
                    wire.end(str(broken))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass

        async def writes() -> None:
            async with ours:
                try:
                    async for one in out:
                        wire.sent(one.message)
                        await ours.send(one)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass

        group.start_soon(reads)
        group.start_soon(writes)
        try:
            yield read_stream, write_stream
        finally:
            group.cancel_scope.cancel()


def _bounded(wire: Wire) -> httpx2.AsyncBaseTransport:
    """HTTP whose answers have a size."""
    import httpx2

    class Body(httpx2.AsyncByteStream):
        def __init__(self, inner: httpx2.AsyncByteStream, most: int | None) -> None:
            self.inner, self.most = inner, most

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            try:
                async for data in self.inner:
                    size += len(data)
                    if self.most is None:
                        wire.spend(0, len(data))
                        await anyio.lowlevel.checkpoint()
                    elif size > self.most:
                        raise WireError(f"sent a message of more than {self.most >> 20} MiB")
                    yield data
            except WireError as broken:
                wire.end(str(broken))
                raise httpx2.StreamError(str(broken)) from broken

        async def aclose(self) -> None:
            await self.inner.aclose()

    class Bounded(httpx2.AsyncBaseTransport):
        def __init__(self) -> None:
            self.inner, self.next = httpx2.AsyncHTTPTransport(), 0.0

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.method == "GET":
                now = anyio.current_time()
                wait, self.next = max(0.0, self.next - now), max(self.next, now) + _AGAIN
                await anyio.sleep(wait)
            response = await self.inner.handle_async_request(request)
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            coded = response.headers.get("content-encoding", "identity").strip().lower() or "identity"
            if coded != "identity":
                await response.stream.aclose()
                wire.end(f"sent something compressed ({coded[:20]}), which it was asked not to")
                raise httpx2.RemoteProtocolError("a compressed answer", request=request)
            streams = response.headers.get("content-type", "").lower().startswith("text/event-stream")
            body = Body(response.stream, None if streams else LARGEST)
            return httpx2.Response(
                response.status_code, headers=response.headers, stream=body, extensions=response.extensions
            )

        async def aclose(self) -> None:
            await self.inner.aclose()

    return Bounded()
