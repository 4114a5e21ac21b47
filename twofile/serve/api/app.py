"""The server of the API: which models there are, who may ask, and what an error looks like.

All models run in one process, each with a scheduler of its own, so that requests share passes over the weights. A text
that does not fit into the context is an error that says both numbers; nothing is cut. A client that goes away stops
what it asked for within a token. Answers wait in threads, one a request under way.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from twofile.engine.engine import Engine
from twofile.engine.scheduler import Scheduler
from twofile.engine.template import ChatTemplate
from twofile.errors import ContextError, TwofileError
from twofile.serve.api import chat, completions
from twofile.serve.api.asked import ChatAsked, CompletionAsked, RequestError
from twofile.serve.guard import Guard

__all__ = ["Served", "make_app"]

_AT_ONCE = 1000  # requests under way: each waits in a thread
_LARGEST = 64 << 20  # bytes of a request

Asked = TypeVar("Asked", bound=BaseModel)


@dataclass(frozen=True)
class Served:
    """A model that is served."""

    name: str
    engine: Engine
    scheduler: Scheduler
    template: ChatTemplate
    since: int

    @classmethod
    def open(cls, name: str, engine: Engine) -> Served:
        """Serve an engine; closing is the caller's."""
        return cls(name, engine, Scheduler(engine), ChatTemplate.of(engine), int(time.time()))


class _Api:
    def __init__(self, models: Mapping[str, Served]) -> None:
        self.models = models
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def limiter(self) -> anyio.CapacityLimiter:
        if self._limiter is None:  # it belongs to the loop that runs
            self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        return self._limiter

    def model(self, name: str) -> Served:
        if name not in self.models:
            known = ", ".join(self.models)
            raise RequestError(f"there is no model {name!r}; there are: {known}", status=404, code="model_not_found")
        return self.models[name]

    async def list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_shown(served) for served in self.models.values()]})

    async def one(self, request: Request) -> Response:
        return JSONResponse(_shown(self.model(request.path_params["name"])))

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def chat(self, request: Request) -> Response:
        asked = await _read(request, ChatAsked)
        served = self.model(asked.model)
        return await self._answer(
            request, asked.stream, lambda: chat.answer(served, asked), lambda: chat.stream(served, asked)
        )

    async def complete(self, request: Request) -> Response:
        asked = await _read(request, CompletionAsked)
        served = self.model(asked.model)
        whole, parts = (lambda: completions.answer(served, asked)), (lambda: completions.stream(served, asked))
        return await self._answer(request, asked.stream, whole, parts)

    async def _answer(
        self,
        request: Request,
        streamed: bool,
        whole: Callable[[], Iterator[dict[str, Any] | None]],
        parts: Callable[[], Iterator[dict[str, Any]]],
    ) -> Response:
        """Run one of the two in threads. `whole` gives None as it goes on, in the end the answer; `parts`, chunks."""
        if not streamed:
            found = await self._thread(whole)
            answer, failed = None, None
            try:
                async with anyio.create_task_group() as group:
                    gone = anyio.Event()

                    async def watch() -> None:
                        while not gone.is_set():
                            if (await request.receive())["type"] == "http.disconnect":
                                gone.set()

                    group.start_soon(watch)
                    try:
                        while answer is None and not gone.is_set():
                            answer = await self._thread(next, found)
                    except Exception as error:  # of the request, not of the group
                        failed = error
                    group.cancel_scope.cancel()
            finally:
                found.close()
            if failed is not None:
                raise failed
            return JSONResponse(answer) if answer is not None else Response(status_code=499)
        chunks = await self._thread(parts)
        first = await self._thread(next, chunks, None)  # what is wrong with a request is said before the stream begins

        async def lines() -> AsyncIterator[str]:
            chunk = first
            try:
                while chunk is not None:
                    yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
                    chunk = await self._thread(_next_chunk, chunks)
                yield "data: [DONE]\n\n"
            finally:
                chunks.close()

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def _thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await to_thread.run_sync(function, *arguments, limiter=self.limiter)


def _next_chunk(chunks: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    """The next one, or what went wrong as one, for the head of the answer is sent by then; None at the end."""
    try:
        return next(chunks, None)
    except (TwofileError, RequestError, ValueError) as error:
        return _error(error)[1]


async def _read(request: Request, kind: type[Asked]) -> Asked:
    """The body of a request, checked. RequestError, with the field, where it is something else."""
    if int(request.headers.get("content-length") or 0) > _LARGEST:
        raise RequestError(f"a request has at most {_LARGEST >> 20} MB", status=413)
    try:
        return kind.model_validate(json.loads(await request.body()))
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(place) for place in first["loc"]) or None
        told = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{param}: {told}" if param else told, param=param) from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is no JSON: {error}") from None


def _error(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body in the form of OpenAI's API."""
    status, param, code, kind = 400, None, None, "invalid_request_error"
    if isinstance(error, RequestError):
        status, param, code = error.status, error.param, error.code
    elif isinstance(error, ContextError):
        code = "context_length_exceeded"
    elif not isinstance(error, TwofileError | ValueError):
        status, kind = 500, "server_error"
    text = f"{error.message}. {error.hint}" if isinstance(error, TwofileError) and error.hint else str(error)
    return status, {"error": {"message": text, "type": kind, "param": param, "code": code}}


def _shown(served: Served) -> dict[str, Any]:
    size = {"context_length": served.engine.context_length, "max_model_len": served.engine.context_length}
    return {"id": served.name, "object": "model", "created": served.since, "owned_by": "twofile", **size}


def make_app(models: Mapping[str, Served], port: int, *, token: str = "", anywhere: bool = False) -> Starlette:
    """The application. `token`: what clients must send, "" for nothing; `anywhere`: it listens to other machines."""
    api = _Api(models)

    def said(request: Request, error: Exception) -> Response:
        status, body = _error(error)
        return JSONResponse(body, status)

    def not_there(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = f"{request.method} {request.url.path} is nothing that this server answers"
        return said(request, RequestError(what, status=error.status_code))

    return Starlette(
        routes=[
            Route("/v1/models", api.list),
            Route("/v1/models/{name:path}", api.one),
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/completions", api.complete, methods=["POST"]),
            Route("/health", api.health),
        ],
        middleware=[Middleware(Guard, port=port, token=token, anywhere=anywhere)],
        exception_handlers=dict.fromkeys((RequestError, TwofileError, ValueError, Exception), said)
        | {HTTPException: not_there},
    )
