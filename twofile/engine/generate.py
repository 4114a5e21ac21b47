"""Text, token by token, as it comes.

Pieces carry valid UTF-8 only: the bytes of a character that several tokens share are held back until it is whole.
Text that could still become a stop string is held back too, so that no part of one is ever shown.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofile.engine.sampler import Sampling
from twofile.engine.session import Session
from twofile.errors import ContextError

Finish = Literal["end", "stop", "length"]
_CHUNK = 512  # tokens of a prompt read at a time: an interrupt is heard in between


class Alternative(NamedTuple):
    """A token that could have come, and the logarithm of its probability."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Piece:
    """A generated token and the text that may be shown now: often its own, sometimes none or that of several."""

    token: int
    text: str
    logprob: float | None = None  # natural logarithm, of the model itself: no temperature, no penalties
    alternatives: tuple[Alternative, ...] = ()  # the most likely tokens, the most likely first
    finish: Finish | None = None  # on the last piece: an end token, a stop string, or no more room or max_tokens


def generate(
    session: Session,
    prompt: Sequence[int],
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
) -> Iterator[Piece]:
    """Append `prompt` to the session and generate; closing the iterator stops.

    Ends at an end token (its piece has no text of its own), before a stop string, after `max_tokens`, or when the
    context is full. `logprobs`: give log-probabilities, with so many alternatives. An empty prompt goes on from what
    the session holds. Each token is read into the session when the next one is asked for, so `session.tokens` always
    says what it holds: at the end everything but the last token.

    Raises ContextError at once when the prompt does not fit, and ValueError for settings that make no sense.
    """
    info = session.backend.info
    if not prompt and not len(session):
        raise ValueError("there is nothing to go on from: the prompt and the session are empty")
    if len(prompt) > session.room:
        raise ContextError(
            f"a prompt of {len(prompt)} tokens does not fit: the context holds {info.context} tokens"
            + (f", {len(session)} are there already" if len(session) else ""),
            "shorten the prompt, or use a model with a longer context",
        )
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
    if logprobs is not None and not 0 <= logprobs <= info.vocab:
        raise ValueError(f"logprobs must be from 0 to {info.vocab}, not {logprobs}")
    if isinstance(stop, str) or not all(stop):
        raise ValueError("stop must be a sequence of texts, none of them empty")
    return _generate(session, list(prompt), sampling or Sampling(), max_tokens, tuple(stop), logprobs)


def _generate(
    session: Session,
    prompt: list[int],
    sampling: Sampling,
    max_tokens: int | None,
    stop: tuple[str, ...],
    logprobs: int | None,
) -> Iterator[Piece]:
    backend = session.backend
    if not prompt:  # the logits of the last token are not kept: read it again
        prompt = session.tokens[-1:]
        session.rewind(len(session) - 1)
    picker = backend.picker(sampling)
    while len(prompt) > _CHUNK:
        session.append(prompt[:_CHUNK], "none")
        del prompt[:_CHUNK]
    logits_V = session.append(prompt, "last")[0]
    held = session.tokens
    for token in held[-sampling.window :] if sampling.window else ():
        picker.accept(token)

    text = _Text(stop)
    previous, made = held[-1], 0
    while True:
        token = picker.pick(logits_V)
        made += 1
        finish: Finish | None = None
        if backend.ends(token):
            finish = "end"
            shown = text.end()
        else:
            # SentencePiece puts a space in front of a text: it is no part of a text that starts here
            shown = text.add(backend.detokenize([token], False, previous == backend.info.bos))
            if made == max_tokens or session.room == 0:
                finish = "length"
                shown += text.end()
        if text.stopped:
            finish = "stop"
        logprob, alternatives = _logprobs(logits_V, token, logprobs)
        yield Piece(token, shown, logprob, alternatives, finish)
        if finish:
            return
        logits_V = session.append([token], "last")[0]
        previous = token


class _Text:
    """Bytes in, text that may be shown out."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop, self._held = stop, ""
        self.stopped = False

    def add(self, raw: bytes, final: bool = False) -> str:
        """The text that may be shown now; once a stop string is whole, what stands before it, then nothing."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(raw, final)
        at = min((i for s in self._stop if (i := self._held.find(s)) >= 0), default=-1)
        if at >= 0:
            self.stopped = True
            return self._held[:at]
        keep = 0 if final else max((_overlap(self._held, s) for s in self._stop), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def end(self) -> str:
        """What was held back; a character that never became whole is U+FFFD."""
        return self.add(b"", final=True)


def _overlap(text: str, stop: str) -> int:
    """How long the longest end of `text` is that `stop` begins with, short of all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _logprobs(logits_V: NDArray[np.float32], token: int, n: int | None) -> tuple[float | None, tuple[Alternative, ...]]:
    """The token's log-probability and the `n` most likely tokens with theirs."""
    if n is None:
        return None, ()
    x_V = logits_V.astype(np.float64)
    x_V -= x_V.max()
    x_V -= np.log(np.exp(x_V).sum())
    best = np.argpartition(-x_V, n - 1)[:n] if n else np.empty(0, np.int64)
    best = best[np.lexsort((best, -x_V[best]))]
    return float(x_V[token]), tuple(Alternative(int(i), float(x_V[i])) for i in best)
