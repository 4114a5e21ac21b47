"""Text, token by token, as it comes.

Pieces carry valid UTF-8 only: the bytes of a character that several tokens share are held back until it is whole.
Text that could still become a stop string is held back too, so that no part of one is ever shown.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import Backend
from twofile.engine.sampler import Sampling
from twofile.engine.session import Session
from twofile.errors import ContextError

if TYPE_CHECKING:
    from twofile.engine.constraint import Constraint
    from twofile.engine.draft import Draft

Finish = Literal["end", "stop", "length"]
_CERTAIN = 32  # tokens without a choice that are read together
_CHUNK = 512  # tokens of a prompt read at a time: an interrupt is heard in between
# what was asked of a backend about its tokens: the bytes of one and whether it ends a generation
_known: WeakKeyDictionary[Backend, dict[int, tuple[bytes, bool]]] = WeakKeyDictionary()


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
    finish: Finish | None = None  # on the last piece, see `generate`


class Generation:
    """One text as it grows: logits in, pieces out. It reads nothing: whoever drives it appends tokens to a session.

    `held`: every token of the text so far, the prompt included.
    Costs some 15 microseconds a token beside the sampler. Raises ValueError for settings that make no sense.
    """

    def __init__(
        self,
        backend: Backend,
        held: Sequence[int],
        sampling: Sampling,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        info = backend.info
        if not held:
            raise ValueError("there is nothing to go on from: the prompt and the session are empty")
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        if logprobs is not None and not 0 <= logprobs <= info.vocab:
            raise ValueError(f"logprobs must be from 0 to {info.vocab}, not {logprobs}")
        if isinstance(stop, str) or not all(stop):
            raise ValueError("stop must be a sequence of texts, none of them empty")
        # so many tokens at most: one more than the context has room for, because the last one is not read
        self.left = min(max_tokens or info.context, info.context - len(held) + 1)
        self._backend, self._logprobs = backend, logprobs
        self._known = _known.setdefault(backend, {})
        self._text = _Text(tuple(stop))
        if constraint is not None and not constraint.fits(backend):
            raise ValueError("the constraint was made for another engine")
        self._matcher = None if constraint is None else constraint.start()
        # SentencePiece puts a space in front of a text: it is no part of a text that starts here
        self._starts = held[-1] == info.bos
        self._picker = backend.picker(sampling)
        if sampling.repetition != 1 or sampling.presence != 0:
            for token in held[-sampling.window :] if sampling.window else ():
                self._picker.accept(token)

    def prepare(self) -> None:
        """Compute what the constraint allows next, ahead of `pick`; any thread may, while the model reads."""
        if self._matcher is not None:
            self._matcher.prepare()

    def pick(self, logits_V: NDArray[np.float32]) -> Piece:
        """Choose the next token from the model's logits, and say what may be shown now; after `finish` no more."""
        matcher, logprobs = self._matcher, self._logprobs
        if matcher is None:
            token = self._picker.pick(logits_V)
        else:
            matcher.prepare()
            if matcher.only is not None:  # nothing to choose
                token = matcher.only
                self._picker.accept(token)
            else:
                token = self._picker.pick(matcher.apply(logits_V))
            matcher.accept(token)
        self.left -= 1
        if (known := self._known.get(token)) is None:
            known = self._known[token] = (self._backend.detokenize([token], False, False), self._backend.ends(token))
        raw, ends = known
        finish: Finish | None = None
        if ends:
            finish = "end"
            shown = self._text.end()
        else:
            if self._starts and matcher is None:  # a constraint says itself whether there is a space
                raw = self._backend.detokenize([token], False, True)
            self._starts = token == self._backend.info.bos
            shown = self._text.add(raw)
            complete = matcher is not None and matcher.done
            if complete or self.left == 0:
                finish = "end" if complete else "length"
                shown += self._text.end()
        if self._text.stopped:
            finish = "stop"
        logprob, alternatives = (None, ()) if logprobs is None else _logprobs(logits_V, token, logprobs)
        return Piece(token, shown, logprob, alternatives, finish)

    def certain(self) -> list[int]:
        """The next tokens, where the constraint leaves no choice: worth reading together."""
        forced = [] if self._matcher is None else self._matcher.forced()
        return forced[: min(self.left - 1, _CERTAIN)]

    def possible(self, guess: list[int]) -> list[int]:
        """What of a guess may come: as far as the constraint allows, and short of an end."""
        if self._matcher is not None:
            guess = guess[: self._matcher.valid(guess)]
        return next((guess[:i] for i, token in enumerate(guess) if self._backend.ends(token)), guess)


def generate(
    session: Session,
    prompt: Sequence[int],
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    constraint: Constraint | None = None,
    draft: Draft | None = None,
) -> Iterator[Piece]:
    """Append `prompt` to the session and generate; closing the iterator stops.

    The last piece has a `finish`. "end": an end token, whose piece has no text of its own, or the text that completes
    what `constraint` asks for; "stop": what came is shown up to a stop string; "length": `max_tokens`, or the context
    is full. `logprobs`: give log-probabilities, with so many alternatives. `draft` guesses what comes next, which
    changes the speed and nothing else. An empty prompt goes on from what the session holds.

    Each token is read into the session when the next one is asked for, so `session.tokens` always says what it holds:
    at the end everything but the last token. With a draft or a constraint it may be ahead of the pieces by tokens that
    are certain to be the next; closing the iterator takes them back.

    Raises ContextError at once when the prompt does not fit, and ValueError for settings that make no sense.
    """
    info = session.backend.info
    if len(prompt) > session.room:
        raise ContextError(
            f"a prompt of {len(prompt)} tokens does not fit: the context holds {info.context} tokens"
            + (f", {len(session)} are there already" if len(session) else ""),
            "shorten the prompt, or use a model with a longer context",
        )
    text = [*session.tokens, *prompt]
    generation = Generation(session.backend, text, sampling or Sampling(), max_tokens, stop, logprobs, constraint)
    return _generate(session, list(prompt), generation, text, draft)


def _generate(
    session: Session, prompt: list[int], generation: Generation, text: list[int], draft: Draft | None
) -> Iterator[Piece]:
    if not prompt:  # the logits of the last token are not kept: read it again
        prompt = session.tokens[-1:]
        session.rewind(len(session) - 1)
    while len(prompt) > _CHUNK:
        with _all_or_nothing(session):
            session.append(prompt[:_CHUNK], "none")
        del prompt[:_CHUNK]
    if draft is not None:
        draft.begin(text)
    guess: list[int] = []
    while True:
        pieces: list[Piece] = []
        before = len(session) + len(prompt)
        with _all_or_nothing(session):
            started = time.perf_counter()
            rows_RV = session.append([*prompt, *guess], "all" if guess else "last")
            seconds = time.perf_counter() - started
            for logits_V, guessed in zip(rows_RV, [*guess, None], strict=True):
                pieces.append(generation.pick(logits_V))
                if pieces[-1].finish or pieces[-1].token != guessed:
                    break
            if len(pieces) <= len(guess):
                session.rewind(before + len(pieces) - 1)
        yield from _shown(session, pieces)
        if pieces[-1].finish:
            return
        if draft is not None:
            draft.take([piece.token for piece in pieces], len(guess), seconds if len(prompt) == 1 else 0)
        prompt, guess = [pieces[-1].token], generation.certain()
        if draft is not None and not guess:
            guess = generation.possible(draft.guess(generation.left - 1))


@contextmanager
def _all_or_nothing(session: Session) -> Iterator[None]:
    """What fails or is interrupted in here leaves the session as it was: no guess stays in it."""
    before = len(session)
    try:
        yield
    except BaseException:
        session.rewind(min(before, len(session)))
        raise


def _shown(session: Session, pieces: list[Piece]) -> Iterator[Piece]:
    """Yield pieces whose tokens, but for the last, are read already. Closed midway, it takes back the unseen ones."""
    length = len(session)
    for i, piece in enumerate(pieces):
        try:
            yield piece
        except BaseException:
            unseen = [p.token for p in pieces[i:-1]]
            # a forgotten iterator may be closed late: what others did with the session since is theirs
            if unseen and len(session) == length and session.tokens[-len(unseen) :] == unseen:
                session.rewind(length - len(unseen))
            raise


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


def _logprobs(logits_V: NDArray[np.float32], token: int, n: int) -> tuple[float, tuple[Alternative, ...]]:
    """The token's log-probability and the `n` most likely tokens with theirs."""
    x_V = logits_V.astype(np.float64)
    x_V -= x_V.max()
    x_V -= np.log(np.exp(x_V).sum())
    best = np.argpartition(-x_V, n - 1)[:n] if n else np.empty(0, np.int64)
    best = best[np.lexsort((best, -x_V[best]))]
    return float(x_V[token]), tuple(Alternative(int(i), float(x_V[i])) for i in best)
