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
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from twofile.errors import TrainError
from twofile.params.atomic import atomic_path
from twofile.params.vocabulary import Vocabulary
from twofile.train.pretrain.tokenizer import check, tokenizer

__all__ = ["Packed", "Packer", "Rows", "files", "pack", "packing"]

SHARD = 1 << 30  # tokens in a file, about
_BATCH = 1 << 22  # characters of text at once: several documents, or one that is long


@dataclass(frozen=True)
class Packed:
    """What was packed."""

    documents: int = 0
    tokens: int = 0  # with the separators
    bytes: int = 0  # of UTF-8 text
    words: int = 0  # what stands between blanks and line ends

    def __add__(self, other: Packed) -> Packed:
        return Packed(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


def _header(stream: IO[bytes], dtype: Any, size: int) -> None:
    # numpy leaves room for the length to grow, so that the header can be written again once it is known
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    )


def files(path: Path) -> list[Path]:
    """The files of a packed corpus, whose first is `path`."""
    others = (path.with_suffix(f".{i}.npy") for i in count(1))
    return [path, *takewhile(Path.exists, others)]


class Packer:
    """Tokenises documents into `path`, and on into further files after every `shard` tokens or somewhat more: in each
    bos, tokens, bos, tokens, ..., bos. Made by `packing`. `total` is true once the block has ended.

    `checked`: a document that does not come back byte for byte from its tokens is a TrainError."""

    def __init__(self, vocabulary: Vocabulary, path: Path, shard: int, checked: bool, whole: ExitStack) -> None:
        if vocabulary.bos is None:
            raise TrainError("the vocabulary has no bos token to separate documents with")
        self.total = Packed()
        self.uses_V = np.zeros(len(vocabulary.tokens), np.int64)  # how often each token was written, bos aside
        self._vocabulary, self._bos, self._bpe = vocabulary, vocabulary.bos, tokenizer(vocabulary)
        self._path, self._shard, self._checked, self._whole = path, shard, checked, whole
        self._dtype = np.dtype("<u2" if len(vocabulary.tokens) <= 1 << 16 else "<u4")
        self._batch: list[str] = []
        self._size = 0  # characters in the batch
        self._taken = Packed()
        self._files = 0
        self._open()

    def add(self, text: str) -> None:
        """Pack one more document."""
        self._batch.append(text)
        self._size += len(text)
        if self._size >= _BATCH:
            self._flush()

    def take(self) -> Packed:
        """What was packed since the last call."""
        self._flush()
        taken, self._taken = self._taken, Packed()
        return taken

    def _flush(self) -> None:
        if not self._batch:
            return
        if self._held >= self._shard:
            self._end()
            self._open()
        rows = []
        for text, encoding in zip(self._batch, self._bpe.encode_batch_fast(self._batch), strict=True):
            if self._checked:
                check(self._vocabulary, text, encoding.ids)
            rows.append(np.array([self._bos, *encoding.ids], self._dtype))
        block = np.concatenate(rows)
        self._stream.write(block.tobytes())
        self._held += len(block)
        self.uses_V += np.bincount(block, minlength=len(self.uses_V))
        self.uses_V[self._bos] -= len(rows)
        data = "\n".join(self._batch).encode()
        blank = np.frombuffer(b"\n" + data, np.uint8) <= ord(" ")
        words = int((blank[:-1] & ~blank[1:]).sum())
        packed = Packed(len(rows), len(block), len(data) - len(rows) + 1, words)
        self._taken, self.total = self._taken + packed, self.total + packed
        self._batch, self._size = [], 0

    def _open(self) -> None:
        path = self._path.with_suffix(f".{self._files}.npy") if self._files else self._path
        temporary = self._whole.enter_context(atomic_path(path))
        self._stream = self._whole.enter_context(temporary.open("wb"))
        _header(self._stream, self._dtype, 0)
        self._files += 1
        self._held = 0  # tokens in this file

    def _end(self) -> None:
        start = self._stream.tell() - self._held * self._dtype.itemsize
        self._stream.write(np.array([self._bos], self._dtype).tobytes())
        self._stream.seek(0)
        _header(self._stream, self._dtype, self._held + 1)
        assert self._stream.tell() == start
        self._stream.close()
        self.total += Packed(tokens=1)  # the last separator


@contextmanager
def packing(vocabulary: Vocabulary, path: Path, *, shard: int = SHARD, checked: bool = False) -> Iterator[Packer]:
    """A packer for the block; when that ends well the files are there, the first one last."""
    for old in files(path)[1:]:
        old.unlink()
    with ExitStack() as whole:
        packer = Packer(vocabulary, path, shard, checked, whole)
        yield packer
        packer.take()
        packer._end()


def pack(texts: Iterable[str], vocabulary: Vocabulary, path: Path, *, shard: int = SHARD) -> Packed:
    """Pack documents into `path`, as `Packer` says."""
    with packing(vocabulary, path, shard=shard) as packer:
        for text in texts:
            packer.add(text)
    return packer.total


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
