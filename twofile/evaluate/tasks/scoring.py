"""What an engine says of items: ln p of their options, or replies to their prompts; many at once.

Context and continuation are tokenised together, and where the continuation begins is where the context's own tokens
end, as lm-evaluation-harness does it; a text that is scored from its beginning is read after the token that begins
documents. What does not fit into the context loses its beginning, and is counted. Options that share their context
share its reading. Guarantee: a score does not depend on what is scored beside it. Cost: one pass over each context and
each continuation; memory for `_ROWS` rows of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofile.engine.engine import Engine
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.engine.session import Session
from twofile.errors import TaskError
from twofile.evaluate.tasks.task import Choice, Question, Said

__all__ = ["Scorer"]

_ROWS = 1 << 26  # bytes of logits at once
_TOGETHER = 64  # options at once


@dataclass(frozen=True)
class _Option:
    item: int
    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Scorer:
    """Scores items on an engine. `chat`: contexts and prompts become the tokens of a user's message to an assistant;
    None leaves them the plain text that they are. `cut` names the items that lost a beginning."""

    def __init__(self, engine: Engine, chat: Callable[[str], list[int]] | None = None) -> None:
        self.engine, self.chat, self.cut = engine, chat, set[str]()
        info = engine.info
        self._begin = info.bos if info.bos >= 0 else info.eos

    def choices(self, items: Sequence[Choice]) -> Iterator[tuple[int, list[Said]]]:
        """(number of the item, what is said of each of its options), in the order of the items."""
        start = 0
        while start < len(items):
            options: list[_Option] = []
            end = start
            while end < len(items) and (not options or len(options) + len(items[end].options) <= _TOGETHER):
                options += [self._option(end, items[end].id, *option) for option in items[end].options]
                end += 1
            found: dict[int, list[Said]] = {}
            for option, said in zip(options, self._score(options), strict=True):
                found.setdefault(option.item, []).append(said)
            yield from found.items()
            start = end

    def answers(self, items: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """(number of the item, the reply), in the order of the items; greedy."""
        room = self.engine.context_length
        with Scheduler(self.engine) as scheduler:
            streams = []
            for item in items:
                ids = self.chat(item.prompt) if self.chat else self.engine.prompt(item.prompt)
                most = max(1, room - item.longest)
                if len(ids) > most:
                    self.cut.add(item.id)
                streams.append(scheduler.submit(ids[-most:], Sampling(temperature=0), item.longest, item.stop))
            for number, stream in enumerate(streams):
                yield number, "".join(piece.text for piece in stream)

    def _option(self, item: int, name: str, context: str, continuation: str) -> _Option:
        if self.chat:
            before, after = self.chat(context), self.engine.tokenize(continuation.lstrip())
        elif context:
            trailing = len(context) - len(context.rstrip())
            if trailing:  # a space belongs to the word that it stands before
                context, continuation = context[:-trailing], context[-trailing:] + continuation
            before, whole = self.engine.prompt(context), self.engine.prompt(context + continuation)
            after = whole[len(before) :]
            before = whole[: len(before)]
        else:
            before, after = [self._begin], self.engine.tokenize(continuation)
        room = self.engine.context_length + 1
        if not after or len(after) >= room:
            raise TaskError(f"a continuation has {len(after)} tokens, and {room - 1} fit into the context")
        over = max(0, len(before) + len(after) - room)
        if over:
            self.cut.add(name)
        return _Option(item, tuple(before[over:]), tuple(after))

    def _score(self, options: Sequence[_Option]) -> Iterator[Said]:
        contexts: dict[tuple[int, ...], Session] = {}
        for option in options:
            if option.context not in contexts:
                contexts[option.context] = session = self.engine.session()
                if len(option.context) > 1:
                    self.engine.evaluate([(session, option.context[:-1], "none")])
        most = max(1, _ROWS // (4 * self.engine.vocab_size))
        part: list[_Option] = []
        for option in options:
            if part and sum(len(one.continuation) for one in (*part, option)) > most:
                yield from self._read(part, contexts)
                part = []
            part.append(option)
        yield from self._read(part, contexts)

    def _read(self, options: Sequence[_Option], contexts: dict[tuple[int, ...], Session]) -> Iterator[Said]:
        forks = [contexts[option.context].fork() for option in options]
        logits_RV = self.engine.evaluate(
            [
                (fork, [option.context[-1], *option.continuation[:-1]], "all")
                for fork, option in zip(forks, options, strict=True)
            ]
        )
        at = 0
        for option in options:
            yield _said(logits_RV[at : at + len(option.continuation)], option.continuation)
            at += len(option.continuation)


def _said(logits_TV: NDArray[np.float32], tokens: Sequence[int]) -> Said:
    x_TV = logits_TV.astype(np.float64)
    x_TV -= x_TV.max(axis=1, keepdims=True)
    chosen_T = x_TV[np.arange(len(tokens)), tokens]
    logp = float((chosen_T - np.log(np.exp(x_TV).sum(axis=1))).sum())
    return Said(logp, bool((x_TV.argmax(axis=1) == np.array(tokens)).all()), len(tokens))
