"""Embeddings: texts as vectors of length 1, the mean of what the model's last layer says of their tokens."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from twofile.serve.api.answering import Answering
from twofile.serve.api.asked import EmbeddingAsked, RequestError

if TYPE_CHECKING:
    from twofile.serve.api.app import Served

__all__ = ["answer"]


def answer(served: Served, asked: EmbeddingAsked) -> Answering:
    """The whole answer, as the last part. Raises for what does not fit before anything is read."""
    texts: list[list[int]] = []
    for given in asked.inputs:
        ids = served.engine.prompt(given) if isinstance(given, str) else list(given)
        if not ids or any(not 0 <= token < served.engine.vocab_size for token in ids):
            raise RequestError("an input has no tokens, or one outside the vocabulary", param="input")
        if len(ids) > served.engine.context_length:
            room = served.engine.context_length
            raise RequestError(
                f"an input of {len(ids)} tokens does not fit: the context holds {room}",
                param="input",
                code="context_length_exceeded",
            )
        texts.append(ids)
    return Answering(_answer(served, asked, texts), ())


def _answer(served: Served, asked: EmbeddingAsked, texts: list[list[int]]) -> Iterator[dict[str, Any]]:
    data = []
    for number, ids in enumerate(texts):
        found_D = served.engine.embed(ids)
        packed = base64.b64encode(found_D.astype("<f4").tobytes()).decode()
        value: Any = packed if asked.encoding_format == "base64" else np.asarray(found_D, float).tolist()
        data.append({"object": "embedding", "index": number, "embedding": value})
        yield {}
    read = sum(map(len, texts))
    usage = {"prompt_tokens": read, "total_tokens": read}
    yield {"object": "list", "data": data, "model": served.name, "usage": usage}
