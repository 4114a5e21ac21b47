"""A text as a scheduler makes it: `Job` is what its thread works on, `Stream` what the reader of the text holds.

The two meet in a queue. The job does not know its stream, so that a stream that is lost can be noticed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

from twofile.engine.backend import Cache
from twofile.engine.generate import Generation, Piece
from twofile.engine.sampler import Sampling

if TYPE_CHECKING:
    from twofile.engine.constraint import Constraint


class Job:
    """A text in the making. Only the scheduler's thread touches it once it is under way, but for the queue."""

    def __init__(self, tokens: list[int], cache: Cache, read: int, generation: Generation) -> None:
        self.tokens, self.prompt = tokens, len(tokens)  # the prompt, and what was chosen since; the prompt's length
        self.cache: Cache | None = cache  # holds the first `read` tokens; None once the text has ended
        self.read = self.reused = read
        self.begun = False  # whether it has been running
        self.searched = False  # whether the longest beginning that is known has been looked for
        self.parent: Job | None = None  # what it was forked from, until then
        self.background = self.late = False  # whether others' prompts go first, and whether they do now
        self.since = time.monotonic()
        self.generation, self.constrained = generation, False
        self.pieces: SimpleQueue[Piece | Exception | None] = SimpleQueue()  # None: no more will come

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.read

    def end(self, error: Exception | None = None) -> None:
        """Let go of the memory and tell the reader."""
        self.cache = self.parent = None
        if error is not None:
            self.pieces.put(error)
        self.pieces.put(None)


class Stream:
    """A text as it comes: iterate over its pieces, in one thread at a time. `Scheduler.submit` gives streams.

    Pieces wait here until they are taken, at most as many as the context has room for; a slow reader keeps nobody
    waiting. The last piece has `finish` set; a stream that is cancelled ends without one. What goes wrong is raised.
    A stream that nothing refers to any more is cancelled.
    """

    def __init__(self, job: Job, cancelled: deque[Job], submit: Callable[..., Stream]) -> None:
        self.job, self._cancelled, self._submit = job, cancelled, submit
        self._tokens = list(job.tokens)

    @property
    def tokens(self) -> list[int]:
        """The prompt and the tokens of the pieces that were taken (a copy)."""
        return list(self._tokens)

    @property
    def reused(self) -> int:
        """How many tokens of the prompt had been read before; known when the first piece comes."""
        return self.job.reused

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Piece:
        item = self.job.pieces.get()
        if isinstance(item, Piece):
            self._tokens.append(item.token)
            return item
        if item is not None:
            raise item
        self.job.pieces.put(None)  # for whoever asks again
        raise StopIteration

    def fork(
        self,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        constraint: Constraint | None = None,
    ) -> Stream:
        """A new stream that goes on from `tokens`, with settings of its own. What this one has read is shared."""
        return self._submit((), sampling, max_tokens, stop, logprobs, constraint, self)

    def cancel(self) -> None:
        """Choose no more tokens, and free the memory before the next pass. Pieces that are there can still be taken."""
        if self.job.cache is not None:  # takes no lock: a garbage collection may call this anywhere
            self._cancelled.append(self.job)
            self.job.pieces.put(None)

    close = cancel

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()
