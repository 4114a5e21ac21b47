from __future__ import annotations

from pathlib import Path

import pytest

from twofile.errors import ParametersError
from twofile.params.sentencepiece import read_sentencepiece


def field(number: int, value: bytes | int) -> bytes:
    def varint(n: int) -> bytes:
        return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text: str, score: bytes = b"", kind: int = 1) -> bytes:
    return field(1, field(1, text.encode()) + (b"\x15" + score if score else b"") + field(3, kind))


BPE = field(2, field(3, 2))


def test_the_real_one_is_as_the_library_reads_it(shared_data: Path) -> None:
    library = pytest.importorskip("sentencepiece")
    path = shared_data / "models" / "llama2_tokenizer" / "tokenizer.model"
    read, want = read_sentencepiece(path), library.SentencePieceProcessor(str(path))
    assert len(read.pieces) == want.get_piece_size() == 32000
    for token, (text, score, kind) in enumerate(read.pieces):
        assert (text, score) == (want.id_to_piece(token), want.get_score(token))
        assert kind == (
            2 if want.is_unknown(token) else 3 if want.is_control(token) else 6 if want.is_byte(token) else 1
        )
    assert read.ids == {"unk": 0, "bos": 1, "eos": 2}
    assert read.prefix


def test_a_made_one(tmp_path: Path) -> None:
    trainer = field(2, field(3, 2) + field(40, 1) + field(41, (1 << 64) - 1) + field(43, 0) + field(7, b"unused"))
    data = piece("<pad>", kind=3) + piece("<unk>", kind=2) + piece("ü", bytes(3) + b"\xbf") + trainer
    (tmp_path / "m").write_bytes(data + field(3, field(3, 0)) + b"\x31" + bytes(8))
    read = read_sentencepiece(tmp_path / "m")
    assert read.pieces == [("<pad>", 0.0, 3), ("<unk>", 0.0, 2), ("ü", -0.5, 1)]
    assert read.ids == {"unk": 1, "eos": 2, "pad": 0}
    assert not read.prefix


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (piece("a"), "kind 1: only BPE"),
        (piece("a") + field(2, field(3, 1)), "kind 1: only BPE"),
        (BPE + b"\x0a\xff\xff\xff\xff\x0f", "no SentencePiece model"),
        (BPE + b"\xff" * 20, "no SentencePiece model"),
        (BPE + b"\x0b", "no SentencePiece model"),
        (BPE + b"\x0a", "no SentencePiece model"),
        (BPE + field(1, field(1, b"\xff")), "no SentencePiece model"),
        (BPE + field(1, field(3, 1)), "no SentencePiece model"),
        (BPE + field(1, field(1, 5)), "no SentencePiece model"),
        (BPE + field(1, field(1, b"a") + field(2, b"abc")), "no SentencePiece model"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(ParametersError, match=words):
        read_sentencepiece(tmp_path / "m")


def test_an_absent_one(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match="cannot read"):
        read_sentencepiece(tmp_path / "absent")
