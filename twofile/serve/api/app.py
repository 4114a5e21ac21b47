"""The server of the API: which models there are, who may ask, and what an error looks like.

All models run in one process, each with a scheduler of its own, so that requests share passes over the weights. A text
that does not fit into the context is an error that says both numbers; nothing is cut. A client that goes away stops
what it asked for within a token. Answers wait in threads, one a request under way.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
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
from twofile.kernel.process import Image
from twofile.serve.api import chat, completions, embeddings
from twofile.serve.api.answering import Answering
from twofile.serve.api.asked import ChatAsked, CompletionAsked, EmbeddingAsked, RequestError
from twofile.serve.api.remote import Remote
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

    @classmethod
    def of(cls, name: str, image: Image) -> Served:
        """Serve what runs processes, too: requests and processes share passes over the weights."""
        return cls(name, image.engine, image.scheduler, image.template, int(time.time()))


class _Api:
    def __init__(self, models: Mapping[str, Served | Remote]) -> None:
        self.models = models
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def limiter(self) -> anyio.CapacityLimiter:
        if self._limiter is None:  # it belongs to the loop that runs
            self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        return self._limiter

    def model(self, name: str) -> Served | Remote:
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
        def begin(served: Served, asked: ChatAsked) -> tuple[bool, Answering]:
            return asked.stream, (chat.stream if asked.stream else chat.answer)(served, asked)

        return await self._post(request, ChatAsked, begin)

    async def complete(self, request: Request) -> Response:
        def begin(served: Served, asked: CompletionAsked) -> tuple[bool, Answering]:
            return asked.stream, (completions.stream if asked.stream else completions.answer)(served, asked)

        return await self._post(request, CompletionAsked, begin)

    async def embed(self, request: Request) -> Response:
        return await self._post(
            request, EmbeddingAsked, lambda served, asked: (False, embeddings.answer(served, asked))
        )

    async def _post(
        self, request: Request, kind: type[Asked], begin: Callable[[Served, Asked], tuple[bool, Answering]]
    ) -> Response:
        """A request of a kind, to the model that it names, here or elsewhere. `begin`: whether the answer is a stream,
        and the answer."""
        body = await _body(request)
        name = await to_thread.run_sync(_named, body)
        if isinstance(found := self.models.get(name), Remote):
            return await found.forward(request.url.path.removeprefix("/v1"), body, request)
        asked = await to_thread.run_sync(_checked, body, kind)
        served = self.model(name)
        assert isinstance(served, Served)
        return await self._answer(request, lambda: begin(served, asked))

    async def _answer(self, request: Request, begin: Callable[[], tuple[bool, Answering]]) -> Response:
        """Begin, which raises what is wrong with a request, and send what comes of it, or until the client is gone."""
        streamed, answering = await to_thread.run_sync(begin, limiter=self.limiter)
        if streamed:
            return StreamingResponse(self._lines(answering), media_type="text/event-stream")
        answer: dict[str, Any] | None = {}
        failed = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                answering.cancel()

            group.start_soon(watch)
            try:
                while answer == {}:
                    answer = await to_thread.run_sync(next, answering, None, limiter=self.limiter)
            except Exception as error:  # of the request, not of the group
                failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return JSONResponse(answer) if answer is not None else Response(status_code=499)

    async def _lines(self, answering: Answering) -> AsyncIterator[str]:
        try:
            while (
                chunk := await to_thread.run_sync(_chunk, answering, abandon_on_cancel=True, limiter=self.limiter)
            ) is not None:
                if chunk:
                    yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            answering.cancel()  # the thread that waits for it, too, where the client has gone


def _chunk(answering: Answering) -> dict[str, Any] | None:
    """The next one, or what went wrong as one, for the head of the answer is sent by then; None at the end."""
    try:
        return next(answering, None)
    except Exception as error:
        return _error(error)[1]


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST:
            raise RequestError(f"a request has at most {_LARGEST >> 20} MB", status=413)
    return bytes(body)


def _named(body: bytes) -> str:
    """The model that a request names, "" where it names none."""
    try:
        found = json.loads(body)["model"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


def _checked(body: bytes, kind: type[Asked]) -> Asked:
    """What a body asks. RequestError, with the field, where it is something else."""
    try:
        return kind.model_validate(json.loads(body))
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


def _shown(served: Served | Remote) -> dict[str, Any]:
    if isinstance(served, Remote):
        return served.shown
    size = {"context_length": served.engine.context_length, "max_model_len": served.engine.context_length}
    return {"id": served.name, "object": "model", "created": served.since, "owned_by": "twofile", **size}


def make_app(
    models: Mapping[str, Served | Remote], port: int, *, token: str = "", anywhere: bool = False, host: str = ""
) -> Starlette:
    """The application. `token`: what clients must send, "" for nothing; `anywhere`: it listens to other machines;
    `host`: the address that it listens to."""
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
            Route("/v1/embeddings", api.embed, methods=["POST"]),
            Route("/health", api.health),
        ],
        middleware=[Middleware(Guard, port=port, token=token, anywhere=anywhere, host=host)],
        exception_handlers=dict.fromkeys((RequestError, TwofileError, ValueError, Exception), said)
        | {HTTPException: not_there},
    )
