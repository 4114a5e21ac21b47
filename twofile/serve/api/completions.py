"""Completions: texts that go on, with the log-probabilities of what was written and, with `echo`, of what was given."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofile.engine.generate import Alternative
from twofile.errors import ContextError
from twofile.serve.api.answering import Answering
from twofile.serve.api.asked import CompletionAsked, RequestError

if TYPE_CHECKING:
    from twofile.engine.engine import Engine
    from twofile.engine.stream import Stream
    from twofile.serve.api.app import Served

__all__ = ["answer", "stream"]

_ROWS = 128  # of logits at once
_REASONS = {"end": "stop", "stop": "stop", "length": "length"}

Told = tuple[int, float | None, Sequence[Alternative]]  # a token, its ln p, and those that could have come


def _prompts(served: Served, asked: CompletionAsked) -> list[list[int]]:
    """Tokens of each prompt. RequestError where there is none, or no room for what is asked."""
    vocab, room = served.engine.vocab_size, served.engine.context_length
    found = []
    for given in asked.prompts:
        ids = served.engine.prompt(given) if isinstance(given, str) else list(given)
        if not ids:
            ids = [served.engine.info.bos if served.engine.info.bos >= 0 else served.engine.info.eos]
        if any(not 0 <= token < vocab for token in ids):
            raise RequestError(f"a token is outside the vocabulary of {vocab}", param="prompt")
        if len(ids) > room:
            raise ContextError(f"a prompt of {len(ids)} tokens does not fit: the context holds {room}")
        found.append(ids)
    if not found:
        raise RequestError("there is no prompt", param="prompt")
    return found


def _streams(served: Served, asked: CompletionAsked, prompts: list[list[int]]) -> list[Stream]:
    """One for each prompt and answer, under way."""
    found: list[Stream] = []
    try:
        for number, ids in enumerate(ids for ids in prompts for _ in range(asked.n)):
            found.append(
                served.scheduler.submit(
                    ids, asked.sampling(number), asked.max_tokens, stop=asked.stops, logprobs=asked.logprobs
                )
            )
    except BaseException:
        for stream in found:
            stream.cancel()
        raise
    return found


def answer(served: Served, asked: CompletionAsked) -> Answering:
    """The whole answer, as the last part."""
    prompts = _prompts(served, asked)
    streams = _streams(served, asked, prompts) if asked.max_tokens != 0 else []
    return Answering(_answer(served, asked, prompts, streams), streams)


def _answer(
    served: Served, asked: CompletionAsked, prompts: list[list[int]], streams: list[Stream]
) -> Iterator[dict[str, Any]]:
    choices, written = [], 0
    try:
        for number, ids in enumerate(ids for ids in prompts for _ in range(asked.n)):
            told: list[Told] = []
            text, reason, finished = "", "length", False
            if asked.echo:
                text = served.engine.detokenize(ids)
                if asked.logprobs is not None:
                    for part in _of_prompt(served.engine, ids, asked.logprobs):
                        told += part
                        yield {}
            for piece in streams[number] if streams else ():
                text += piece.text
                told.append((piece.token, piece.logprob, piece.alternatives))
                reason = _REASONS[piece.finish] if piece.finish else reason
                written += 1
                finished = piece.finish is not None
                yield {}
            if streams and not finished:  # it was cancelled
                return
            logprobs = _logprobs(served.engine, told, text) if asked.logprobs is not None else None
            choices.append({"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason})
    finally:
        for stream in streams:
            stream.cancel()
    yield {**_head(served), "choices": choices, "usage": _usage(prompts, written)}


def _of_prompt(engine: Engine, ids: list[int], top: int) -> Iterator[list[Told]]:
    """ln p of the tokens of a prompt, some at a time. The first is predicted by nothing."""
    session = engine.session()
    yield [(ids[0], None, ())]
    for start in range(0, len(ids) - 1, _ROWS):
        read = ids[start : min(start + _ROWS, len(ids) - 1)]
        logits_RV = session.append(read, "all").astype(np.float64)
        logits_RV -= logits_RV.max(axis=1, keepdims=True)
        logits_RV -= np.log(np.exp(logits_RV).sum(axis=1, keepdims=True))
        rows = zip(ids[start + 1 : start + 1 + len(read)], logits_RV, strict=True)
        yield [(token, float(row_V[token]), _best(row_V, top)) for token, row_V in rows]


def _best(logp_V: NDArray[np.float64], n: int) -> list[Alternative]:
    """The most likely tokens, the most likely first."""
    if not n:
        return []
    found = np.argpartition(-logp_V, min(n, len(logp_V) - 1))[:n]
    return [Alternative(int(token), float(logp_V[token])) for token in found[np.argsort(-logp_V[found], kind="stable")]]


def _logprobs(engine: Engine, told: Sequence[Told], shown: str = "", offset: int = 0) -> dict[str, Any]:
    """In the form of the API: texts of tokens, ln p, alternatives by their texts, and where each token begins in the
    text that is shown, which has no control tokens and may lack the space before its first word."""
    tokens: list[str] = []
    offsets: list[int] = []
    tops: list[dict[str, float] | None] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token, _, others in told:
        raw = engine.detokenize_bytes([token])
        if not offset and not tokens[:1] and raw.startswith(b" ") and shown and not shown.startswith(" "):
            raw = raw[1:]
        tokens.append(_text(engine, token))
        offsets.append(offset)
        offset += len(decoder.decode(raw))
        top: dict[str, float] = {}
        for other in others:
            top.setdefault(_text(engine, other.token), other.logprob)  # several may look alike: the likeliest
        tops.append(top or None)
    values = [value for _, value, _ in told]
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _text(engine: Engine, token: int) -> str:
    return engine.detokenize_bytes([token], special=True).decode("utf-8", "replace")


def _head(served: Served) -> dict[str, Any]:
    head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time())}
    return {**head, "model": served.name, "system_fingerprint": f"twofile-{served.engine.info.kernels}"}


def _usage(prompts: list[list[int]], written: int) -> dict[str, int]:
    read = sum(map(len, prompts))
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def stream(served: Served, asked: CompletionAsked) -> Answering:
    """The answers in chunks; that something is wrong is raised before the first."""
    prompts = _prompts(served, asked)
    if asked.max_tokens == 0:
        raise RequestError("a stream of no tokens says nothing", param="max_tokens")
    streams = _streams(served, asked, prompts)
    return Answering(_stream(served, asked, prompts, streams), streams)


def _stream(
    served: Served, asked: CompletionAsked, prompts: list[list[int]], streams: list[Stream]
) -> Iterator[dict[str, Any]]:
    head, written = _head(served), 0
    open_: dict[int, Stream] = dict(enumerate(streams))
    offsets = [0] * len(streams)
    try:
        while open_:
            for number, one in list(open_.items()):
                piece = next(one, None)
                if piece is None:  # it was cancelled
                    return
                written += 1
                logprobs = None
                if asked.logprobs is not None:
                    told = (piece.token, piece.logprob, piece.alternatives)
                    logprobs = _logprobs(served.engine, [told], offset=offsets[number])
                    offsets[number] += len(piece.text)
                reason = _REASONS[piece.finish] if piece.finish else None
                if reason:
                    del open_[number]
                choice = {"index": number, "text": piece.text, "logprobs": logprobs, "finish_reason": reason}
                chunk = {**head, "choices": [choice], **({"usage": None} if asked.counts_usage else {})}
                yield chunk if piece.text or reason or logprobs else {}
        if asked.counts_usage:
            yield {**head, "choices": [], "usage": _usage(prompts, written)}
    finally:
        for one in streams:
            one.cancel()
