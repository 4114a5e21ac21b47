"""Runs inside the sandbox, by itself, with the standard library alone: a port of its loopback that leads to the proxy.

`python forward.py PORT SOCKET PROGRAM ARGUMENT...` becomes PROGRAM; a child stays and passes each connection to PORT
on to the Unix socket. The network namespace is empty but for this loopback, so that the socket is the only way out.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import threading
from contextlib import suppress

_DATA = 3 << 30  # bytes of data that one process of the program may have


def _pass(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _serve(near: socket.socket, path: str) -> None:
    with near, socket.socket(socket.AF_UNIX) as far:
        try:
            far.connect(path)
        except OSError:
            return
        other = threading.Thread(target=_pass, args=(near, far), daemon=True)
        other.start()
        _pass(far, near)
        other.join()


def _forward(listener: socket.socket, path: str) -> None:
    while True:
        near, _ = listener.accept()
        threading.Thread(target=_serve, args=(near, path), daemon=True).start()


def main(port: str, path: str, *program: str) -> None:
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=64)
    if os.fork() == 0:
        os.closerange(3, listener.fileno())  # the program's pipes are not kept open by this
        _forward(listener, path)
    listener.close()
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA, _DATA))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.execv(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
