"""Who may speak to a server on loopback: this machine, and of browsers only its own pages.

A website elsewhere can make a browser send requests here, and can give its own name this address (DNS rebinding). So a
request must name this server as its host, and one that a page sends must come from a page of this server. A server that
others can reach wants a token of everybody. The same holds for sockets. Answers carry a policy under which a page
loads and asks nothing but its own server, unless they have one of their own. Source: OWASP, CSRF prevention.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_ADDED = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what does not come from this machine or a page of this server. `port`: the one it listens on; `token`:
    what everybody must send as a bearer, "" for nothing; `anywhere`: whether it listens to more than loopback; `host`:
    another name of loopback that it listens to."""

    def __init__(self, app: ASGIApp, port: int, token: str = "", anywhere: bool = False, host: str = "") -> None:
        self.app, self.token, self.anywhere = app, token, anywhere
        names = {*_LOOPBACK, *([f"[{host}]" if ":" in host else host] if host else [])}
        self.hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 or 403."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if refused := self._refused(Headers(scope=scope), scope.get("method") == "GET"):
            status, why = refused
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": why})  # before it is accepted: 403
                return
            error = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
            await JSONResponse({"error": error}, status)(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ADDED.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_policy)

    def _refused(self, headers: Headers, reading: bool) -> tuple[int, str] | None:
        """Why a request is refused. `reading`: it is a GET. What another page asks for without an origin, a picture or
        a script, a browser marks by Sec-Fetch-Site; from there one may come by a link, and no other way."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts and not self.anywhere:
            return 403, "this server answers to its own name alone"
        if origin is not None and origin.partition("://")[2] not in (
            self.hosts | {host} if self.anywhere else self.hosts
        ):
            return 403, "this request comes from another page"
        by_link = (
            reading and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        )
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not by_link:
            return 403, "this request comes from another page"
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if self.token and not hmac.compare_digest(given.encode("latin-1"), self.token.encode()):
            return 401, "this server wants its token: Authorization: Bearer TOKEN"
        return None
