"""The small web, served on loopback: its pages, and a search that answers as SearXNG does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from twofile.tools.errands.world import World

__all__ = ["Site"]


class Site:
    """A context manager: serves while it is open. `asked`: the paths that were asked for."""

    def __init__(self, world: World) -> None:
        pages = {page.path: page for page in world.pages}
        asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                asked.append(self.path)
                if address.path == "/search":
                    query = (parse_qs(address.query).get("q") or [""])[0]
                    found = [
                        {"title": page.title, "url": site.address + page.path, "content": page.line}
                        for page in world.search(query)[:10]
                    ]
                    self._send(200, "application/json", json.dumps({"results": found}))
                elif (page := pages.get(address.path)) is not None:
                    self._send(200, "text/html; charset=utf-8", page.html)
                else:
                    self._send(404, "text/html; charset=utf-8", "<h1>There is no such page</h1>")

            def _send(self, status: int, kind: str, text: str) -> None:
                raw = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.asked = asked
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
