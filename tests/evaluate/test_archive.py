"""The compressed file: there and back, and what is not one is refused with a reason."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from twofile.errors import TwofileError
from twofile.evaluate.archive import Archive, Form, Part, checksum

PARTS = (
    Part(Form.MODEL, 300, 99, b"\0payload\xff"),
    Part(Form.PLAIN, 3, 0, b"abc"),
    Part(Form.LZMA, 70_000, 0, b"z" * 200),
)
ARCHIVE = Archive("avx2", "0.1.0", "modèle", 128, b"f" * 16, 4_394_816, b"s" * 32, checksum(b"content"), PARTS)


def sealed(rest: bytes, version: int = 1) -> bytes:
    """A file whose checksum is right, whatever is in it."""
    return struct.pack("<8sBQ", b"twofile\xfa", version, len(rest)) + checksum(bytes([version]) + rest) + rest


@pytest.mark.parametrize("archive", [ARCHIVE, replace(ARCHIVE, parts=()), replace(ARCHIVE, parts=PARTS * 200)])
def test_there_and_back(archive: Archive) -> None:
    assert Archive.from_bytes(archive.to_bytes(), "x") == archive


def test_sums() -> None:
    assert (ARCHIVE.size, ARCHIVE.longest) == (70_303, 99)
    assert replace(ARCHIVE, parts=PARTS[1:]).longest == 0
    assert len(replace(ARCHIVE, parts=()).to_bytes()) < 140


def test_names_are_short_and_command_no_terminal() -> None:
    assert len(Archive.from_bytes(replace(ARCHIVE, model="n" * 999).to_bytes(), "x").model) == 255
    assert Archive.from_bytes(replace(ARCHIVE, kernels="\x1b[2J").to_bytes(), "x").kernels == "\ufffd[2J"


def test_every_cut_and_every_changed_byte_is_found() -> None:
    raw = ARCHIVE.to_bytes()
    for i in range(len(raw)):
        with pytest.raises(TwofileError):
            Archive.from_bytes(raw[:i], "x")
        with pytest.raises(TwofileError):
            Archive.from_bytes(raw[:i] + bytes([raw[i] ^ 1 << i % 8]) + raw[i + 1 :], "x")
    with pytest.raises(TwofileError, match="1 bytes follow"):
        Archive.from_bytes(raw + b"x", "x")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no file that twofile compressed"),
        (b"PK\x03\x04" + bytes(100), "no file that twofile compressed"),
        (b"twofile\xfa\x01", "ends after 9 bytes"),
        (ARCHIVE.to_bytes()[:60], "27 of"),
        (sealed(b"", version=9), "format 9, and this twofile reads 1"),
        (sealed(b""), "1 bytes are claimed, 0 are left"),
        (sealed(ARCHIVE.to_bytes()[33:] + b"x"), "1 bytes belong to no part"),
    ],
)
def test_reasons(raw: bytes, words: str) -> None:
    with pytest.raises(TwofileError, match=words) as error:
        Archive.from_bytes(raw, "x")
    assert error.value.message.startswith("x ")
    assert error.value.hint


def test_sealed_nonsense_is_refused_or_read() -> None:
    """Whoever makes the checksum right can still not make the reader fail otherwise."""
    rest = replace(ARCHIVE, parts=PARTS[:2]).to_bytes()[33:]
    refused = 0
    for i in range(len(rest)):
        for value in (0, 1, 127, 128, 255):
            try:
                archive = Archive.from_bytes(sealed(rest[:i] + bytes([value]) + rest[i + 1 :]), "x")
            except TwofileError:
                refused += 1
            else:
                assert all(part.tokens <= part.size + 1 for part in archive.parts)
    assert refused > 50
