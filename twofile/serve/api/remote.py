"""Models of another server that speaks this API (vLLM, llama-server, another twofile) behind this one.

A request goes there as it came, and the answer comes back as it is, while it comes; a client that goes away is one that
went away there. So what the other server cannot do, or cuts, is its own affair. Cost: the bytes, once more.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2 as httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from twofile.errors import TwofileError
from twofile.serve.api.asked import RequestError

__all__ = ["Remote", "remotes"]

_CONNECT, _READ = 10.0, 600.0  # seconds


@dataclass(frozen=True)
class Remote:
    """A model of another server. `url`: of its API, /v1 included; `key`: what it wants to be sent; `shown`: what it
    says of the model."""

    name: str
    url: str
    key: str = ""
    shown: dict[str, Any] = field(default_factory=dict)

    async def forward(self, path: str, body: bytes, request: Request) -> Response:
        """Ask it, and give back what it answers. RequestError (502) where it cannot be reached."""
        headers = {"content-type": "application/json", **_authorised(self.key)}
        async with AsyncExitStack() as until_sent:
            client = await until_sent.enter_async_context(httpx.AsyncClient(timeout=_timeout()))
            asked = client.build_request("POST", f"{self.url}{path}", content=body, headers=headers)
            try:
                if (answer := await _unless_gone(request, client, asked)) is None:
                    return Response(status_code=499)
            except httpx.HTTPError as error:
                raise self._lost(error) from error
            until_sent.push_async_callback(answer.aclose)
            return _Passed(self._parts(answer), answer, until_sent.pop_all())

    async def _parts(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for part in answer.aiter_bytes():
                yield part
        except httpx.HTTPError as error:
            if "event-stream" not in answer.headers.get("content-type", ""):
                raise  # a body that is cut says so
            told = {"message": self._lost(error).message, "type": "server_error", "code": "remote_unavailable"}
            yield f"data: {json.dumps({'error': told})}\n\n".encode()

    def _lost(self, error: httpx.HTTPError) -> RequestError:
        what = f"the server of {self.name!r}, {self.url}, does not answer: {error or type(error).__name__}"
        return RequestError(what, status=502, code="remote_unavailable")


async def _unless_gone(request: Request, client: httpx.AsyncClient, asked: httpx.Request) -> httpx.Response | None:
    """The head of the answer; None where the client has gone before it came."""
    answer, failed = None, None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            answer = await client.send(asked, stream=True)
        except httpx.HTTPError as error:  # of the request, not of the group
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return answer


class _Passed(StreamingResponse):
    """An answer that is passed on; whatever becomes of it, the connection behind it is closed."""

    def __init__(self, parts: AsyncIterator[bytes], answer: httpx.Response, kept: AsyncExitStack) -> None:
        kind = answer.headers.get("content-type", "application/json")
        super().__init__(parts, answer.status_code, media_type=kind)
        self._kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._kept:
            await super().__call__(scope, receive, send)


def _authorised(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _timeout() -> httpx.Timeout:
    return httpx.Timeout(_READ, connect=_CONNECT)


def remotes(url: str, key: str = "") -> list[Remote]:
    """The models of the server at `url`. TwofileError where it does not answer as one of this API does."""
    url = url.rstrip("/")
    try:
        answer = httpx.get(f"{url}/models", headers=_authorised(key), timeout=_CONNECT)
        answer.raise_for_status()
        found = [Remote(str(one["id"]), url, key, dict(one)) for one in answer.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TwofileError(
            f"{url}/models does not answer: {error}", "start that server, or mend the address"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TwofileError(f"{url}/models is no list of models ({error!r})", "the address ends in /v1") from error
    if not found:
        raise TwofileError(f"{url} has no models")
    return found
