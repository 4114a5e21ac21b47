"""An arithmetic coder: symbols whose chances are whole numbers, to bytes and back.

A symbol takes log2(total / size) bits, and a whole message less than a byte more. Everything is arithmetic on whole
numbers, so that what was encoded on one machine is decoded on any other from the same chances. `frequencies` makes them
of logits by the sampler's rule, each of whose operations every machine rounds alike: equal bits in, equal chances out.
About two microseconds a symbol.

Sources: Martin 1979 (range encoding); Witten, Neal & Cleary 1987, Communications of the ACM 30(6).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofile.engine.sampler import weights

__all__ = ["MOST_TOTAL", "Decoder", "Encoder", "frequencies"]

MOST_TOTAL = 1 << 56  # of all sizes: even then rounding costs less than 0.01 bits a symbol
_WORD = 64  # bits that go out together; the interval is kept wider than one word, in two
_MASK = (1 << _WORD) - 1
_WIDE = 2 * _WORD


def frequencies(logits_RV: NDArray[np.float32], allowed_V: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Chances of every token, [rows, vocab]: 2^30 exp(logit - the row's largest), cut to a whole number, and 1 more.

    0 for tokens that are not allowed. A row depends on its own logits alone. What is not a number counts as the least.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        x_RV = logits_RV - logits_RV.max(axis=1, keepdims=True)
        x_RV[np.isnan(x_RV)] = -np.inf
        size_RV = weights(x_RV, 1.0)
    size_RV += 1
    size_RV *= allowed_V
    return size_RV


class Encoder:
    """Takes symbols, gives bytes."""

    def __init__(self) -> None:
        self._low, self._range = 0, (1 << _WIDE) - 1
        self._out = bytearray()

    def encode(self, start: int, size: int, total: int) -> None:
        """Add a symbol: `size` of `total` chances are its own, `start` those of the symbols before it."""
        assert 0 < size <= total - start <= total <= MOST_TOTAL
        step = self._range // total
        self._add(step * start)
        self._range = step * size
        if self._range <= _MASK:
            self._shift()

    def finish(self) -> bytes:
        """The message: the shortest bytes that lie in the interval, whatever follows being taken as zeros."""
        for free in range(_WIDE - 8, -1, -8):  # low bits that may be zero
            value = -(-self._low >> free) << free
            if value < self._low + self._range:
                self._add(value - self._low)
                break
        self._out += self._low.to_bytes(_WIDE // 8, "big")
        return bytes(self._out).rstrip(b"\0")

    def _shift(self) -> None:
        self._out += (self._low >> _WORD).to_bytes(_WORD // 8, "big")
        self._low = (self._low & _MASK) << _WORD
        self._range <<= _WORD

    def _add(self, more: int) -> None:
        self._low += more
        if self._low >> _WIDE:  # a carry into what is out already
            self._low &= (1 << _WIDE) - 1
            i = len(self._out) - 1
            while self._out[i] == 255:
                self._out[i] = 0
                i -= 1
            self._out[i] += 1


class Decoder:
    """Takes what an `Encoder` gave. Of other bytes it makes symbols too: only a checksum tells."""

    def __init__(self, message: bytes) -> None:
        self._message, self._at = message, 0
        self._range = (1 << _WIDE) - 1
        self._code = self._next() << _WORD | self._next()
        self._step = 0

    def point(self, total: int) -> int:
        """Where in [0, total) the next symbol lies: its start <= point < its start + size. Then `take` it."""
        self._step = self._range // total
        return min(self._code // self._step, total - 1)

    def take(self, start: int, size: int) -> None:
        """The symbol at the point was this one."""
        self._range = self._step * size
        self._code = min(self._code - self._step * start, self._range - 1)  # beyond it only for what nobody encoded
        if self._range <= _MASK:
            self._code = self._code << _WORD | self._next()
            self._range <<= _WORD

    def _next(self) -> int:
        word = self._message[self._at : self._at + _WORD // 8]
        self._at += _WORD // 8
        return int.from_bytes(word.ljust(_WORD // 8, b"\0"), "big")
