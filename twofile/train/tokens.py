"""Packed tokens: a memory-mapped `.npy` file of a corpus, documents behind one another, each after a separator.

A large corpus lies in several such files, `train.npy`, `train.1.npy`, `train.2.npy`, which are cut between documents
and read as one: a process maps them all and touches only the rows that are its own. Guarantees: the rows of a step are
a function of the files, the seed and the step alone, whatever the number of processes, so the whole state of the loader
is one integer; an epoch visits every block of `context` tokens once, in a new order and cut at a new place. The files
appear whole, the first one last, or not at all. Cost: memory for some millions of characters, or for the rows of a
batch and 8 bytes for each block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from twofile.errors import TrainError
from twofile.params.atomic import atomic_path
from twofile.params.vocabulary import Vocabulary
from twofile.train.tokenizer import tokenizer

__all__ = ["Packed", "Rows", "files", "pack"]

SHARD = 1 << 30  # tokens in a file, about
_BATCH = 1 << 22  # characters of text at once: several documents, or one that is long


@dataclass(frozen=True)
class Packed:
    """What was packed."""

    documents: int
    tokens: int
    bytes: int  # of UTF-8 text


def _batch(feed: Iterator[str]) -> list[str]:
    """The next documents, none where there are no more."""
    held: list[str] = []
    size = 0
    while size < _BATCH and (text := next(feed, None)) is not None:
        held.append(text)
        size += len(text)
    return held


def _header(stream: IO[bytes], dtype: Any, size: int) -> None:
    # numpy leaves room for the length to grow, so that the header can be written again once it is known
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    )


def files(path: Path) -> list[Path]:
    """The files of a packed corpus, whose first is `path`."""
    others = (path.with_suffix(f".{i}.npy") for i in count(1))
    return [path, *takewhile(Path.exists, others)]


def pack(texts: Iterable[str], vocabulary: Vocabulary, path: Path, *, shard: int = SHARD) -> Packed:
    """Tokenise documents into `path`, and on into further files after every `shard` tokens or somewhat more: in each
    bos, tokens, bos, tokens, ..., bos."""
    bpe = tokenizer(vocabulary)
    dtype = np.dtype("<u2" if len(vocabulary.tokens) <= 1 << 16 else "<u4")
    bos = vocabulary.bos
    if bos is None:
        raise TrainError("the vocabulary has no bos token to separate documents with")
    documents, size, length = 0, 0, 0
    feed = iter(texts)
    batch = _batch(feed)
    for old in files(path)[1:]:
        old.unlink()
    with ExitStack() as whole:  # which renames the first file last
        for i in count():
            temporary = whole.enter_context(atomic_path(path.with_suffix(f".{i}.npy") if i else path))
            held = 1
            with temporary.open("wb") as stream:
                _header(stream, dtype, 0)
                start = stream.tell()
                while batch and held < shard:
                    for encoding in bpe.encode_batch_fast(batch):
                        stream.write(np.array([bos, *encoding.ids], dtype).tobytes())
                        held += 1 + len(encoding.ids)
                    documents += len(batch)
                    length += sum(len(text.encode()) for text in batch)
                    batch = _batch(feed)
                stream.write(np.array([bos], dtype).tobytes())
                stream.seek(0)
                _header(stream, dtype, held)
                assert stream.tell() == start
            size += held
            if not batch:
                return Packed(documents, size, length)
    raise AssertionError("the files never end")


class Rows:
    """Rows of `context` + 1 tokens from a packed corpus; the last token of a row is the first of the next block."""

    def __init__(self, path: Path, context: int, seed: int = 0) -> None:
        self.parts = [_map(file) for file in files(path)]
        self.context, self.seed = context, seed
        # every epoch is shifted by up to context - 1 tokens and needs one token after its last block
        blocks = [max(0, (len(part) - context) // context) for part in self.parts]
        self._ends = np.cumsum(blocks)
        self.blocks = int(self._ends[-1])
        if self.blocks < 1:
            size = sum(len(part) for part in self.parts)
            raise TrainError(f"{path.name}: {size} tokens are fewer than two contexts of {context}")
        self._epoch, self._order, self._shift = -1, np.empty(0, np.int64), 0

    def _block(self, block: int, shift: int) -> NDArray[Any]:
        part = int(np.searchsorted(self._ends, block, side="right"))
        start = (block - (int(self._ends[part - 1]) if part else 0)) * self.context + shift
        return self.parts[part][start : start + self.context + 1]

    def _row(self, row: int) -> NDArray[Any]:
        epoch, index = divmod(row, self.blocks)
        if epoch != self._epoch:
            random = np.random.default_rng((self.seed, epoch))
            self._epoch, self._order = epoch, random.permutation(self.blocks)
            self._shift = int(random.integers(self.context))
        return self._block(int(self._order[index]), self._shift)

    def batch(self, first: int, count: int) -> NDArray[np.int64]:
        """Rows `first` to `first + count` of the endless sequence, [count, context + 1]."""
        return np.stack([self._row(row) for row in range(first, first + count)]).astype(np.int64)

    def in_order(self, limit: int | None = None) -> Iterator[NDArray[np.int64]]:
        """The blocks as they lie, unshifted, for validation."""
        for block in range(min(limit or self.blocks, self.blocks)):
            yield self._block(block, 0).astype(np.int64)


def _map(path: Path) -> NDArray[Any]:
    try:
        tokens: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TrainError(f"{path.name}: not a packed token file ({error})") from error
    if tokens.ndim != 1 or tokens.dtype.kind != "u":
        raise TrainError(f"{path.name}: not a packed token file")
    return tokens
