"""Surprise: how many bits a model needs to be told each token of a text, given those before it.

The sum over a text, divided by its bytes, is its bits per byte (see `bits`, whose windows these are). Every token has a
surprise, the first one too: where a file asks for no bos, another token stands before the text.
"""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass

from twofile.engine.backend import Info
from twofile.engine.engine import Engine
from twofile.evaluate.bits import nats

__all__ = ["Surprise", "first_token", "surprises"]


@dataclass(frozen=True)
class Surprise:
    """Some tokens and what they say: one token, or as many as share a character."""

    tokens: tuple[int, ...]
    text: str
    bits: float


def first_token(info: Info) -> int:
    """What stands before a text: bos, else what ends one, else the first token there is."""
    return next((token for token in (info.bos, info.eos) if token >= 0), 0)


def surprises(engine: Engine, text: str | bytes) -> list[Surprise]:
    """Token by token, in order. Bytes that are not UTF-8 show as U+FFFD. Costs about two passes over a long text."""
    ids = engine.tokenize(text)
    bits = nats(engine, [first_token(engine.info), *ids], engine.context_length) / math.log(2)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    found: list[Surprise] = []
    begin, shown = 0, ""
    for end, token in enumerate(ids, 1):
        shown += decoder.decode(engine.detokenize_bytes([token], skip_space=end == 1), final=end == len(ids))
        if not decoder.getstate()[0]:  # no character is left unfinished
            found.append(Surprise(tuple(ids[begin:end]), shown, float(bits[begin:end].sum())))
            begin, shown = end, ""
    return found
