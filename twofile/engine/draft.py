"""Speculative decoding: guess what comes next, and let the model check all of the guess in one pass over its weights.

The model's own sampler picks at every position, from the model's own logits; a guess is kept as long as it is what was
picked. So the text is, token for token, what it would be without guesses: greedy or sampled, with penalties, stop
strings or a constraint. That rests on the program's promise that a token's logits have the same bits however tokens
are batched. (The NumPy reference makes no such promise: there the text is equally likely, not always equal.)

Reading a guess costs time, so `Pace` chooses its size, by the clock: that changes when tokens come, never which.

Sources: Leviathan et al. 2022 (arXiv:2211.17192); prompt lookup: Saxena 2023 (github.com/apoorvumang).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from twofile.engine.backend import Backend
from twofile.engine.engine import Engine
from twofile.engine.pace import Pace
from twofile.engine.texts import token_texts
from twofile.errors import EngineError
from twofile.params.vocabulary import TokenType

_RUNS = (8, 4, 2)
_CHUNK = 512  # tokens a draft model reads at a time: an interrupt is heard in between


class Draft(ABC):
    """Guesses the next tokens of one text at a time. For one thread at a time; any number of texts in turn."""

    def __init__(self, longest: int = 15) -> None:
        """`longest`: the most tokens in a guess."""
        self._pace = Pace(longest)
        self._guess: list[int] = []
        self._kind = 0
        self._seconds = 0.0  # spent on the guess

    def begin(self, text: Sequence[int]) -> None:
        """A new text: its tokens so far."""
        self._guess = []
        self._begin(text)

    def guess(self, room: int) -> list[int]:
        """At most `room` tokens that may come next; often none."""
        started = time.perf_counter()
        self._guess = []
        if (kind := self._find()) is not None and (size := self._pace.size(kind, room)):
            self._kind, self._guess = kind, self._next(size)
        self._seconds = time.perf_counter() - started
        return list(self._guess)

    def take(self, tokens: Sequence[int], read: int = 0, seconds: float = 0.0) -> None:
        """What came; it was chosen in a pass over `read` tokens that were guessed, which took so many seconds."""
        guess, self._guess = self._guess, []
        if guess:
            right = (i for i, (a, b) in enumerate(zip(guess, tokens, strict=False)) if a != b)
            self._pace.learn(self._kind, len(guess), next(right, min(len(guess), len(tokens))))
        if seconds and read == len(guess):
            self._pace.time(read, seconds + (self._seconds if guess else 0))
        self._take(tokens)

    @abstractmethod
    def _begin(self, text: Sequence[int]) -> None: ...

    @abstractmethod
    def _take(self, tokens: Sequence[int]) -> None: ...

    @abstractmethod
    def _find(self) -> int | None:
        """A number for the kind of guess that can be made now; kinds are right more or less often. None: no guess."""

    @abstractmethod
    def _next(self, size: int) -> list[int]:
        """A guess of that kind: at most `size` tokens."""


class PromptLookup(Draft):
    """Guesses that what followed the last few tokens when they stood in the text before follows again.

    Needs no second model, and two microseconds a token: an index knows where each run of 8, 4 and 2 tokens last
    ended, and the longest one is followed. Good for summaries, code, lists, and answers that quote."""

    def __init__(self, longest: int = 15) -> None:
        super().__init__(longest)
        self._text: list[int] = []
        # for runs of so many tokens: a run -> the place of what follows it
        self._after: dict[int, dict[tuple[int, ...], int]] = {}
        self._at = 0

    def _begin(self, text: Sequence[int]) -> None:
        self._text, self._after = [], {n: {} for n in _RUNS}
        self._take(text)

    def _take(self, tokens: Sequence[int]) -> None:
        start, text = len(self._text), self._text
        text += tokens
        for n, after in self._after.items():
            for at in range(max(start, n), len(text)):  # a run at the very end is followed by nothing yet
                after[tuple(text[at - n : at])] = at

    def _find(self) -> int | None:
        for n, after in self._after.items():
            at = after.get(tuple(self._text[-n:]))
            if at is not None:
                self._at = at
                return n
        return None

    def _next(self, size: int) -> list[int]:
        again = self._text[self._at : self._at + size]
        return [again[i % len(again)] for i in range(size)]  # what repeats itself goes on repeating


class DraftModel(Draft):
    """Guesses what a second, smaller model finds most likely. Both must have the same tokens, else EngineError.

    Keeps a session of its own, which reads what it has not read before."""

    def __init__(self, engine: Engine, target: Engine, longest: int = 15) -> None:
        super().__init__(longest)
        ours, theirs = (_vocabulary(e.backend) for e in (engine, target))
        if ours != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
            raise EngineError(
                f"{engine.path.name} cannot draft for {target.path.name}: their vocabularies differ"
                f" (first at token {at} of {len(ours)} and {len(theirs)})",
                "a draft model is a smaller model of the same family",
            )
        self._session = engine.session()
        self._backend, self._vocab = engine.backend, min(engine.vocab_size, target.vocab_size)
        self._text: list[int] = []
        self._most = 0  # the highest token in it
        self._agreed = 0  # the session holds so many tokens of the text ...
        self._beyond: list[int] = []  # ... and these, which were a guess

    def _begin(self, text: Sequence[int]) -> None:
        self._text, self._most = list(text), max(text)
        self._agreed, self._beyond = self._session.keep_common(self._text), []

    def _take(self, tokens: Sequence[int]) -> None:
        self._text += tokens
        self._most = max(self._most, *tokens)

    def _find(self) -> int | None:
        # unused tokens that only the larger vocabulary has cannot be read
        return 0 if len(self._text) < self._backend.info.context and self._most < self._vocab else None

    def _next(self, size: int) -> list[int]:
        size = min(size, self._backend.info.context - len(self._text))
        new = self._text[self._agreed :]
        kept = 0
        while kept < min(len(self._beyond), len(new) - 1) and self._beyond[kept] == new[kept]:
            kept += 1
        self._session.rewind(self._agreed + kept)
        self._agreed, self._beyond = self._agreed + kept, []
        guess: list[int] = []
        unread = new[kept:]
        while len(unread) > _CHUNK:
            self._session.append(unread[:_CHUNK], "none")
            del unread[:_CHUNK]
        logits_V = self._session.append(unread)[0]
        self._agreed = len(self._text)
        while not self._backend.ends(token := int(np.argmax(logits_V[: self._vocab]))):
            guess.append(token)
            if len(guess) == size:
                break
            logits_V = self._session.append([token])[0]
            self._beyond.append(token)
        return guess


def _vocabulary(backend: Backend) -> list[bytes]:
    """What every token stands for, control tokens by their names; without the unused tokens at the end."""
    size = backend.info.vocab
    while size and backend.attribute(size - 1) == TokenType.UNUSED:
        size -= 1
    texts = enumerate(token_texts(backend)[:size])
    return [text or b"\0" + backend.detokenize([i], True, False) for i, text in texts]
