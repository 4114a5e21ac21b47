"""What is learned of conversations, to be looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from twofile.engine.engine import Engine
from twofile.train.tune.conversations import read
from twofile.train.tune.examples import template_of

__all__ = ["learned_of"]


def learned_of(base: Path, files: Sequence[Path], most: int) -> Iterator[list[tuple[str, bool]]]:
    """Of each of the first `most` conversations, its text as the model reads it, control tokens included, in stretches:
    (text, whether the model learns to say it)."""
    with Engine(base) as engine:
        template, _ = template_of(engine)
        for talk in islice(chain.from_iterable(map(read, files)), most):
            parts = template.parts(talk.messages, talk.tools or None)
            yield [(engine.detokenize_bytes(ids, special=True).decode(errors="replace"), said) for ids, said in parts]
