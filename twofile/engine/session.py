"""A session: the tokens that a model has read, and the state that lets it read on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import ALL, LAST, NONE, Backend, Cache
from twofile.errors import ContextError, EngineError

Want = Literal["none", "last", "all"]
_WANTS: dict[str, int] = {"none": NONE, "last": LAST, "all": ALL}


class Session:
    """A sequence of tokens in a model's cache.

    A fork shares what it has in common and costs next to nothing. A session keeps its model open, also after the
    engine is closed. It may be used from several threads: each call waits for the one before. A call that raises has
    changed nothing. Sessions come from `Engine.session()`; closing one (or losing it) frees its cache.
    """

    def __init__(self, backend: Backend, cache: Cache | None = None, tokens: Iterable[int] = ()) -> None:
        self.backend = backend
        self._cache: Cache | None = backend.cache() if cache is None else cache
        self._tokens = list(tokens)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """How many tokens the session holds."""
        return len(self._tokens)

    def __bool__(self) -> bool:
        return True  # an empty session is a session

    @property
    def tokens(self) -> list[int]:
        """The tokens it holds (a copy)."""
        return list(self._tokens)

    @property
    def room(self) -> int:
        """How many more tokens fit."""
        return self.backend.info.context - len(self._tokens)

    def append(self, tokens: Sequence[int], want: Want = "last") -> NDArray[np.float32]:
        """Read tokens (at least one). Logits [rows, vocab]: no row, one for the last token, or one for each token.

        Raises ContextError when they do not fit, and nothing is cut.
        """
        return evaluate(self.backend, [(self, tokens, want)])

    def save(self) -> bytes:
        """Its cache as bytes, for `restored` with the same tokens: about `info.token_bytes` a token."""
        with self._lock:
            return self._open().save()

    @classmethod
    def restored(cls, backend: Backend, tokens: Sequence[int], data: bytes) -> Session:
        """A session as it was saved, bit for bit. EngineError for what is not of this model and program."""
        return cls(backend, backend.restore(len(tokens), data), tokens)

    def fork(self) -> Session:
        """A second session with the same tokens; the two go on independently."""
        with self._lock:
            return Session(self.backend, self._open().fork(), self._tokens)

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens. ValueError when there are not so many."""
        with self._lock:
            if not 0 <= length <= len(self._tokens):
                raise ValueError(f"length must be from 0 to {len(self._tokens)}, not {length}")
            self._open().rewind(length)
            del self._tokens[length:]

    def keep_common(self, tokens: Sequence[int]) -> int:
        """Rewind to what the session has in common with `tokens`, short of the last of them; how many that is.

        Then `append(tokens[kept:])` makes the session hold `tokens`, reading only what is new, and gives logits:
        the cheap way to go on with a conversation that was rendered again.
        """
        with self._lock:
            most = min(len(self._tokens), max(len(tokens) - 1, 0))
            kept = next((i for i in range(most) if self._tokens[i] != tokens[i]), most)
            self.rewind(kept)
            return kept

    def close(self) -> None:
        """Free the cache; the session cannot be used after. Closing twice is fine."""
        with self._lock:
            self._cache = None
            self._tokens = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({len(self)} of {self.backend.info.context} tokens{', closed' if self._cache is None else ''})"

    def _open(self) -> Cache:
        if self._cache is None:
            raise EngineError("the session is closed")
        return self._cache


def evaluate(backend: Backend, steps: Sequence[tuple[Session, Sequence[int], Want]]) -> NDArray[np.float32]:
    """Append tokens to different sessions in one pass over the weights; see `Engine.evaluate`."""
    info = backend.info
    if len({id(session) for session, _, _ in steps}) != len(steps):
        raise ValueError("a session appears twice in one batch")
    if not steps:
        return np.empty((0, info.vocab), np.float32)
    with ExitStack() as locks:
        for session in sorted((session for session, _, _ in steps), key=id):  # one order for all, so no deadlock
            locks.enter_context(session._lock)
        raw: list[tuple[Cache, NDArray[np.int32], int]] = []
        for session, tokens, want in steps:
            if session.backend is not backend:
                raise ValueError("a session belongs to another engine")
            if want not in _WANTS:
                raise ValueError(f'want must be "none", "last" or "all", not {want!r}')
            wide = np.asarray(tokens, dtype=np.int64)
            if wide.ndim != 1 or not len(wide):
                raise ValueError("tokens must be a flat sequence of at least one id")
            outside = wide[(wide < 0) | (wide >= info.vocab)]
            if len(outside):
                raise ValueError(f"token {outside[0]} is outside the vocabulary of {info.vocab}")
            if len(wide) > session.room:
                raise ContextError(
                    f"{len(session) + len(wide)} tokens do not fit into the context of {info.context}"
                    + (f" ({len(session)} are there already, {len(wide)} would come)" if len(session) else ""),
                    "shorten the text, or use a model with a longer context",
                )
            raw.append((session._open(), wide.astype(np.int32), _WANTS[want]))
        try:
            logits_RV = backend.evaluate(raw)
        except KeyboardInterrupt:  # it comes when the pass is over and the caches are ahead of us
            for (session, _, _), (cache, _, _) in zip(steps, raw, strict=True):
                cache.rewind(len(session))
            raise
        for (session, _, _), (_, ids, _) in zip(steps, raw, strict=True):
            session._tokens.extend(ids.tolist())
        return logits_RV
