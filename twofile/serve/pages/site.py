"""The pages put together, beside the API on one server: addresses, policy, uploads, and the text of turns as it comes.

A page may load and ask what this server gives it and nothing else; no text is evaluated as script, and inline scripts
are those that this server wrote (a nonce). Addresses with parameters show something; none begins anything.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from nicegui import app as nicegui
from nicegui import ui
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twofile.errors import KernelError, TwofileError
from twofile.serve.label.app import labelling
from twofile.serve.pages import chat, inside, library, processes, train
from twofile.serve.pages.desk import LARGEST, Desk
from twofile.serve.pages.markup import Blocks
from twofile.serve.pages.turns import Live

__all__ = ["add_pages"]

_ASSETS = Path(__file__).with_name("assets")
_PAUSE = 1 / 30  # seconds between two pieces of a text: what comes in between goes together
_INLINE = re.compile(rb"<(script|style)(?=[ >])")
_SHEETS = ("pages", "code", "chat", "inside", "train", "library", "processes")
_HEAD = "".join(f'<link rel="stylesheet" href="/assets/{name}.css">' for name in _SHEETS) + (
    '<script src="/assets/theme.js"></script><script src="/assets/page.js" defer></script>'
)


class _Policy:
    """Gives every page a policy of its own, and the scripts that this server wrote in it the nonce that it names."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        nonce = secrets.token_urlsafe(16)
        start: Message | None = None
        body = b""

        async def policed(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                headers = [(name.lower(), value) for name, value in message["headers"]]
                if not any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers):
                    return await send(message)
                kept = [(name, value) for name, value in headers if name != b"content-length"]
                start = {**message, "headers": [*kept, (b"content-security-policy", _policy(nonce).encode())]}
                return None
            if start is None:
                return await send(message)
            body += message.get("body", b"")
            if not message.get("more_body"):
                await send(start)
                marked = _INLINE.sub(rb'<\1 nonce="' + nonce.encode() + rb'"', body)
                await send({"type": "http.response.body", "body": marked})
            return None

        return await self.app(scope, receive, policed)


def _policy(nonce: str) -> str:
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src-elem 'self' 'nonce-{nonce}'; "
        "style-src-attr 'unsafe-inline'; connect-src 'self'; img-src 'self'; font-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; frame-src 'self'"
    )


class _Files:
    """What pages send and ask for beside themselves."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def upload(self, request: Request) -> Response:
        """Take a file. Bounded while it comes, typed by what it holds."""
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                return JSONResponse({"error": f"a file has at most {LARGEST >> 20} MB"}, 413)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                file.writelines(parts)

        try:
            made = await asyncio.to_thread(self.desk.store, request.query_params.get("name", "file"), write)
        except TwofileError as error:
            return JSONResponse({"error": error.message}, 415)
        return JSONResponse({"id": made.id, "name": made.name, "kind": made.kind, "bytes": made.bytes})

    async def kept(self, request: Request) -> Response:
        """A picture of a call, or of a message."""
        try:
            path = self.desk.kernel.log.kept(request.path_params["name"])
        except KernelError:
            return Response(status_code=404)
        kind = {".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}.get(path.suffix)
        if kind is None or not path.is_file():
            return Response(status_code=404)
        return FileResponse(path, media_type=kind)

    async def export(self, request: Request) -> Response:
        """A conversation as a file: JSON with all its versions, or the text of one."""
        pid, form = request.path_params["pid"], request.path_params["form"]
        try:
            if form == "json":
                found = await asyncio.to_thread(self.desk.conversations.exported, pid)
                body, kind = json.dumps(found, ensure_ascii=False, indent=1), "application/json"
            elif form == "md":
                events = await asyncio.to_thread(self.desk.kernel.log.events, pid)
                said = [event for event in events if event.kind in ("user", "assistant") and event.body["text"]]
                body = "\n\n".join(f"**{event.kind}**\n\n{event.body['text']}" for event in said) + "\n"
                kind = "text/markdown"
            else:
                return Response(status_code=404)
        except KernelError:
            return Response(status_code=404)
        name = {"Content-Disposition": f'attachment; filename="conversation-{pid}.{form}"'}
        return Response(body, media_type=kind, headers=name)

    async def live(self, request: Request) -> Response:
        """A text of a turn under way, as server-sent events: {"html": what is whole, "tail": the rest} and {"text":
        more}, {"end": true} in the end. 204, which ends the asking, where there is none."""
        turn = self.desk.turns.of(request.path_params["pid"])
        number = request.path_params["part"]
        if turn is None or number >= len(turn.parts):
            return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(turn, number), media_type="text/event-stream", headers=headers)


async def _events(turn: Live, number: int) -> AsyncIterator[str]:
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    leave = turn.listen(lambda: loop.call_soon_threadsafe(changed.set))
    part, at, blocks = turn.parts[number], 0, Blocks()
    try:
        while True:
            changed.clear()
            ended, new = part.ended, part.text[at:]
            at += len(new)
            if new:
                html = blocks.feed(new)
                yield _event({"html": html, "tail": blocks.tail} if html else {"text": new})
            if ended:
                yield _event({"end": True})
                return
            await changed.wait()
            await asyncio.sleep(_PAUSE)
    finally:
        leave()


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def add_pages(app: Starlette, desk: Desk) -> None:
    """Give a server its pages. NiceGUI is one a process, and so are the pages."""
    files = _Files(desk)
    app.router.routes += [
        Route("/uploads", files.upload, methods=["POST"]),
        Route("/kept/{name}", files.kept),
        Route("/export/{pid:int}.{form}", files.export),
        Route("/live/{pid:int}/{part:int}", files.live),
        Mount("/label", labelling(desk.labels)),
        Mount("/assets", StaticFiles(directory=_ASSETS)),
    ]
    ui.add_head_html(_HEAD, shared=True)
    nicegui.config.quasar_config["loadingBar"]["skipHijack"] = True  # no bar of its own at every upload
    for page in (chat, inside, train, library, processes):
        page.add(desk)
    app.user_middleware.append(Middleware(_Policy))  # within the guard, whose policy is of what has none
    ui.run_with(
        cast(FastAPI, app),
        title="twofile",
        favicon=_ASSETS / "mark.svg",
        language="en-GB",
        tailwind=False,
        show_welcome_message=False,
        binding_refresh_interval=None,
        gzip_middleware_factory=None,
        reconnect_timeout=10.0,
    )
