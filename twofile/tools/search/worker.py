"""Files are read in a process of their own, which may crash, hang or take all of its memory: then it is another's turn.

`Reader` starts the process when it is first needed and keeps it. A file goes to it as an open handle, for reading; what
comes back is JSON of bounded length. The process has a limit of memory, writes no file, has a clean environment, and is
ended when a file takes too long; the next file gets a new one. It ends with its parent: when the socket closes, or at
the alarm that each file sets. Cost: starting takes 0.2 s, a file 0.1 ms and what its parser takes. What it is not is a
sandbox: a parser that is taken over has the rights of the user.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twofile.tools.search.passage import LONGEST, Document, Passage
from twofile.tools.search.readers import LARGEST, UnreadableError, read
from twofile.tools.search.text import one_line

__all__ = ["Reader", "main"]

_REPLY = 64 << 20  # bytes
_HEAD = 8
_GRACE = 5.0  # seconds beyond those that a reader may take: to start, to parse what cannot be interrupted


class Reader:
    """Reads files, each within `seconds`, all within `memory` bytes of address space. Not for two threads at once."""

    def __init__(self, seconds: float = 30.0, memory: int = 2 << 30) -> None:
        self.seconds, self.memory = seconds, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, handle: int, kind: str) -> Document:
        """The document in an open file. Raises UnreadableError."""
        size = os.fstat(handle).st_size
        if size > LARGEST[kind]:
            raise UnreadableError(f"larger than {LARGEST[kind] >> 20} MB")
        if not size:
            raise UnreadableError("no text in it")
        try:
            table = self._ask(handle, {"kind": kind, "size": size, "seconds": self.seconds})
        except TimeoutError:
            self.close()
            raise UnreadableError(f"takes longer than {self.seconds:.0f} s") from None
        except (OSError, EOFError, ValueError):
            self.close()
            raise UnreadableError("its reader crashed") from None
        except BaseException:  # half of an answer may be on its way
            self.close()
            raise
        if "problem" in table:
            raise UnreadableError(one_line(str(table["problem"]), 100), table.get("lasting") is not False)
        try:
            return _document(table)
        except (KeyError, TypeError, ValueError):  # a process that was taken over may say anything
            self.close()
            raise UnreadableError("its reader crashed") from None

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._socket is not None:
            self._socket.close()
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None

    def _ask(self, handle: int, head: dict[str, Any]) -> dict[str, Any]:
        """Send a file; what came back. Raises TimeoutError; EOFError where the process ended."""
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        assert self._socket is not None
        until = time.monotonic() + self.seconds + _GRACE
        self._socket.settimeout(self.seconds + _GRACE)
        socket.send_fds(self._socket, [json.dumps(head).encode()], [handle])
        size = int.from_bytes(self._exactly(_HEAD, until), "big")
        if size > _REPLY:
            raise ValueError("that is too long for an answer")
        table = json.loads(self._exactly(size, until))
        if not isinstance(table, dict):
            raise ValueError("that is no answer")
        return table

    def _exactly(self, size: int, until: float) -> bytes:
        assert self._socket is not None
        parts, left = [], size
        while left:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            if not (part := self._socket.recv(min(left, 1 << 20))):
                raise EOFError
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(os.path.abspath(one) for one in sys.path if one and Path(one).exists())
        command = [sys.executable, "-B", "-P", "-m", __name__, str(theirs.fileno()), str(self.memory)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"PYTHONPATH": path, "LC_ALL": "C.UTF-8", "PATH": os.defpath},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours


def _document(table: dict[str, Any]) -> Document:
    """What the process says, as it says it when all is well. KeyError, TypeError or ValueError for anything else."""
    found = tuple(
        Passage(_sound(text, 4 * LONGEST), one_line(_sound(place, 1000))) for text, place in table["passages"]
    )
    return Document(one_line(_sound(table["title"], 1000)), found, one_line(_sound(table["note"], 1000)))


def _sound(text: Any, most: int) -> str:
    if not isinstance(text, str) or len(text) > most:
        raise ValueError("that is no text, or too long")
    text.encode()
    return text


def main() -> None:
    """The process: a handle comes in, a document goes out."""
    import resource

    logging.disable()
    channel = socket.socket(fileno=int(sys.argv[1]))
    for kind, most in (("AS", int(sys.argv[2])), ("CORE", 0), ("FSIZE", 0)):
        number = getattr(resource, f"RLIMIT_{kind}")
        with contextlib.suppress(ValueError, OSError):  # a system that has no such limit
            resource.setrlimit(number, (most, most))
    while True:
        message, handles, _, _ = socket.recv_fds(channel, 4096, 1)
        if not message:
            return
        head = json.loads(message)
        signal.alarm(int(head["seconds"] + 2 * _GRACE))
        table: dict[str, Any]
        try:
            with open(handles[0], "rb", buffering=0) as file:
                document = read(_whole(file.fileno(), head["size"]), head["kind"], head["seconds"])
            rows = [(one.text, one.place) for one in document.passages]
            table = {"title": document.title, "note": document.note, "passages": rows}
        except UnreadableError as error:
            table = {"problem": str(error), "lasting": error.lasting}
        except OSError as error:
            table = {"problem": f"cannot be read ({error.strerror})", "lasting": False}
        data = json.dumps(table).encode()
        channel.sendall(len(data).to_bytes(_HEAD, "big") + data)
        signal.alarm(0)


def _whole(handle: int, size: int) -> bytes:
    """So many bytes of a file from its beginning, or as many as there are."""
    parts, at = [], 0
    while at < size and (part := os.pread(handle, min(size - at, 1 << 22), at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
