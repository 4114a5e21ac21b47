"""A web of its own for the tests: sites on loopback that stand for public addresses, and doors that nobody may open."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twofile.tools.browser.proxy import dial

PUBLIC = "93.184.216.34"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Door:
    """A TCP listener, or a UDP one, that counts who comes."""

    def __init__(self, address: str = "127.0.0.1", udp: bool = False, port: int = 0) -> None:
        self.seen = 0
        self._udp = udp
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        self._socket.bind((address, port))
        self._socket.settimeout(0.02)
        self.port = int(self._socket.getsockname()[1])
        if not udp:
            self._socket.listen(64)
        self._open = True
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while self._open:
            try:
                if self._udp:
                    self._socket.recvfrom(2048)
                    self.seen += 1
                else:
                    other, _ = self._socket.accept()
                    self.seen += 1
                    other.settimeout(1)
                    with other:
                        other.recv(2048)
                        other.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nAccess-Control-Allow-Origin: *\r\n\r\nsecret")
            except TimeoutError:
                continue
            except OSError:
                continue

    def close(self) -> None:
        self._open = False
        self._thread.join()
        self._socket.close()


class Site:
    """An HTTP server on loopback. Routes give (type, body), a place to be led to, or do it all by themselves."""

    def __init__(self, routes: Mapping[str, Any]) -> None:
        self.routes, self.asked = dict(routes), list[str]()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                found = site.routes.get(self.path.partition("?")[0])
                if callable(found):
                    self.close_connection = True
                    found(self)
                elif isinstance(found, str):
                    self.send_response(302)
                    self.send_header("Location", found)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    kind, body = found if found is not None else ("text/plain", b"not here")
                    body = body.encode() if isinstance(body, str) else body
                    self.send_response(404 if found is None else 200)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that goes away

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    async def connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """What the proxy connects with: this site is at the public address, nothing else is anywhere but loopback."""
        if address == PUBLIC:
            return await dial("127.0.0.1", self.port)
        assert address.startswith("127.") or address == "::1", f"a packet would have left the machine, to {address}"
        return await dial(address, port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Names:
    """A resolver. Each name has its answers, one after another; the last stays."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        found = self._answers.get(host)
        if not found:
            raise OSError("no such name")
        return found.pop(0) if len(found) > 1 else found[0]
