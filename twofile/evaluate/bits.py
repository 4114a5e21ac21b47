"""Bits per byte: how many bits a model needs, on average, to tell one byte of a text; comparable across vocabularies.

Each document is read by itself, as the model was trained to begin one (after bos where the file asks for it), in
windows of the context that overlap by half: a token is predicted from at least half a context of what came before it,
where there is so much. The end of a document is not predicted: it is no byte of it. Without a bos the first token is
not predicted either, and its bytes are not counted. The interval is over documents. Cost: about two passes over a long
text, one over a short one; memory for 256 rows of logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bits", "Model", "bits_per_byte", "nats"]

_ROWS = 256  # of logits at once
_RESAMPLES = 2000


class Model(Protocol):
    """What of an `engine.Engine` is needed here."""

    @property
    def context_length(self) -> int: ...

    def prompt(self, text: str) -> list[int]: ...

    def detokenize_bytes(self, tokens: Sequence[int]) -> bytes: ...

    def session(self) -> Any: ...

    def evaluate(self, steps: Sequence[tuple[Any, Sequence[int], Any]]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Bits:
    """Total bits over total bytes, and the 95% interval of a bootstrap over documents (nan for fewer than two)."""

    bits_per_byte: float
    low: float
    high: float
    documents: int
    tokens: int  # predicted
    bytes: int  # of the predicted tokens

    def __str__(self) -> str:
        interval = f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.bits_per_byte:.3f} {interval} (n = {self.documents} documents, {self.bytes} bytes)"


def bits_per_byte(
    model: Model,
    documents: Iterable[str],
    *,
    window: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Bits:
    """Measure `model` on documents. `window`: tokens read at once, the whole context where not given; `progress` is
    called with the bytes of each document that is done. ValueError when no token can be predicted."""
    size = model.context_length if window is None else min(window, model.context_length)
    if size < 2:
        raise ValueError(f"a window of {size} tokens predicts nothing")
    bits: list[float] = []
    lengths: list[int] = []
    tokens = 0
    for text in documents:
        ids = model.prompt(text)
        if len(ids) > 1:
            bits.append(float(nats(model, ids, size).sum()) / math.log(2))
            lengths.append(len(model.detokenize_bytes(ids[1:])))
            tokens += len(ids) - 1
        if progress is not None:
            progress(len(text.encode()))
    if not sum(lengths):
        raise ValueError("no text to measure on")
    bits_N, bytes_N = np.array(bits), np.array(lengths)
    low, high = _interval(bits_N, bytes_N, seed)
    return Bits(float(bits_N.sum() / bytes_N.sum()), low, high, len(bits), tokens, int(bytes_N.sum()))


def nats(model: Model, ids: list[int], size: int) -> NDArray[np.float64]:
    """-ln p of each of ids[1:], given at most `size` tokens before it, after the first window at least half as many."""
    found: list[NDArray[np.float64]] = [np.empty(0)]
    scored = begin = 0  # the last token that has been predicted, the first that is read again
    while scored < len(ids) - 1:
        session = model.session()
        end = min(begin + size, len(ids) - 1)  # tokens begin..end are read, begin+1..end+1 could be predicted
        if scored > begin:
            model.evaluate([(session, ids[begin:scored], "none")])
        for start in range(scored, end, _ROWS):
            read = ids[start : min(start + _ROWS, end)]
            logits_RV = model.evaluate([(session, read, "all")]).astype(np.float64)
            logits_RV -= logits_RV.max(axis=1, keepdims=True)
            targets = ids[start + 1 : start + 1 + len(read)]
            chosen = logits_RV[np.arange(len(read)), targets]
            found.append(np.log(np.exp(logits_RV).sum(axis=1)) - chosen)
        scored = end
        begin = end - size // 2
    return np.concatenate(found)


def _interval(bits_N: NDArray[np.float64], bytes_N: NDArray[np.int64], seed: int) -> tuple[float, float]:
    n = len(bits_N)
    if n < 2:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    drawn_RN = random.integers(n, size=(_RESAMPLES, n))
    ratios = bits_N[drawn_RN].sum(axis=1) / np.maximum(1, bytes_N[drawn_RN].sum(axis=1))
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)
