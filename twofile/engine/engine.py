"""An engine: a parameters file, open and running."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from twofile.engine import library
from twofile.engine.backend import Backend, Info
from twofile.engine.session import Session, Want, evaluate
from twofile.errors import ContextError, EngineError, NotFoundError
from twofile.params.vocabulary import TokenType

if TYPE_CHECKING:
    from twofile.params.parameters import Parameters


class Engine:
    """Opens a parameters file and evaluates it. Every method may be called from several threads.

    `backend` "c" runs the program `run.c`, compiled on first use; "numpy" the reference, some hundred times slower;
    "auto" the program, and where there is no compiler the reference, with a line on stderr that says so. `threads` 0
    means one a core. `repack` False: weights stay in the mapped file, whose pages the system can share and drop, and
    are laid out anew in each pass, which is far slower. `adapter`: low-rank changes to apply (`params.adapter`); each
    pass multiplies by them as well. Opening costs about the time to read the file. Raises NotFoundError,
    ParametersError or EngineError.
    """

    def __init__(
        self,
        path: str | Path | Parameters,
        threads: int = 0,
        backend: Literal["auto", "c", "numpy"] = "auto",
        repack: bool = True,
        adapter: str | Path | None = None,
    ) -> None:
        if backend not in ("auto", "c", "numpy"):
            raise ValueError(f'backend must be "auto", "c" or "numpy", not {backend!r}')
        if not 0 <= threads <= 1024:
            raise ValueError(f"threads must be from 0 to 1024, not {threads}")
        self.path = Path(path) if isinstance(path, str | Path) else Path(path.path)
        self.adapter = Path(adapter) if adapter is not None else None
        self._backend: Backend | None = None
        if not self.path.is_file():
            raise NotFoundError(f"there is no parameters file at {self.path}", "twofile show NAME")
        if self.adapter is not None and not self.adapter.is_file():
            raise NotFoundError(f"there is no adapter at {self.adapter}", "twofile tune --lora makes one")
        self._backend = _open(self.path, threads, backend, repack, self.adapter)

    @property
    def backend(self) -> Backend:
        """What does the arithmetic. Raises EngineError once the engine is closed."""
        if self._backend is None:
            raise EngineError("the engine is closed")
        return self._backend

    @property
    def info(self) -> Info:
        """What the file says of itself, and what runs it."""
        return self.backend.info

    @property
    def vocab_size(self) -> int:
        return self.info.vocab

    @property
    def context_length(self) -> int:
        """How many tokens a session can hold."""
        return self.info.context

    def tokenize(self, text: str | bytes, special: bool = False) -> list[int]:
        """Tokens of a text. `special`: the texts of control tokens in it become control tokens, never otherwise.

        Adds no BOS or EOS. `bytes` need not be UTF-8.
        """
        return self.backend.tokenize(text.encode("utf-8", errors="replace") if isinstance(text, str) else text, special)

    def prompt(self, text: str | bytes) -> list[int]:
        """Tokens of a text as the model was trained to begin one: after BOS where the file asks for it."""
        bos = [self.info.bos] if self.info.add_bos and self.info.bos >= 0 else []
        return bos + self.tokenize(text)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of tokens; bytes that are not UTF-8 become U+FFFD. `special`: control tokens show as their text.

        The space that a SentencePiece vocabulary puts in front of a text is dropped where the first token is not a
        continuation: use `detokenize_bytes` for parts of a text.
        """
        return self.detokenize_bytes(tokens, special, skip_space=True).decode("utf-8", errors="replace")

    def detokenize_bytes(self, tokens: Sequence[int], special: bool = False, skip_space: bool = False) -> bytes:
        """Bytes of tokens, as they would stand in a file."""
        return self.backend.detokenize(tokens, special, skip_space)

    def ends(self, token: int) -> bool:
        """True when the token ends a generation: end of sequence, end of turn."""
        return self.backend.ends(token)

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """Text -> id of every control token. One pass over the vocabulary, once."""
        ids = [i for i in range(self.vocab_size) if self.backend.attribute(i) == TokenType.CONTROL]
        found = {self.detokenize_bytes([i], special=True).decode("utf-8", errors="replace"): i for i in reversed(ids)}
        found.pop("", None)
        return found

    def session(self) -> Session:
        """A new, empty session."""
        return Session(self.backend)

    def evaluate(self, steps: Sequence[tuple[Session, Sequence[int], Want]]) -> NDArray[np.float32]:
        """Append tokens to different sessions in one pass over the weights.

        Each step is (session, tokens, "none" | "last" | "all"). Returns logits [rows, vocab] in the order of the
        steps: no row, one, or one a token. On an error no session has changed. ContextError names both numbers.
        """
        return evaluate(self.backend, steps)

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """A text as a vector [dim] of length 1: the mean of what the last layer says of its tokens. Texts that are
        alike have vectors that point the same way, as far as the model tells. ContextError for more than fits."""
        if len(tokens) > self.context_length:
            raise ContextError(f"a text of {len(tokens)} tokens does not fit: the context holds {self.context_length}")
        if not len(tokens):
            raise ValueError("there are no tokens")
        self._known(tokens)
        found_D = self.backend.embed(tokens)
        unit_D: NDArray[np.float32] = found_D / max(float(np.linalg.norm(found_D)), 1e-12)
        return unit_D

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The vectors [tokens, dim] with which the model begins, one a token: nothing is evaluated."""
        self._known(tokens)
        return self.backend.rows(tokens)

    def _known(self, tokens: Sequence[int]) -> None:
        if outside := [token for token in tokens if not 0 <= token < self.vocab_size]:
            raise ValueError(f"token {outside[0]} is outside the vocabulary of {self.vocab_size}")

    def close(self) -> None:
        """Let go of the model; it is freed when its last session is too. Closing twice is fine."""
        self._backend = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._backend is None else f"{self.info.architecture}, {self.info.kernels}"
        return f"Engine({str(self.path)!r}, {state})"


def _open(path: Path, threads: int, backend: str, repack: bool, adapter: Path | None) -> Backend:
    """The program or the reference, with `path` open in it."""
    if backend != "numpy":
        try:
            program = library.load_program()
        except EngineError as error:
            if backend == "c":
                raise
            print(f"twofile: {error.message}; running in NumPy, far slower. To mend it, {error.hint}", file=sys.stderr)
        else:
            return program.open(path, threads, repack, adapter)
    from twofile.engine.reference import Reference

    return Reference(path, adapter)
