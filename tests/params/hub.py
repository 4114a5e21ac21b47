"""A hub on loopback: the endpoints a download needs, with the faults that networks have.

`GET /api/models/{repo}` lists files with sizes and checksums; for datasets that is `GET /api/datasets/{repo}` and `GET
/api/datasets/{repo}/tree/{commit}/{folder}`. `GET /{repo}/resolve/{commit}/{file}` sends one, whole or from a byte on.
Large files are redirected to another host name, as the real hub does to its storage.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


@dataclass
class Hub:
    """What the hub holds, how it misbehaves, and what it was asked."""

    files: dict[str, dict[str, bytes]]  # repository ("datasets/user/repo" for a dataset) -> path -> content
    large: int = 100  # files of this size or more are LFS files
    break_after: int | None = None  # close the connection once after so many bytes of a file
    reset_after: int | None = None  # as break_after, by a reset
    stall_after: int | None = None  # send nothing more, once, after so many bytes, until the other side has left
    damage_at: int | None = None  # change one byte of a file once
    lie: bytes | None = None  # send this instead of the content
    ranges: bool = True  # honour Range
    gated: bool = False
    listing: bytes | None = None  # answer the listing with this
    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path, headers in lower case

    def asked(self, part: str) -> list[dict[str, str]]:
        return [headers for path, headers in self.requests if part in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server.hub
        path = self.path.partition("?")[0]
        hub.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        parts = path.strip("/").split("/")
        if parts[0] == "datasets":
            parts = ["/".join(parts[:2]), *parts[2:]]
        if parts[:2] == ["api", "datasets"]:
            self.dataset("/".join(parts[1:4]), parts[4:])
        elif parts[:2] == ["api", "models"]:
            self.listing("/".join(parts[2:4]))
        elif parts[2:4] == ["resolve", COMMIT]:
            self.file("/".join(parts[:2]), "/".join(parts[4:]), redirect=True)
        elif parts[0] == "storage":
            end = 4 if parts[1] == "datasets" else 3
            self.file("/".join(parts[1:end]), "/".join(parts[end:]), redirect=False)
        else:
            self.answer(404, b"")

    def listing(self, repo: str) -> None:
        hub = self.server.hub
        if hub.gated:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        if hub.listing is not None:
            return self.answer(200, hub.listing)
        if repo not in hub.files:
            return self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        siblings = []
        for path, content in hub.files[repo].items():
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": _blob(content)}
            if len(content) >= hub.large:
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        body = {"id": repo, "sha": COMMIT, "siblings": siblings}
        return self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def dataset(self, repo: str, rest: list[str]) -> None:
        hub = self.server.hub
        if repo not in hub.files:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if rest[:1] != ["tree"]:
            return self.answer(200, json.dumps({"id": repo, "sha": COMMIT}).encode())
        folder = "/".join(rest[2:])
        entries: list[dict[str, Any]] = []
        for path, content in hub.files[repo].items():
            if path.startswith(folder):
                entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
                if len(content) >= hub.large:
                    entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
                entries.append(entry)
        return self.answer(200, json.dumps([*entries, {"type": "directory", "path": "data", "oid": "0" * 40}]).encode())

    def file(self, repo: str, path: str, redirect: bool) -> None:
        hub = self.server.hub
        content = hub.files.get(repo, {}).get(path)
        if content is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        if redirect and len(content) >= hub.large:
            location = f"http://localhost:{self.server.server_address[1]}/storage/{repo}/{path}"
            return self.answer(302, b"", {"Location": location})
        if hub.lie is not None:
            content = hub.lie
        start, status, headers = 0, 200, {"ETag": '"x"', "X-Repo-Commit": COMMIT}
        if hub.ranges and "Range" in self.headers:
            start, status = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if hub.damage_at is not None:
            at, hub.damage_at = hub.damage_at, None
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        if hub.reset_after is not None:
            cut, hub.reset_after = hub.reset_after, None
            self.answer(status, content[start:], headers, cut)
            time.sleep(0.1)  # until what was sent has arrived: a reset forgets the rest
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
            return None
        if hub.stall_after is not None:
            cut, hub.stall_after = hub.stall_after, None
            self.answer(status, content[start:], headers, cut)
            self.connection.recv(1)  # returns when the other side gives up
            return None
        if hub.break_after is not None:
            cut, hub.break_after = hub.break_after, None
            return self.answer(status, content[start:], headers, cut)
        return self.answer(status, content[start:], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Server(ThreadingHTTPServer):
    hub: Hub
    daemon_threads = True
    block_on_close = False


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port of 127.0.0.1; sets its `url`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
