"""Who may speak to a page on loopback: this machine's browser, through this page.

A website elsewhere can make a browser send requests here, and can give its own name this address (DNS rebinding). So a
request must name this server as its host, and one that changes something must come from a page of this server. Answers
carry a policy under which a page loads and asks nothing but its own server. Source: OWASP, CSRF prevention.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

__all__ = ["Guard"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Guard(BaseHTTPMiddleware):
    """Refuses what does not come from a page of this server. `port`: the one it listens on."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        super().__init__(app)
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Pass a request on, or answer 403."""
        origin = request.headers.get("origin")
        if request.headers.get("host") not in self.hosts:
            return PlainTextResponse("this server answers to its own name alone", 403)
        if origin is not None and origin.removeprefix("http://") not in self.hosts:
            return PlainTextResponse("this request comes from another page", 403)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response
