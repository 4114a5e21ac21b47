"""The server of the labelling page: a page, its script and style, and a few calls in JSON.

Which reply stands on the left is drawn for each labeller and item, and the browser never learns which is which; a label
is sent with an id of its own and sent again until the server has it, so a server that was killed loses none and doubles
none (see `store`). An item that one labeller sees is shown to others last, for a while.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from twofile.errors import LabelError
from twofile.serve.guard import Guard
from twofile.serve.label.items import agreement, conversations, pairs
from twofile.serve.label.store import Item, Label, Store

__all__ = ["labelling", "make_app"]

_HERE = Path(__file__).parent
_FILES = {"": "text/html", "label.js": "text/javascript", "label.css": "text/css"}
_HELD = 600.0  # seconds that an item is kept for who sees it
_LONGEST = 100_000  # characters of a text
_SIDES = ("left", "right")


class _Server:
    """The calls of the page."""

    def __init__(self, store: Store, instructions: str, each: int) -> None:
        self.store, self.instructions, self.each = store, instructions, each
        self.lock = threading.Lock()
        self.held: dict[int, tuple[str, float]] = {}  # item: who sees it, since when

    async def file(self, request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in _FILES:
            return PlainTextResponse("there is no such page", 404)
        return Response((_HERE / (name or "label.html")).read_bytes(), media_type=_FILES[name])

    async def next(self, request: Request) -> Response:
        labeller = _labeller(request.query_params.get("labeller"))
        return JSONResponse(await run_in_threadpool(self._next, labeller))

    def _next(self, labeller: str) -> dict[str, Any]:
        now = time.monotonic()
        with self.lock:
            self.held = {k: v for k, v in self.held.items() if now - v[1] < _HELD and v[0] != labeller}
            found = self.store.next(labeller, self.each, list(self.held))
            if found is not None:
                self.held[found.id] = (labeller, now)
        return {
            "item": None if found is None else _shown(found, labeller),
            "counts": self.store.counts(labeller, self.each),
            "instructions": self.instructions,
        }

    async def label(self, request: Request) -> Response:
        return JSONResponse({"outcome": await run_in_threadpool(self._label, await _body(request))})

    def _label(self, said: dict[str, Any]) -> str:
        labeller, item = _labeller(said.get("labeller")), self.store.item(_whole(said.get("item")))
        if said.get("key", item.key) != item.key:
            raise LabelError("this label is of an item of another file of labels")
        text, reason, verdict = (_text(said.get(name, "")) for name in ("text", "reason", "verdict"))
        if verdict in _SIDES:
            if len(item.replies) != 2:
                raise LabelError("this item has not two replies to choose from")
            verdict = ("first", "second")[(verdict == "right") ^ _swapped(item, labeller)]
        elif verdict not in ("tie", "text", "skip"):
            raise LabelError("a verdict is left, right, tie, text or skip")
        if verdict == "text" and not text.strip():
            raise LabelError("the text is empty")
        label = Label(_text(said.get("id", ""), 100), item.id, labeller, verdict, text, reason)  # type: ignore[arg-type]
        if not label.id:
            raise LabelError("a label needs an id")
        return self.store.submit(label)

    async def undo(self, request: Request) -> Response:
        said = await _body(request)
        labeller, id = _labeller(said.get("labeller")), _text(said.get("id", ""), 100)
        label = await run_in_threadpool(self.store.undo, labeller, id)
        if label is None:
            return JSONResponse({"item": None})
        item = self.store.item(label.item)
        with self.lock:
            self.held[item.id] = (labeller, time.monotonic())
        verdict: str = label.verdict
        if verdict in ("first", "second"):
            verdict = _SIDES[(verdict == "second") ^ _swapped(item, labeller)]
        before = {"verdict": verdict, "text": label.text, "reason": label.reason}
        return JSONResponse({"item": _shown(item, labeller), "before": before})

    async def progress(self, request: Request) -> Response:
        found = await run_in_threadpool(self.store.counts, "", self.each)
        return JSONResponse(found | {"alpha": await run_in_threadpool(agreement, self.store)})

    async def export(self, request: Request) -> Response:
        rows = {"conversations": conversations, "pairs": pairs}.get(request.path_params["name"])
        if rows is None:
            return PlainTextResponse("there is no such file", 404)
        found = await run_in_threadpool(lambda: list(rows(self.store)))
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        return Response(lines, media_type="application/x-ndjson")


def make_app(store: Store, port: int, instructions: str = "", each: int = 1) -> Starlette:
    """The server's application. `instructions`: shown beside every item, plain text. `each`: labels that an item wants,
    of different labellers."""
    app = labelling(store, instructions, each)
    app.add_middleware(Guard, port=port)
    return app


def labelling(store: Store, instructions: str = "", each: int = 1) -> Starlette:
    """The same for a place on another server, which guards it."""
    server = _Server(store, instructions, each)

    def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    return Starlette(
        routes=[
            Route("/", server.file),
            Route("/api/next", server.next),
            Route("/api/label", server.label, methods=["POST"]),
            Route("/api/undo", server.undo, methods=["POST"]),
            Route("/api/progress", server.progress),
            Route("/export/{name}.jsonl", server.export),
            Route("/{name}", server.file),
        ],
        exception_handlers={LabelError: refused},
    )


def _swapped(item: Item, labeller: str) -> bool:
    """Whether this labeller sees the second reply on the left."""
    return bool(hashlib.sha256(f"{item.key} {labeller}".encode()).digest()[0] & 1)


def _shown(item: Item, labeller: str) -> dict[str, Any]:
    replies = item.replies[::-1] if len(item.replies) == 2 and _swapped(item, labeller) else item.replies
    return {"id": item.id, "key": item.key, "messages": list(item.messages), "replies": list(replies)}


async def _body(request: Request) -> dict[str, Any]:
    """JSON alone: what another page can send without asking first is something else."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise LabelError("the request is no JSON")
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise LabelError("the request is no JSON") from error
    if not isinstance(found, dict):
        raise LabelError("the request is no JSON object")
    return found


def _labeller(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name.strip()) <= 100:
        raise LabelError("a labeller has a name of at most 100 characters")
    return name.strip()


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise LabelError("an item has a whole number")
    return value


def _text(value: Any, longest: int = _LONGEST) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise LabelError(f"a text has at most {longest} characters")
    return value.encode("utf-8", "replace").decode()  # half a character is none
