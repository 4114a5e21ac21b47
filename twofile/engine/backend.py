"""What a session needs from whatever does the arithmetic: the C program or the NumPy reference.

`Engine` and `Session` are written once, against these protocols. A backend is read-only after it is opened and safe
in several threads; a cache (the tokens one session has seen) is used by one thread at a time, which `Session` sees to.
Nothing here is closed by hand: a backend lives while an engine or a session refers to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twofile.engine.sampler import Sampling

NONE, LAST, ALL = 0, 1, 2  # which positions of a step give logits; the numbers of `tf_step.want`
Step = tuple[Any, NDArray[np.int32], int]  # a cache of this very backend, the tokens to append, and one of the three


@dataclass(frozen=True)
class Info:
    """What a parameters file says of itself, and what runs it. A token id is -1 where the file names none."""

    architecture: str
    name: str
    kernels: str  # "avx512", "avx2", "neon" or "c" in the C program; "numpy" in the reference
    vocab: int
    context: int  # tokens a session can hold
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    bos: int
    eos: int
    eot: int
    unk: int
    pad: int
    add_bos: bool  # the file asks for BOS in front of a text
    add_eos: bool
    threads: int
    parameters: int
    bytes: int
    token_bytes: int = 0  # of keys and values that one token takes


class Cache(Protocol):
    """The keys and values of one sequence of tokens."""

    def fork(self) -> Cache:
        """A second cache with the same tokens. Copies no tensor."""
        ...

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens, which is at most how many there are."""
        ...

    def save(self) -> bytes:
        """What it holds, for `Backend.restore` of the same model and program."""
        ...


class Picker(Protocol):
    """Chooses tokens from logits; see `sampler`."""

    seed: int

    def accept(self, token: int) -> None:
        """Take note of a token of the text, for the penalties."""
        ...

    def pick(self, logits_V: NDArray[np.float32]) -> int:
        """Choose a token and accept it."""
        ...


class Backend(Protocol):
    """An open parameters file."""

    @property
    def info(self) -> Info: ...

    def text(self, key: str) -> str | None:
        """A string of the file's metadata."""
        ...

    def tokenize(self, text: bytes, special: bool) -> list[int]: ...

    def detokenize(self, tokens: Sequence[int], special: bool, skip_space: bool) -> bytes: ...

    def attribute(self, token: int) -> int:
        """A `TokenType`, -1 outside the vocabulary."""
        ...

    def ends(self, token: int) -> bool:
        """True when the token ends a generation."""
        ...

    def cache(self) -> Cache:
        """A new, empty cache."""
        ...

    def restore(self, length: int, data: bytes) -> Cache:
        """A cache of `length` tokens, bit for bit as it was saved. EngineError for what is not of this model."""
        ...

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The mean over tokens of what the last layer says of each, normed [dim]."""
        ...

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """What the model has for each token before its first layer [tokens, dim]. The ids are in the vocabulary."""
        ...

    def held(self) -> int:
        """Bytes of keys and values in all caches together; what forks share counts once."""
        ...

    def evaluate(self, steps: Sequence[Step]) -> NDArray[np.float32]:
        """Append tokens to different caches; logits [rows, vocab] in the order of the steps.

        The caller has checked that the ids are in the vocabulary and that they fit the context.
        """
        ...

    def picker(self, sampling: Sampling) -> Picker: ...
