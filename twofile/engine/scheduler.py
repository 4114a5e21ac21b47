"""Many texts at once: requests come and go between passes over the weights, and share what they have in common.

    with Scheduler(engine) as scheduler:
        streams = [scheduler.submit(engine.prompt(text), max_tokens=100) for text in texts]
        for stream in streams:
            print("".join(piece.text for piece in stream))

A stream says what `generate` would say, token for token. One thread runs the passes. A pass reads a token of every
running stream and, in the order of arrival, up to `chunk` tokens of prompts, all in one evaluation; then a token is
chosen for every text that has been read. So a long prompt slows the other streams down and never stops them. What was
read is kept (see `prefix`), and a prompt begins with the longest part of it that is known.

Memory: `memory` bounds the keys and values that the model holds, those of other sessions included. When a pass has gone
beyond it, the texts longest without use are forgotten, down to none. A request begins when its prompt fits, or waits
for streams to end; one stream always runs, so requests larger than the bound pass one at a time. A running stream is
never thrown out: as they grow they may go beyond the bound, and nothing new begins then.

The thread works on caches, not on sessions: it alone uses them, and knows their tokens. A pass costs Python some 5
microseconds a stream beside choosing the token; the checks of `Session` would double that.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import LAST, NONE, Step
from twofile.engine.engine import Engine
from twofile.engine.generate import Generation, Piece
from twofile.engine.prefix import Prefixes
from twofile.engine.sampler import Sampling
from twofile.engine.session import Session
from twofile.engine.stream import Job, Stream
from twofile.engine.swap import Swap
from twofile.errors import ContextError, EngineError

if TYPE_CHECKING:
    from twofile.engine.constraint import Constraint

__all__ = ["Scheduler", "Stream"]

_PATIENCE = 10.0  # seconds after which a text in the background is as any other
_ASIDE = 32  # tokens of prompts in the background that a pass reads: somebody may come who waits for it to end
_BLOCK = 16  # tokens: memory is given out in blocks of so many


class Scheduler:
    """Runs many streams on one engine. Every method may be called from several threads.

    `streams`: how many run at once, the others wait. `chunk`: how many tokens of prompts a pass reads, the more the
    sooner they are read and the longer running streams wait for each token meanwhile. `memory`: bytes of keys and
    values; None means a quarter of the machine's memory. `swap`: put texts that have to leave memory on disk, below a
    folder or (True) where temporary files lie, and bring them back when they go on. The thread sleeps while there is
    nothing to do. Close it when
    done; the end of the program does.
    """

    def __init__(
        self,
        engine: Engine,
        streams: int = 32,
        chunk: int = 256,
        memory: int | None = None,
        swap: Path | bool = False,
    ) -> None:
        if streams < 1 or chunk < 1 or (memory is not None and memory < 0):
            raise ValueError(f"streams ({streams}), chunk ({chunk}) and memory ({memory}) must be at least 1, 1 and 0")
        if memory is None:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
        self.streams, self.chunk, self.memory = streams, chunk, memory
        self._backend = engine.backend
        self._swap = Swap(self._backend, swap if isinstance(swap, Path) else None) if swap else None
        self._known = Prefixes(self._swap.put if self._swap is not None else None)
        self._running: list[Job] = []  # in the order in which they began
        self._waiting: deque[Job] = deque()  # any thread adds to it, under the lock
        self._cancelled: deque[Job] = deque()  # any thread adds to it
        self._closed = False
        self._change = threading.Condition()
        self._helper: ThreadPoolExecutor | None = None  # prepares constraints while the model reads
        self._thread = threading.Thread(target=self._run, name="twofile-scheduler", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        constraint: Constraint | None = None,
        session: Session | Stream | None = None,
        background: bool = False,
    ) -> Stream:
        """Ask for a text that goes on from `prompt`; the settings are those of `generate`.

        `background`: it stands still while prompts of others are read (at most for ten seconds) and makes room.
        `session`: go on from its tokens and then the prompt, which may be empty; it is left as it is. Raises at once
        ContextError when the text does not fit, ValueError for settings that make no sense, and EngineError when the
        scheduler is closed. One request cannot spoil others: all that can be wrong with one is found here.
        """
        info = self._backend.info
        tokens, cache, read = list(prompt), None, 0
        if isinstance(session, Session):
            if session.backend is not self._backend:
                raise ValueError("the session belongs to another engine")
            fork = session.fork()
            tokens, cache, read = fork.tokens + tokens, fork._open(), len(fork)
        elif session is not None:
            tokens = session.tokens + tokens
        if len(tokens) > info.context:
            raise ContextError(
                f"a text of {len(tokens)} tokens does not fit: the context holds {info.context} tokens",
                "shorten the prompt, or use a model with a longer context",
            )
        if outside := [token for token in tokens if not 0 <= token < info.vocab]:
            raise ValueError(f"token {outside[0]} is outside the vocabulary of {info.vocab}")
        generation = Generation(self._backend, tokens, sampling or Sampling(), max_tokens, stop, logprobs, constraint)
        if cache is None:
            cache = self._backend.cache()
        elif read == len(tokens):  # the logits of the last token are not kept: it is read again
            read -= 1
            cache.rewind(read)
        job = Job(tokens, cache, read, generation)
        job.constrained = constraint is not None
        job.parent = session.job if isinstance(session, Stream) else None
        job.background = background
        with self._change:
            if self._closed:
                raise EngineError("the scheduler is closed")
            self._waiting.append(job)
            self._change.notify()
        return Stream(job, self._cancelled, self.submit)

    def close(self) -> None:
        """Cancel every stream, wait for the pass to end and free the memory. Closing twice is fine."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._running)} running, {len(self._waiting)} waiting"
        return f"Scheduler({state})"

    # What follows runs in the scheduler's thread.

    def _run(self) -> None:
        while True:
            with self._change:
                while not (self._running or self._waiting or self._closed):
                    self._change.wait()
            if self._closed:
                break
            self._turn()
        self._leave()

    def _turn(self) -> None:
        """One pass; what goes wrong with it goes to its streams, and those that wait find a clean slate."""
        try:
            self._pass()
        except Exception as error:
            _bare(error)
            for job in self._running:
                job.end(error)
            self._running.clear()
            self._known.clear(leave=False)  # it may be memory that is short

    def _leave(self) -> None:
        """Let go of everything."""
        for job in (*self._running, *self._waiting):
            job.end()
        self._running.clear()
        self._waiting.clear()
        self._known.clear(leave=False)
        if self._swap is not None:
            self._swap.close()
        if self._helper is not None:
            self._helper.shutdown()

    def _pass(self) -> None:
        """One evaluation, and a token for every text that has been read."""
        if self._cancelled:
            self._sweep()
        steps = self._plan()
        if steps:
            prepared: dict[Job, Future[None]] = {}
            for job, (_, _, want) in steps.items():
                if job.constrained and want == LAST:
                    self._helper = self._helper or ThreadPoolExecutor(1, "twofile-constraints")
                    prepared[job] = self._helper.submit(job.generation.prepare)
            rows = iter(self._backend.evaluate(list(steps.values())))
            chosen: list[tuple[Job, Piece]] = []
            for job, (_, ids_T, want) in steps.items():
                job.read += len(ids_T)
                if want == LAST and (piece := self._choose(job, next(rows), prepared.get(job))):
                    chosen.append((job, piece))
            for job, piece in chosen:  # readers that wake up now do not hold up a choice
                job.pieces.put(piece)
                if piece.finish is not None:
                    self._end(job)
            self._running = [job for job in self._running if job.cache is not None]
        while self._backend.held() > self.memory and self._known.evict():
            pass

    def _sweep(self) -> None:
        """End what was cancelled."""
        gone = {self._cancelled.popleft() for _ in range(len(self._cancelled))}
        with self._change:
            ending = [job for job in (*self._running, *self._waiting) if job in gone]
            self._running = [job for job in self._running if job not in gone]
            self._waiting = deque(job for job in self._waiting if job not in gone)
        for job in ending:
            self._end(job)

    def _plan(self) -> dict[Job, Step]:
        """A step for each text that goes on, and for those that begin now."""
        chunk, aside, hurried = self.chunk, _ASIDE, False
        order: Sequence[Job] = (*self._running, *self._waiting)
        if any(job.background for job in order):
            now = time.monotonic()
            for job in order:
                job.late = job.background and now - job.since < _PATIENCE
            order = sorted(order, key=lambda job: job.late)  # within each by arrival, those that run first
        steps: dict[Job, Step] = {}
        running, full = set(self._running), False
        for job in order:
            if job.late and hurried:
                break  # all that follow are in the background, too
            if job not in running:
                if full or chunk <= 0 or (len(running) >= self.streams and not self._make_room(job)):
                    continue
                running = set(self._running)
                try:
                    if not self._begins(job, chunk):
                        full = True
                        continue
                except Exception as error:
                    self._waiting.remove(job)
                    job.end(_bare(error))
                    continue
                self._waiting.remove(job)
                self._running.append(job)
                running = set(self._running)
                if not job.begun:  # not one that was put aside
                    job.reused, job.begun = job.read, True
            steps[job] = _step(job, min(chunk, aside) if job.late else chunk)
            if job.unread > 1:
                chunk -= len(steps[job][1])
                aside -= len(steps[job][1])
            hurried = hurried or (job.read < job.prompt and not job.late)
        return {job: steps[job] for job in self._running if job in steps}  # one that was put aside waits

    def _begins(self, job: Job, chunk: int) -> bool:
        """Whether the first of those that wait begins now, with `chunk` tokens left in this pass; makes room for it."""
        if not job.searched:
            if job.parent is not None and job.parent.cache is not None:
                self._known.put(job.parent.tokens[: job.parent.read], job.parent.cache.fork())
            if found := self._known.find(job.tokens, job.read + 1):
                job.cache, job.read = found
            if self._swap is not None and (found := self._swap.find(job.tokens, job.read + 1)):
                job.cache, job.read = found
            job.searched, job.parent = True, None
        if chunk < self.chunk and job.unread > chunk:  # another prompt is being read: this one may turn out to be known
            job.searched = False
            return False
        unread = sum(other.unread for other in self._running) + job.unread + _BLOCK
        while self._backend.held() + unread * self._backend.info.token_bytes > self.memory:
            if not self._known.evict() and not self._make_room(job):
                return not self._running
        return True

    def _make_room(self, job: Job) -> bool:
        """Put aside the last text in the background for one that somebody waits for; whether there was any. It goes on
        by itself, from what is kept of it, to the text that it would have become."""
        aside = next((other for other in reversed(self._running) if other.late), None)
        if job.late or aside is None or aside.cache is None:
            return False
        self._known.put(aside.tokens[: aside.read], aside.cache)
        aside.cache, aside.read, aside.searched = self._backend.cache(), 0, False
        self._running.remove(aside)
        with self._change:
            self._waiting.appendleft(aside)
        return True

    def _choose(self, job: Job, logits_V: NDArray[np.float32], prepared: Future[None] | None) -> Piece | None:
        """Choose the next token of a text. What goes wrong here concerns no other."""
        try:
            if job.read == job.prompt and job.cache is not None:
                self._known.put(job.tokens, job.cache.fork())
            if prepared is not None:
                prepared.result()
            piece = job.generation.pick(logits_V)
        except Exception as error:
            self._end(job, _bare(error))
            return None
        job.tokens.append(piece.token)
        return piece

    def _end(self, job: Job, error: Exception | None = None) -> None:
        """Let a text go, and keep what was read for others."""
        cache = job.cache
        job.end(error)
        if cache is not None and job.read:
            with suppress(EngineError):  # no memory for it
                self._known.put(job.tokens[: job.read], cache)


def _step(job: Job, most: int) -> Step:
    """Read on: `most` tokens at most, one at least."""
    ids_T = np.array(job.tokens[job.read : job.read + max(most, 1)], np.int32)
    return job.cache, ids_T, LAST if len(ids_T) == job.unread else NONE


def _bare(error: Exception) -> Exception:
    """The error without its frames, which hold on to caches; a note says where it was raised."""
    error.add_note("".join(traceback.format_tb(error.__traceback__)))
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
