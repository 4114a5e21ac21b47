"""Parameters files with random weights in the shapes that speeds are compared on, made once and kept in .work/bench.

    .venv/bin/python bench/shapes.py              # every shape in every type: 5 GB, a minute or two
    .venv/bin/python bench/shapes.py 15M Q8_0

The blocks of the quantised types are drawn directly, for quantising a billion floats takes minutes: random numbers
under scales such that every matrix keeps the size of what it multiplies, so that logits are of order one. Memory: that
of the largest tensor, a few times.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofile.params.blocks import size
from twofile.params.hyper import Hyperparameters
from twofile.params.mixture import file_type, plan
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import TokenType, Vocabulary
from twofile.params.write import field, write_container

FOLDER = Path(__file__).resolve().parent.parent / ".work" / "bench"
TYPES = ("Q8_0", "Q4_0", "Q4_K_M", "BF16")
SHAPES = {
    "15M": Hyperparameters("llama", 32000, 1024, 288, 6, 6, 6, 48, 768, tied=True),
    "110M": Hyperparameters("llama", 32000, 2048, 768, 12, 12, 12, 64, 2048, tied=True),
    "1.1B": Hyperparameters("llama", 32000, 2048, 2048, 22, 32, 4, 64, 5632),
}

Bytes = NDArray[np.uint8]
Draw = np.random.Generator


def shape_file(shape: str, type: str) -> Path:
    """The file of a shape in a type, written if it is not there. Rows of 288 do not fill the blocks of the K types: of
    15M in Q4_K_M only the down projections have them, the rest is Q8_0."""
    path = FOLDER / f"{shape}-{type}.gguf"
    if path.exists():
        return path
    hyper, vocabulary = SHAPES[shape], words(SHAPES[shape].vocab_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        layout = plan(hyper, type)
    provenance = Provenance(name=f"{shape} random", license="CC0-1.0", stages=("random weights",))
    fields = {
        "general.type": "model", **provenance.to_metadata(), "general.file_type": file_type(type),
        "general.quantization_version": 2, **hyper.to_metadata(), **vocabulary.to_metadata(),
    }  # fmt: skip
    draw = np.random.default_rng(len(shape))

    def pieces() -> Iterator[tuple[str, Bytes]]:
        for name, (dimensions, kind) in layout.items():
            yield name, _tensor(draw, dimensions, kind)

    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"writing {path}", file=sys.stderr, flush=True)
    write_container(path, hyper.architecture, {k: field(v) for k, v in fields.items()}, layout, pieces())
    return path


def words(n: int) -> Vocabulary:
    """A SentencePiece-style vocabulary of `n` tokens: <unk>, <s>, </s>, the bytes, and numbers for words."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = *special, *(f"▁{i}" for i in range(n - len(special)))
    types = TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256
    return Vocabulary(
        model="llama", pre="default", tokens=tokens, types=(*types, *[TokenType.NORMAL] * (n - len(types))),
        scores=tuple(-float(i) for i in range(n)), bos=1, eos=2, unk=0, add_bos=True,
    )  # fmt: skip


def _tensor(draw: Draw, shape: tuple[int, ...], kind: str) -> Bytes:
    """The bytes of a tensor: ones for a norm, numbers of deviation 1/sqrt(columns) and mean zero for a matrix."""
    if kind == "F32":
        return np.ones(shape, np.float32).reshape(-1).view(np.uint8)
    deviation = shape[-1] ** -0.5
    if kind == "BF16":
        return _bf16(draw, size(kind, shape) // 2, deviation)
    n_bytes = {"Q8_0": 34, "Q4_0": 18, "Q4_K": 144, "Q6_K": 210}[kind]
    blocks = draw.integers(0, 256, size(kind, shape), np.uint8).reshape(-1, n_bytes)
    {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_K": _q4_k, "Q6_K": _q6_k}[kind](draw, blocks, deviation)
    return blocks.reshape(-1)


def _bf16(draw: Draw, n: int, deviation: float) -> Bytes:
    numbers = np.empty(n, np.uint16)
    for start in range(0, n, 1 << 22):
        part = draw.random(len(numbers[start : start + (1 << 22)]), np.float32) * 2 - 1
        numbers[start : start + (1 << 22)] = (part * np.float32(3**0.5 * deviation)).view(np.uint32) >> 16
    return numbers.view(np.uint8)


# Each of these puts scales into blocks (n, bytes) of random bytes. What a block multiplies its scale with has the mean
# -1/2 in Q4_0 and Q6_K: a random sign of the scale takes care of that.


def _q8_0(draw: Draw, blocks: Bytes, deviation: float) -> None:
    """d, then 32 numbers from -127 to 127."""
    q = blocks[:, 2:]
    q[q == 0x80] = 0
    blocks[:, :2] = _halves(np.full(len(blocks), deviation / 73.6))


def _q4_0(draw: Draw, blocks: Bytes, deviation: float) -> None:
    """d, then 32 numbers from -8 to 7."""
    blocks[:, :2] = _halves(_signs(draw, len(blocks)) * (deviation / 4.64))


def _q4_k(draw: Draw, blocks: Bytes, deviation: float) -> None:
    """d, dmin, 8 scales and 8 minima of 6 bits in 12 bytes, 256 numbers q from 0 to 15: d*scale*q - dmin*minimum.
    Minima that are as the scales, and dmin = 7.5 d, make it d*scale*(q - 7.5)."""
    scales = draw.integers(32, 64, (len(blocks), 8), np.uint8)
    low, high = scales[:, :4], scales[:, 4:]
    blocks[:, 4:16] = np.concatenate([low | high >> 4 << 6, low | high >> 4 << 6, high & 15 | (high & 15) << 4], axis=1)
    d = np.full(len(blocks), deviation / (4.61 * 48.4))
    blocks[:, :2], blocks[:, 2:4] = _halves(d), _halves(7.5 * d)


def _q6_k(draw: Draw, blocks: Bytes, deviation: float) -> None:
    """256 numbers q from -32 to 31 in 192 bytes, 16 scales of 8 bits, d: d*scale*q."""
    scales = draw.integers(64, 128, (len(blocks), 16), np.int8) * _signs(draw, (len(blocks), 16))
    blocks[:, 192:208] = scales.view(np.uint8)
    blocks[:, 208:] = _halves(np.full(len(blocks), deviation / (18.5 * 97.3)))


def _halves(d: NDArray[np.floating]) -> Bytes:
    """Numbers as half precision, two bytes each, in a column."""
    return d.astype(np.float16).view(np.uint8).reshape(-1, 2)


def _signs(draw: Draw, shape: int | tuple[int, ...]) -> NDArray[np.int8]:
    return draw.choice(np.array([-1, 1], np.int8), shape)


def main() -> None:
    shapes, types = sys.argv[1:2] or SHAPES, sys.argv[2:] or TYPES
    for shape in shapes:
        for type in types:
            print(shape_file(shape, type))


if __name__ == "__main__":
    main()
