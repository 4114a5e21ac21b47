"""What a server may send: how much, how often, and what makes sense of it.

Every message of a server passes through a `Wire` before anything else sees it. A message that is no JSON-RPC, that
answers what was never asked, that is larger than 16 MiB, or one more than the flow of some ten thousand and then a
thousand a second, ends the connection, and `wrong` says why. So does one of more than thirty thousand values, for what
checks them keeps a record of each that is wrong, and a megabyte of wrong ones would stop this program for seconds.
Lines of output that never were meant as messages are let pass, for many programs print some. Of what a server says
unasked only what is of use is handed on. Schemas of results are taken out, for to check a result by a server's own
patterns can take for ever.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio

from twofile.tools.mcp.definition import shown

if TYPE_CHECKING:
    from asyncio import StreamReader

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCMessage

    Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]

__all__ = ["LARGEST", "Wire", "WireError", "lines"]

LARGEST = 1 << 24
"""Bytes of a message: a picture of 8 MiB and what is around it."""

_BURST, _RATE, _PIECE = 10_000.0, 1000.0, 1 << 13  # messages, messages a second, bytes that count as one
_VALUES = 30_000  # of a message, but for what is structured in a result, which nobody checks
_ASKED = 64  # requests of the server that are not answered yet
_KEPT = 1000  # ids of ours
_HEEDED = ("notifications/tools/list_changed", "notifications/subscriptions/acknowledged", "notifications/cancelled")


class WireError(Exception):
    """The server broke the protocol; the text goes on after its name."""


class Wire:
    """What passes between a server and this program. `ended` is set with the end of the connection, and `wrong` then
    says why, as a text that goes on after the server's name."""

    def __init__(self) -> None:
        self.wrong = ""
        self.printed = ""
        self.ended = anyio.Event()
        self._sent: OrderedDict[Any, str] = OrderedDict()
        self._asked: set[Any] = set()
        self._left, self._seen = _BURST, time.monotonic()

    def end(self, why: str) -> None:
        """The connection is over; the first reason counts."""
        self.wrong = self.wrong or why
        self.ended.set()

    def spend(self, count: float, size: int = 0) -> None:
        """Count what came. WireError where it is too much."""
        now = time.monotonic()
        self._left = min(_BURST, self._left + (now - self._seen) * _RATE) - count - size / _PIECE
        self._seen = now
        if self._left < 0:
            raise WireError("floods: it sent more than can be meant" + self.noise)

    @property
    def noise(self) -> str:
        """What it printed that was no message, for the end of a text."""
        return f" (it printed: {self.printed})" if self.printed else ""

    def sent(self, message: JSONRPCMessage) -> None:
        """A message goes out."""
        from mcp_types import JSONRPCNotification, JSONRPCRequest

        if isinstance(message, JSONRPCRequest):
            self._sent[_key(message.id)] = message.method
            while len(self._sent) > _KEPT:
                self._sent.popitem(last=False)
        elif not isinstance(message, JSONRPCNotification):
            self._asked.discard(_key(message.id))

    def line(self, raw: bytes) -> JSONRPCMessage | None:
        """The message in a line, or None for nothing of use. WireError for a line that should have been a message."""
        from mcp_types import jsonrpc_message_adapter

        raw = raw.strip()
        self.spend(1, len(raw))
        if not raw:
            return None
        try:
            message = jsonrpc_message_adapter.validate_json(raw, by_name=False)
        except ValueError:
            try:
                said = shown(raw[:400].decode("utf-8", "strict" if len(raw) <= 400 else "ignore"), 120)
                if len(raw) > 400:
                    raw.decode("utf-8")
            except UnicodeDecodeError:
                raise WireError("sent something that is no UTF-8") from None
            if raw.startswith(b"{"):
                raise WireError(f"sent something that is no message: {said}") from None
            self.printed = self.printed or said
            return None
        return self.received(message)

    def received(self, message: JSONRPCMessage) -> JSONRPCMessage | None:
        """A message came in: itself, or None where it is of no use. WireError where it makes no sense."""
        from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest

        if isinstance(message, JSONRPCNotification):
            self.spend(1)
            if message.method not in _HEEDED:
                return None
            _few(message.params)
            return message
        if isinstance(message, JSONRPCRequest):
            self.spend(1)
            _few(message.params)
            self._asked.add(_key(message.id))
            if len(self._asked) > _ASKED:
                raise WireError("asks more and more, and reads no answers")
            return message
        if message.id is None:
            said = f": {shown(message.error.message)}" if isinstance(message, JSONRPCError) else ""
            raise WireError(f"could not read what it was sent{said}")
        if _key(message.id) not in self._sent:
            raise WireError(f"answered a request that was never made (id {shown(repr(message.id), 40)})")
        if isinstance(message, JSONRPCError):
            _few(message.error.data)
            return message
        _few({key: value for key, value in message.result.items() if key != "structuredContent"})
        if self._sent[_key(message.id)] == "tools/list":
            tools = message.result.get("tools")
            for tool in tools if isinstance(tools, list) else ():
                if isinstance(tool, dict):
                    tool.pop("outputSchema", None)
        return message


async def lines(reader: StreamReader) -> AsyncIterator[bytes]:
    """The lines of a pipe, without their ends. WireError for one that is too long."""
    rest = bytearray()
    while chunk := await reader.read(1 << 16):
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield bytes(rest) + line
            rest.clear()
        rest += last
        if len(rest) > LARGEST:
            raise WireError(f"sent a message of more than {LARGEST >> 20} MiB")
        await anyio.lowlevel.checkpoint()  # data that is always there must not keep others from running
    if rest:
        yield bytes(rest)


def _few(value: Any) -> None:
    """WireError for a value that is made of too many."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict | list):
            count += len(one)
            if count > _VALUES:
                raise WireError(f"sent a message of more than {_VALUES:,} values")
            left.extend(one.values() if isinstance(one, dict) else one)


def _key(identity: Any) -> Any:
    """An id as it is compared: 1 and "1" are the same, as some servers have it."""
    plain = isinstance(identity, str) and len(identity) < 19 and identity.isascii() and identity.isdigit()
    return int(identity) if plain else identity
