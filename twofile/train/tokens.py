"""Packed tokens: one memory-mapped `.npy` file of a corpus, documents behind one another, each after a separator.

Guarantees: the rows of a step are a function of the file, the seed and the step alone, so the whole state of the loader
is one integer; an epoch visits every block of `context` tokens once, in a new order and cut at a new place. The file
appears whole or not at all. Cost: memory for one batch, and 8 bytes for each block of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from twofile.errors import TrainError
from twofile.params.atomic import atomic_path
from twofile.params.vocabulary import Vocabulary
from twofile.train.tokenizer import tokenizer

__all__ = ["Packed", "Rows", "pack"]


@dataclass(frozen=True)
class Packed:
    """What was packed."""

    documents: int
    tokens: int
    bytes: int  # of UTF-8 text


def _header(stream: IO[bytes], dtype: Any, size: int) -> None:
    # numpy leaves room for the length to grow, so that the header can be written again once it is known
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    )


def pack(texts: Iterable[str], vocabulary: Vocabulary, path: Path) -> Packed:
    """Tokenise documents into `path`: bos, tokens, bos, tokens, ..., bos."""
    bpe = tokenizer(vocabulary)
    dtype = np.dtype("<u2" if len(vocabulary.tokens) <= 1 << 16 else "<u4")
    bos = vocabulary.bos
    if bos is None:
        raise TrainError("the vocabulary has no bos token to separate documents with")
    documents, size, length = 0, 0, 0
    feed = iter(texts)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        _header(stream, dtype, 0)
        start = stream.tell()
        while batch := list(islice(feed, 256)):
            for encoding in bpe.encode_batch_fast(batch):
                stream.write(np.array([bos, *encoding.ids], dtype).tobytes())
                size += 1 + len(encoding.ids)
            documents += len(batch)
            length += sum(len(text.encode()) for text in batch)
        stream.write(np.array([bos], dtype).tobytes())
        stream.seek(0)
        _header(stream, dtype, size + 1)
        assert stream.tell() == start
    return Packed(documents, size + 1, length)


class Rows:
    """Rows of `context` + 1 tokens from a packed file; the last token of a row is the first of the next block."""

    def __init__(self, path: Path, context: int, seed: int = 0) -> None:
        try:
            self.tokens: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TrainError(f"{path.name}: not a packed token file ({error})") from error
        if self.tokens.ndim != 1 or self.tokens.dtype.kind != "u":
            raise TrainError(f"{path.name}: not a packed token file")
        self.context, self.seed = context, seed
        # every epoch is shifted by up to context - 1 tokens and needs one token after its last block
        self.blocks = (len(self.tokens) - context) // context
        if self.blocks < 1:
            raise TrainError(f"{path.name}: {len(self.tokens)} tokens are fewer than two contexts of {context}")
        self._epoch, self._order, self._shift = -1, np.empty(0, np.int64), 0

    def _start(self, row: int) -> int:
        epoch, index = divmod(row, self.blocks)
        if epoch != self._epoch:
            random = np.random.default_rng((self.seed, epoch))
            self._epoch, self._order = epoch, random.permutation(self.blocks)
            self._shift = int(random.integers(self.context))
        return int(self._order[index]) * self.context + self._shift

    def batch(self, first: int, count: int) -> NDArray[np.int64]:
        """Rows `first` to `first + count` of the endless sequence, [count, context + 1]."""
        starts = [self._start(row) for row in range(first, first + count)]
        return np.stack([self.tokens[start : start + self.context + 1] for start in starts]).astype(np.int64)

    def in_order(self, limit: int | None = None) -> Iterator[NDArray[np.int64]]:
        """The blocks of the file as they lie, unshifted, for validation."""
        for start in range(0, min(limit or self.blocks, self.blocks) * self.context, self.context):
            yield self.tokens[start : start + self.context + 1].astype(np.int64)
