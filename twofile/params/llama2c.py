"""Checkpoints of llama2.c: the first float format (version 0) and the int8 one (version 2), with their tokenizer.bin.

Formats: llama2.c's export.py and run.c, runq.c. A version-0 file is seven int32 (dim, ffn, layers, heads, kv heads,
vocabulary, context; a negative vocabulary means an output matrix of its own) and float32 tensors, all layers of a kind
together. A version-2 file has a header of 256 bytes, the norms in float32, then each matrix as int8 with one float32
scale a group. Rotary positions turn neighbouring numbers there as they do in GGUF's llama family: no row moves.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.hyper import Hyperparameters
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import TokenType, Vocabulary
from twofile.params.write import Progress, write

__all__ = ["import_checkpoint"]

_MAGIC = b"24ka"  # "ak42", little-endian
_HEADER = 256  # of versions 1 and up


def import_checkpoint(
    checkpoint: Path | str,
    tokenizer: Path | str,
    target: Path | str,
    type: str = "F32",
    progress: Progress | None = None,
) -> None:
    """Write a llama2.c checkpoint and its tokenizer as a parameters file of the llama family.

    `type`: one of mixture.FILE_TYPES. Raises ParametersError for a file whose length is not what its header says."""
    path = Path(checkpoint)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            header = file.read(_HEADER)
    except OSError as error:
        raise ParametersError(f"cannot read {path}: {error.strerror}") from error
    quantised = header[:4] == _MAGIC
    try:
        if quantised:
            version, *numbers = struct.unpack_from("<i7i", header, 4)
            shared, group = struct.unpack_from("<Bi", header, 36)
            if version != 2:
                raise ParametersError(
                    f"{path} is a llama2.c checkpoint of version {version}: only 0 and 2 are supported"
                )
        else:
            numbers, group = list(struct.unpack_from("<7i", header)), 0
            shared = numbers[5] > 0
    except struct.error as error:
        raise ParametersError(f"{path} is no llama2.c checkpoint: it ends within its header") from error
    dim, ffn, layers, heads, kv_heads, n_tokens, context = numbers
    if heads < 1 or dim % heads:
        raise ParametersError(f"{path} is no llama2.c checkpoint: {dim} numbers for {heads} heads")
    try:
        hyper = Hyperparameters(
            architecture="llama",
            vocab_size=abs(n_tokens),
            context_length=context,
            dim=dim,
            n_layers=layers,
            n_heads=heads,
            n_kv_heads=kv_heads,
            head_dim=dim // heads,
            ffn_dim=ffn,
            tied=bool(shared),
        )
    except ParametersError as error:
        raise ParametersError(f"{path} is no llama2.c checkpoint: {error.message}") from error
    places = _places_int8(hyper, group, path) if quantised else _places_float(hyper)
    end = max(offset + _bytes(math.prod(shape), scale_group) for _, shape, offset, scale_group in places)
    if end != size:
        raise ParametersError(f"{path} is no whole llama2.c checkpoint: by its header {end} bytes, in truth {size}")

    def tensors() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for name, shape, offset, scale_group in places:
            if name:
                yield name, _read(path, shape, offset, scale_group)

    vocabulary = read_tokenizer_bin(Path(tokenizer), hyper.vocab_size)
    provenance = Provenance(name=path.stem).then(f"import llama2.c checkpoint version {2 if quantised else 0}")
    write(target, hyper, vocabulary, tensors(), type=type, provenance=provenance, progress=progress)


_Place = tuple[str, tuple[int, ...], int, int]  # name ("": skipped), shape, offset, numbers a scale (0: float32)


def _bytes(n: int, group: int) -> int:
    return n + n // group * 4 if group else n * 4


def _layered(hyper: Hyperparameters, *stems: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    shapes = hyper.shapes()
    for stem in stems:
        for layer in range(hyper.n_layers):
            name = f"blk.{layer}.{stem}.weight"
            yield name, shapes[name]


def _places_float(hyper: Hyperparameters) -> list[_Place]:
    shapes = hyper.shapes()
    order = [("token_embd.weight", shapes["token_embd.weight"])]
    order += _layered(hyper, "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm")
    order += _layered(hyper, "ffn_gate", "ffn_down", "ffn_up")
    order.append(("output_norm.weight", shapes["output_norm.weight"]))
    order.append(("", (hyper.context_length, hyper.head_dim)))  # the table of rotary positions
    if not hyper.tied:
        order.append(("output.weight", shapes["output.weight"]))
    return _placed(order, 28, 0)


def _places_int8(hyper: Hyperparameters, group: int, path: Path) -> list[_Place]:
    shapes = hyper.shapes()
    order = [*_layered(hyper, "attn_norm", "ffn_norm"), ("output_norm.weight", shapes["output_norm.weight"])]
    norms = _placed(order, _HEADER, 0)
    order = [("token_embd.weight", shapes["token_embd.weight"])]
    order += _layered(hyper, "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up")
    if not hyper.tied:
        order.append(("output.weight", shapes["output.weight"]))
    if group < 1 or any(math.prod(shape) % group for _, shape in order):
        raise ParametersError(f"{path}: matrices cannot be cut into groups of {group}")
    return norms + _placed(order, _HEADER + sum(_bytes(math.prod(shape), 0) for _, shape, _, _ in norms), group)


def _placed(order: list[tuple[str, tuple[int, ...]]], start: int, group: int) -> list[_Place]:
    places: list[_Place] = []
    for name, shape in order:
        places.append((name, shape, start, group))
        start += _bytes(math.prod(shape), group)
    return places


def _read(path: Path, shape: tuple[int, ...], offset: int, group: int) -> NDArray[np.float32]:
    n = math.prod(shape)
    if not group:
        return np.fromfile(path, "<f4", n, offset=offset).astype(np.float32).reshape(shape)
    q = np.fromfile(path, "i1", n, offset=offset).astype(np.float32).reshape(-1, group)
    scale = np.fromfile(path, "<f4", n // group, offset=offset + n).astype(np.float32)
    return (q * scale[:, None]).reshape(shape)


def read_tokenizer_bin(path: Path, n_tokens: int) -> Vocabulary:
    """llama2.c's tokenizer.bin: the longest length, then for each token a float32 score, a length and its bytes.

    The first three tokens are <unk>, <s> and </s>, and spaces are written as they are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ParametersError(f"cannot read {path}: {error.strerror}") from error
    tokens: list[str] = []
    scores: list[float] = []
    at = 4
    try:
        for _ in range(n_tokens):
            score, length = struct.unpack_from("<fi", data, at)
            if not 0 <= length <= len(data) - at - 8:
                raise ParametersError(f"{path}: the token {len(tokens)} is said to have {length} bytes")
            tokens.append(data[at + 8 : at + 8 + length].decode())
            scores.append(score)
            at += 8 + length
    except struct.error as error:
        raise ParametersError(f"{path} has {len(tokens)} tokens, the checkpoint {n_tokens}") from error
    except UnicodeDecodeError as error:
        raise ParametersError(f"{path}: the token {len(tokens)} is not UTF-8") from error
    if at != len(data):
        raise ParametersError(f"{path} has more tokens than the {n_tokens} of the checkpoint")
    if n_tokens < 3:
        raise ParametersError(f"{path} lacks the tokens <unk>, <s> and </s>")
    types = [TokenType.NORMAL] * n_tokens
    for token, text in enumerate(tokens):
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            types[token] = TokenType.BYTE
        else:
            tokens[token] = text.replace(" ", "\u2581")
    tokens[:3] = "<unk>", "<s>", "</s>"  # the file has line ends around the last two
    types[:3] = TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=tuple(tokens),
        types=tuple(int(kind) for kind in types),
        scores=tuple(scores),
        bos=1,
        eos=2,
        unk=0,
        add_bos=True,
        add_space_prefix=True,
    )
