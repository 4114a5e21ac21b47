"""Compression made literal: a text is kept as what a model did not foresee of it, and the model gives it back.

The content is cut into parts that are tokenised and predicted each by itself, from a first token on, in windows that
overlap by half: a token is predicted from at least half a window of what came before it, where there is so much. Each
token goes through an arithmetic coder with the chances that the model gave it. Parts are read side by side, as sessions
in one batch: some at a time where all are known, token by token where they are not yet. The engine gives a token the
same bits either way, which is why this comes out even.

Guarantees: `decompress(compress(x)) == x` for any bytes, or an error before anything is written. The file names the
parameters, the kernels and a fingerprint of the arithmetic, and all are checked before a byte is decoded; the content's
checksum is checked after. So a part is lossless at any number of threads, with or without repacking, and wherever the
same kernels give the same fingerprint. What a vocabulary cannot give back (SentencePiece's own character for a space,
bytes without a token) and what the model makes longer is kept by LZMA or as it is, a part at a time: nothing grows by
more than the header.

Costs about two passes over the tokens to compress; to decompress as many passes as the longest part has tokens, twice.
Memory: the content a few times, and the keys and values of a window of each part that is read at once.

Sources: Shannon 1951 (prediction and entropy of printed English); Bellard 2019 (NNCP); Delétang et al. 2023 (Language
Modeling Is Compression, arXiv:2309.10668).
"""

from __future__ import annotations

import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofile import __version__
from twofile.engine.backend import ALL, NONE, Backend, Info
from twofile.errors import EngineError, NotFoundError
from twofile.evaluate.archive import Archive, Form, Part, checksum
from twofile.evaluate.coder import Decoder, Encoder, frequencies
from twofile.evaluate.exact import fingerprint, open_exact
from twofile.evaluate.surprise import first_token
from twofile.params.checksum import file_sha256
from twofile.params.vocabulary import TokenType

__all__ = ["compress", "decompress"]

_WINDOW = 2048  # tokens, where the context has so many: what more gives is little, and every part needs the room
_PART = 16384  # bytes at least, so that what a part loses by beginning anew stays near 1%
_PARTS = 32  # at once: more tokens a second stop coming about there
_ROWS = 1 << 25  # bytes of logits at once
_CHUNK = 64  # tokens of a part at once
_FILTERS: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 22}]
_TEXT = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.BYTE)

Progress = Callable[[int, int], None]


def compress(
    data: bytes,
    path: Path,
    *,
    name: str = "",
    kernels: str = "",
    threads: int = 0,
    parts: int = 0,
    window: int = 0,
    progress: Progress | None = None,
) -> Archive:
    """Compress with the parameters file at `path`, which people call `name`.

    `kernels`: as `open_exact` has them. `parts`: more are decompressed faster, fewer are smaller; 0: by size. `window`:
    tokens, 2 at least; 0: up to 2,048. `progress` is called with bytes done and in all. Raises EngineError,
    ParametersError.
    """
    backend = open_exact(path, kernels, threads)
    window = min(window or _WINDOW, backend.info.context)
    if window < 2:
        raise ValueError(f"a window of {window} tokens foresees nothing")
    allowed_V = _allowed(backend)
    pieces = list(_pieces(data, parts or min(_PARTS, max(1, len(data) // _PART))))
    texts = [_tokens(backend, piece, allowed_V) for piece in pieces]
    told = _Told(progress, len(data), sum(map(len, texts)) - len(texts))
    payloads = [b""] * len(texts)
    for group in _groups(backend.info, texts, window):
        coders = _encode(backend, [texts[i] for i in group], window, allowed_V, told)
        for i, coder in zip(group, coders, strict=True):
            payloads[i] = coder.finish()
    kept = [_shortest(*each) for each in zip(pieces, texts, payloads, strict=True)]
    if data and all(part.form != Form.MODEL for part in kept):  # LZMA does better on all of it
        kept = [_shortest(data, texts[0][:1], b"")]
    archive = Archive(
        backend.info.kernels, __version__, name or path.name, window, b"", path.stat().st_size,
        bytes.fromhex(file_sha256(path)), checksum(data), tuple(kept),
    )  # fmt: skip
    return archive.signed(fingerprint(backend, min(window, archive.longest)))


def decompress(
    archive: Archive, path: Path | None = None, *, threads: int = 0, progress: Progress | None = None
) -> bytes:
    """The content. `path`: the parameters file, not needed where `archive.longest` is 0.

    Raises NotFoundError for other parameters than those it was compressed with, and EngineError where this machine
    computes otherwise than the one that compressed.
    """
    contents: list[bytes] = [b""] * len(archive.parts)
    for i, part in enumerate(archive.parts):
        if part.form == Form.PLAIN:
            contents[i] = part.payload
        elif part.form == Form.LZMA:
            contents[i] = _unpack(part)
    if archive.longest:
        for i, content in _told_by_model(archive, path, threads, progress):
            contents[i] = content
    data = b"".join(contents)
    if checksum(data) != archive.digest:
        raise EngineError(
            "what was decoded is not what was compressed: somewhere this machine rounds otherwise",
            "decompress where it was made, or compress it again there with --kernels c",
        )
    return data


def _told_by_model(
    archive: Archive, path: Path | None, threads: int, progress: Progress | None
) -> Iterator[tuple[int, bytes]]:
    """The contents of the parts that the model keeps, by their numbers; checks first that it is the same model."""
    if path is None or file_sha256(path) != archive.model_sha256.hex():
        found = "none is given" if path is None else f"that of {path} is {file_sha256(path)[:16]}..."
        raise NotFoundError(
            f"it was compressed with the parameters file {archive.model!r}, whose sha256 is "
            f"{archive.model_sha256.hex()[:16]}...; {found}",
            "--model names the parameters file: the same file, to the last byte",
        )
    backend = open_exact(path, archive.kernels, threads)
    if not 2 <= archive.window <= backend.info.context:
        raise EngineError(f"it needs a window of {archive.window} tokens, and the context has {backend.info.context}")
    if fingerprint(backend, min(archive.window, archive.longest)) != archive.fingerprint:
        raise EngineError(
            f"here the kernels {archive.kernels} give other bits than where it was compressed, by twofile "
            f"{archive.version}: another version, compiler or mathematics library",
            "TWOFILE_CC=clang (or gcc) tries another compiler; else decompress where it was made",
        )
    numbers = [i for i, part in enumerate(archive.parts) if part.form == Form.MODEL]
    parts = [archive.parts[i] for i in numbers]
    texts = [np.zeros(part.tokens + 1, np.int32) for part in parts]  # the system gives the memory as it is filled
    for text in texts:
        text[0] = first_token(backend.info)
    told = _Told(progress, archive.size, sum(part.tokens for part in parts))
    allowed_V = _allowed(backend)
    for group in _groups(backend.info, texts, archive.window):
        coders = [Decoder(parts[i].payload) for i in group]
        _decode(backend, [texts[i] for i in group], coders, archive.window, allowed_V, told)
    for i, text in zip(numbers, texts, strict=True):
        yield i, backend.detokenize(text[1:].tolist(), False, True)


def _allowed(backend: Backend) -> NDArray[np.bool_]:
    """The tokens that a text can have."""
    return np.array([backend.attribute(i) in _TEXT for i in range(backend.info.vocab)])


def _pieces(data: bytes, n: int) -> Iterator[bytes]:
    """About `n` pieces of about a size, which begin after a line where one ends nearby, and with a whole character."""
    size, begin = max(1, -(-len(data) // n)), 0
    while begin < len(data):
        end = begin + size
        line = data.find(b"\n", end, end + size // 4)
        if line >= 0:
            end = line + 1
        while end < len(data) and end < begin + size + 4 and data[end] & 0xC0 == 0x80:  # in the middle of a character
            end += 1
        yield data[begin:end]
        begin = end


def _tokens(backend: Backend, piece: bytes, allowed_V: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The first token and those of a piece; the first alone where they would not give the piece back."""
    ids = backend.tokenize(piece, False)
    if not allowed_V[ids].all() or backend.detokenize(ids, False, True) != piece:
        ids = []
    return np.array([first_token(backend.info), *ids], np.int32)


def _shortest(piece: bytes, text: NDArray[np.int32], payload: bytes) -> Part:
    packed = lzma.compress(piece, format=lzma.FORMAT_RAW, filters=_FILTERS)
    parts = [Part(Form.PLAIN, len(piece), 0, piece), Part(Form.LZMA, len(piece), 0, packed)]
    if len(text) > 1:
        parts.append(Part(Form.MODEL, len(piece), len(text) - 1, payload))
    return min(parts, key=lambda part: len(part.payload))


def _unpack(part: Part) -> bytes:
    """What LZMA kept, or nothing where that is damaged, which the checksum of the content tells."""
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(part.payload, part.size)
    except lzma.LZMAError:
        return b""


def _groups(info: Info, texts: Sequence[NDArray[np.int32]], window: int) -> Iterator[list[int]]:
    """Texts that are read together, by their numbers: as many as a quarter of the memory has room for."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    room = max(1, min(_PARTS, memory // (window * info.token_bytes)))
    some = [i for i, text in enumerate(texts) if len(text) > 1]
    return (some[at : at + room] for at in range(0, len(some), room))


def _encode(
    backend: Backend,
    texts: Sequence[NDArray[np.int32]],
    window: int,
    allowed_V: NDArray[np.bool_],
    told: Callable[[int], None],
) -> list[Encoder]:
    coders = [Encoder() for _ in texts]
    for at, read, logits_RV in _passes(backend, texts, window, _CHUNK):
        row = 0
        for i, n in read:
            size_RV = frequencies(logits_RV[row : row + n], allowed_V)
            ids = texts[i][at + 1 : at + 1 + n].tolist()
            for size_V, token, total in zip(size_RV, ids, size_RV.sum(axis=1).tolist(), strict=True):
                coders[i].encode(int(size_V[:token].sum()), int(size_V[token]), total)
            row += n
        told(row)
    return coders


def _decode(
    backend: Backend,
    texts: Sequence[NDArray[np.int32]],
    coders: Sequence[Decoder],
    window: int,
    allowed_V: NDArray[np.bool_],
    told: Callable[[int], None],
) -> None:
    """Fill in the texts, whose first tokens and lengths are known."""
    for at, read, logits_RV in _passes(backend, texts, window, 1):
        size_RV = frequencies(logits_RV, allowed_V)
        ends_RV = np.cumsum(size_RV, axis=1)
        for (i, _), size_V, end_V in zip(read, size_RV, ends_RV, strict=True):
            point = coders[i].point(int(end_V[-1]))
            token = int(np.searchsorted(end_V, point, side="right"))
            size = int(size_V[token])
            coders[i].take(int(end_V[token]) - size, size)
            texts[i][at + 1] = token
        told(len(read))


def _passes(
    backend: Backend, texts: Sequence[NDArray[np.int32]], window: int, chunk: int
) -> Iterator[tuple[int, list[tuple[int, int]], NDArray[np.float32]]]:
    """Read all but the last token of every text, in step, `chunk` at a time at most.

    Yields where in the texts a pass began, which texts it read and how many tokens of each, and the logits of all of
    them, [rows, vocab]. A cache that is full gives way to one with the last half of it.
    """
    caches = {i: backend.cache() for i in range(len(texts))}
    done = held = 0
    while live := [i for i, text in enumerate(texts) if len(text) - 1 > done]:
        caches = {i: caches[i] for i in live}
        if held == window:
            held = window // 2
            caches = {i: backend.cache() for i in live}
            backend.evaluate([(caches[i], texts[i][done - held : done], NONE) for i in live])
        n = max(1, min(chunk, window - held, _ROWS // (4 * backend.info.vocab * len(live))))
        steps = [(caches[i], texts[i][done : min(done + n, len(texts[i]) - 1)], ALL) for i in live]
        yield done, [(i, len(ids)) for i, (_, ids, _) in zip(live, steps, strict=True)], backend.evaluate(steps)
        done += n
        held += n


class _Told:
    """Turns tokens that are done into bytes, about."""

    def __init__(self, progress: Progress | None, size: int, tokens: int) -> None:
        self._progress, self._size, self._tokens, self._done = progress, size, max(1, tokens), 0

    def __call__(self, tokens: int) -> None:
        self._done += tokens
        if self._progress is not None:
            self._progress(self._size * self._done // self._tokens, self._size)
