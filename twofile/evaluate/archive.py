"""The compressed file: what it takes to get the content back, and the parts the content was cut into.

    "twofile", 0xFA | format, 1 byte | length of the rest, 8 bytes | checksum of format and rest, 16 bytes | the rest:
    kernels, version, name of the parameters file: a length of 1 byte and text each
    window, 4 bytes | fingerprint, 16 | size and sha256 of the parameters file, 8 and 32 | checksum of the content, 16
    number of parts; for each its form, bytes, tokens and length of payload | the payloads

Fixed numbers are little-endian, those of parts in base 128, low digits first; checksums are BLAKE2b (RFC 7693). All of
it takes about 130 bytes and 8 a part. The first four fields are the same in every format. The checksum finds damage,
not malice: every number is checked against what is there before it is used.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NoReturn

from twofile.errors import TwofileError

__all__ = ["DIGEST", "Archive", "Form", "Part", "checksum"]

FORMAT = 1
DIGEST = 16  # bytes of a checksum
_MAGIC = b"twofile\xfa"
_FRONT = struct.Struct(f"<8sBQ{DIGEST}s")
_FIXED = struct.Struct(f"<I{DIGEST}sQ32s{DIGEST}s")


def checksum(data: bytes) -> bytes:
    """16 bytes that tell one content from another."""
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


class Form(IntEnum):
    """How a part is kept: whichever is shortest."""

    PLAIN = 0
    LZMA = 1  # raw LZMA2, for what the model cannot give back, or cannot foresee
    MODEL = 2


@dataclass(frozen=True)
class Part:
    """A stretch of the content, which can be had back without the others."""

    form: Form
    size: int  # bytes of content
    tokens: int  # that they are; 0 but for MODEL
    payload: bytes


@dataclass(frozen=True)
class Archive:
    """A compressed file. What `exact.Exact` needs to compute the same bits, and the parts in order."""

    kernels: str
    version: str  # of twofile, that made it
    model: str  # the parameters file's name, for people
    window: int  # tokens that a text is predicted from, at most
    fingerprint: bytes
    model_size: int
    model_sha256: bytes
    digest: bytes  # checksum of the content
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return sum(part.size for part in self.parts)

    @property
    def longest(self) -> int:
        """Tokens of the longest part that the model keeps; 0 where no model is needed."""
        return max((part.tokens for part in self.parts if part.form == Form.MODEL), default=0)

    def signed(self, fingerprint: bytes) -> Archive:
        """The same with a fingerprint, which can be taken when the parts are known."""
        return replace(self, fingerprint=fingerprint)

    def to_bytes(self) -> bytes:
        rest = bytearray()
        for text in (self.kernels, self.version, self.model):
            raw = text.encode()[:255]
            rest += bytes([len(raw)]) + raw
        rest += _FIXED.pack(self.window, self.fingerprint, self.model_size, self.model_sha256, self.digest)
        rest += _number(len(self.parts))
        for part in self.parts:
            for value in (part.form, part.size, part.tokens, len(part.payload)):
                rest += _number(value)
        rest += b"".join(part.payload for part in self.parts)
        return _FRONT.pack(_MAGIC, FORMAT, len(rest), checksum(bytes([FORMAT]) + rest)) + rest

    @classmethod
    def from_bytes(cls, raw: bytes, name: str) -> Archive:
        """Read a compressed file, `name` for people. Raises TwofileError: no such file, a later format, damaged."""
        if len(raw) < _FRONT.size or not raw.startswith(_MAGIC):
            if raw and _MAGIC.startswith(raw[: len(_MAGIC)]):
                _damaged(name, f"it ends after {len(raw)} bytes")
            raise TwofileError(f"{name} is no file that twofile compressed", f"twofile compress {name}")
        _, version, length, digest = _FRONT.unpack_from(raw)
        rest = raw[_FRONT.size :]
        if len(rest) < length:
            _damaged(name, f"{len(rest)} of {length} bytes are there")
        if len(rest) > length:
            _damaged(name, f"{len(rest) - length} bytes follow its end")
        if checksum(bytes([version]) + rest) != digest:
            _damaged(name, "its checksum does not match")
        if version != FORMAT:
            message = f"{name} has format {version}, and this twofile reads {FORMAT}"
            raise TwofileError(message, "pip install -U twofile")
        return cls(*_read(_Rest(rest, name)))


def _read(rest: _Rest) -> Iterator[Any]:
    """The fields of an Archive, in order."""
    for _ in range(3):
        text = rest.take(rest.take(1)[0]).decode("utf-8", errors="replace")
        yield "".join(c if c.isprintable() else "\ufffd" for c in text)  # it goes into messages
    yield from _FIXED.unpack(rest.take(_FIXED.size))
    count = rest.number()
    if count > rest.left:
        rest.wrong(f"it claims {count} parts")
    heads = [(rest.number(), rest.number(), rest.number(), rest.number()) for _ in range(count)]
    parts = []
    for form, size, tokens, length in heads:
        payload = rest.take(length)
        # a token is a byte at least, but for the space that some vocabularies put in front
        wrong = form not in tuple(Form) or (form == Form.PLAIN and size != length)
        if wrong or tokens > (size + 1 if form == Form.MODEL else 0):
            rest.wrong(f"a part of form {form} has {size} bytes, {tokens} tokens and a payload of {length}")
        parts.append(Part(Form(form), size, tokens, payload))
    if rest.left:
        rest.wrong(f"{rest.left} bytes belong to no part")
    yield tuple(parts)


class _Rest:
    """Bytes, read from the front."""

    def __init__(self, raw: bytes, name: str) -> None:
        self._raw, self._at, self._name = raw, 0, name

    @property
    def left(self) -> int:
        return len(self._raw) - self._at

    def take(self, n: int) -> bytes:
        if n > self.left:
            self.wrong(f"{n} bytes are claimed, {self.left} are left")
        self._at += n
        return self._raw[self._at - n : self._at]

    def number(self) -> int:
        value = shift = 0
        while shift < 63:
            digit = self.take(1)[0]
            value |= (digit & 127) << shift
            if digit < 128:
                return value
            shift += 7
        return self.wrong("a number in it does not end")

    def wrong(self, why: str) -> NoReturn:
        _damaged(self._name, why)


def _number(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _damaged(name: str, why: str) -> NoReturn:
    raise TwofileError(f"{name} is damaged: {why}", "fetch or copy it again; what was compressed cannot be had from it")
