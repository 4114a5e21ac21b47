"""An engine without a model: one token a byte of UTF-8, replies from a script. What the commands need, no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import Info
from twofile.engine.sampler import Sampler, Sampling
from twofile.engine.session import Session

END, USER, SYSTEM, ASSISTANT = 256, 257, 258, 259
VOCAB = 260


INFO = Info(
    architecture="fake", name="fake", kernels="none", vocab=VOCAB, context=200, dim=1, layers=1, heads=1, kv_heads=1,
    head_dim=1, ffn=1, bos=-1, eos=END, eot=-1, unk=-1, pad=-1, add_bos=False, add_eos=False, threads=1, parameters=1,
    bytes=1,
)  # fmt: skip


class Cache:
    def __init__(self) -> None:
        self.tokens: list[int] = []

    def fork(self) -> Cache:
        found = Cache()
        found.tokens = list(self.tokens)
        return found

    def rewind(self, length: int) -> None:
        del self.tokens[length:]


@dataclass(eq=False)
class Engine:
    """Says the scripted `replies` in turn: after any token it is asked about, the next byte of the reply, then END.

    `read` lists the tokens of each evaluation, `interrupt_after` raises KeyboardInterrupt once after so many."""

    replies: list[str]
    template: str | None = None
    read: list[list[int]] = field(default_factory=list)
    interrupt_after: int | None = None
    info: Info = INFO
    _left: list[int] = field(default_factory=list)

    @property
    def backend(self) -> Engine:
        return self

    @property
    def context_length(self) -> int:
        return self.info.context

    control_tokens = {"<|end|>": END, "<|user|>": USER, "<|system|>": SYSTEM, "<|assistant|>": ASSISTANT}  # noqa: RUF012

    def text(self, key: str) -> str | None:
        return self.template if key == "tokenizer.chat_template" else None

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        return list(text.encode())

    prompt = tokenize

    def detokenize(self, tokens: Sequence[int], special: bool = False, skip_space: bool = False) -> bytes:
        return bytes(token for token in tokens if token < 256)

    detokenize_bytes = detokenize

    def ends(self, token: int) -> bool:
        return token == END

    def cache(self) -> Cache:
        return Cache()

    def picker(self, sampling: Sampling) -> Sampler:
        self._left = [*self.replies.pop(0).encode(), END]
        return Sampler(VOCAB, sampling)

    def session(self) -> Session:
        backend: Any = self
        return Session(backend)

    def evaluate(self, steps: Sequence[tuple[Cache, NDArray[np.int32], int]]) -> NDArray[np.float32]:
        if self.interrupt_after is not None:
            self.interrupt_after -= 1
            if self.interrupt_after < 0:
                self.interrupt_after = None
                raise KeyboardInterrupt
        ((cache, tokens, _),) = steps
        cache.tokens += tokens.tolist()
        self.read.append(tokens.tolist())
        logits = np.full((1, VOCAB), -100, np.float32)
        logits[0, self._left.pop(0)] = 100
        return logits

    def held(self) -> int:
        return 0

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return np.zeros((len(tokens), 1), np.float32)

    def close(self) -> None:
        pass

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        pass
