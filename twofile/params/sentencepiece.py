"""tokenizer.model files of SentencePiece: a protocol buffer, of which only what a vocabulary needs is read.

Fields, from sentencepiece_model.proto: ModelProto{1: pieces{1: piece, 2: score, 3: type}, 2: trainer{3: model_type,
40 to 43: ids of unk, bos, eos, pad}, 3: normalizer{3: add_dummy_prefix}}. The piece types are GGUF's token types.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from twofile.errors import ParametersError

__all__ = ["SentencePiece", "read_sentencepiece"]

_BPE = 2  # TrainerSpec.ModelType
_IDS = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}  # field, default


@dataclass(frozen=True)
class SentencePiece:
    """`pieces`: text, score and type of each token. `ids`: those of unk, bos, eos and pad that there are. `prefix`:
    whether a space is put in front of a text."""

    pieces: list[tuple[str, float, int]]
    ids: dict[str, int]
    prefix: bool


def read_sentencepiece(path: Path) -> SentencePiece:
    """Read a tokenizer.model. Raises ParametersError for a file that is damaged or whose model is not BPE."""
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, bytes | int] = {}
    normalizer: dict[int, bytes | int] = {}
    try:
        for number, value in _fields(path.read_bytes()):
            if not isinstance(value, bytes):
                continue
            if number == 1:
                piece = dict(_fields(value))
                text, score, kind = piece[1], piece.get(2, bytes(4)), piece.get(3, 1)
                if not (isinstance(text, bytes) and isinstance(score, bytes) and isinstance(kind, int)):
                    raise ValueError(f"the piece {len(pieces)} has fields of the wrong type")
                pieces.append((text.decode(), struct.unpack("<f", score)[0], kind))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
        ids = {name: int(trainer.get(number, default)) for name, (number, default) in _IDS.items()}
    except OSError as error:
        raise ParametersError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ParametersError(f"{path} is no SentencePiece model: {error}") from error
    if trainer.get(3, 1) != _BPE:
        raise ParametersError(
            f"{path} is a SentencePiece model of the kind {trainer.get(3, 1)!r}: only BPE (2) is supported"
        )
    known = {name: id_ for name, id_ in ids.items() if 0 <= id_ < len(pieces)}  # -1, a large number here, means none
    return SentencePiece(pieces, known, bool(normalizer.get(3, 1)))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The (number, value) of each field of a message: an int, or the bytes of a text, message or fixed-size number."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number without end")

    while at < len(data):
        key = varint()
        wire = key & 7
        if wire == 0:
            yield key >> 3, varint()
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"a field of type {wire}")
        n = {1: 8, 5: 4}.get(wire) or (varint() if wire == 2 else 0)
        if at + n > len(data):
            raise ValueError("a field past the end")
        yield key >> 3, data[at : at + n]
        at += n
