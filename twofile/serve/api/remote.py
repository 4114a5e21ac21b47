"""Models of another server that speaks this API (vLLM, llama-server, another twofile) behind this one.

A request goes there as it came, and the answer comes back as it is, while it comes; a client that goes away is one that
went away there. So what the other server cannot do, or cuts, is its own affair. Cost: the bytes, once more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2 as httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

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
            kept = until_sent.pop_all()
            kind = answer.headers.get("content-type", "application/json")
            return StreamingResponse(_bytes(answer, kept), answer.status_code, media_type=kind)

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


async def _bytes(answer: httpx.Response, kept: AsyncExitStack) -> AsyncIterator[bytes]:
    async with kept:
        async for part in answer.aiter_bytes():
            yield part


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
