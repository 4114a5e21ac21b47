from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from tests.tiny import tiny_parameters
from twofile.errors import ParametersError
from twofile.params.container import Container

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: int = 256,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    keys, tensors = keys or [], tensors or []
    counts = (len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    head = magic + struct.pack("<I2Q", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + data)


def opened(data: bytes, folder: Path) -> Container:
    (folder / "file.gguf").write_bytes(data)
    return Container(folder / "file.gguf")


def test_a_whole_file(tmp_path: Path) -> None:
    keys = [
        key("a", U32, struct.pack("<I", 7)),
        key("b", STRING, text("ü")),
        key("c", BOOL, b"\1"),
        key("d", ARRAY, struct.pack("<IQ3f", F32, 3, 0.5, 1, 2)),
        key("e", ARRAY, struct.pack("<IQ", STRING, 2) + text("x") + text("")),
        key("f", ARRAY, struct.pack("<IQ", STRING, 0)),
        key("g", ARRAY, struct.pack("<IQ", U64, 0)),
        key("h", U64, struct.pack("<Q", 1 << 63)),
    ]
    container = opened(file(keys, [tensor("t", [4, 2], 0, 32), tensor("q", [32, 1], 8, 64)]), tmp_path)
    values = {name: value.value for name, value in container.values().items()}
    assert values == {
        "a": 7, "b": "ü", "c": True, "d": [0.5, 1.0, 2.0], "e": ["x", ""], "f": [], "g": [], "h": 1 << 63,
    }  # fmt: skip
    assert [(t.name, t.n_bytes, list(t.shape)) for t in container.tensors] == [("t", 32, [4, 2]), ("q", 34, [32, 1])]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_it_reads_what_the_package_reads(tmp_path: Path, family: str) -> None:
    path = tiny_parameters(family, "Q4_K_M", 1, tmp_path / "a")
    ours, theirs = Container(path), gguf.GGUFReader(path)
    values = ours.values()
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):
            assert values[name].value == field.contents()
            assert [values[name].type, *([values[name].sub_type] if len(field.types) > 1 else [])] == field.types
    for a, b in zip(ours.tensors, theirs.tensors, strict=True):
        assert (a.name, a.data_offset, a.n_bytes, a.data.tobytes()) == (
            b.name,
            b.data_offset,
            b.n_bytes,
            b.data.tobytes(),
        )


HUGE = (1 << 64) - 1
BAD = {
    "empty": (b"", "empty file"),
    "short": (b"GG", "the start of the file"),
    "magic": (file(magic=b"PK\3\4"), "magic"),
    "version": (file(version=99), "version 99"),
    "big-endian": (b"GGUF" + struct.pack(">I2Q", 3, 0, 1) + bytes(64), "big-endian"),
    "no counts": (file()[:12], "goes on to byte"),
    "key count": (file(n_keys=1 << 63), "9223372036854775808 metadata keys"),
    "keys past the end": (file([key("a", U32, bytes(4))], data=0, n_keys=900), "a"),
    "tensor count": (file(n_tensors=HUGE), f"{HUGE} tensors"),
    "tensors past the end": (file(tensors=[tensor("t", [4], 0, 0)], n_tensors=900), "t"),
    "key length": (file([struct.pack("<Q", HUGE)]), "goes on to byte"),
    "key not UTF-8": (file([key(b"\xff\xfe", U32, bytes(4))]), "not UTF-8"),
    "value type": (file([key("a", 99, bytes(8))]), "'a': 99 is not a valid GGUFValueType"),
    "string length": (file([key("a", STRING, struct.pack("<Q", 1 << 62))]), "'a'"),
    "array of nothing known": (file([key("a", ARRAY, struct.pack("<IQ", 99, 1))]), "'a': an array of type 99"),
    "nested array": (file([key("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9)]), "'a': an array of type 9"),
    "array length": (file([key("a", ARRAY, struct.pack("<IQ", U8, HUGE))]), f"'a': an array of {HUGE}"),
    "array past the end": (file([key("a", ARRAY, struct.pack("<IQ", U64, 1 << 20))]), "'a': it goes on to byte"),
    "strings past the end": (file([key("a", ARRAY, struct.pack("<IQ", STRING, 1 << 20))]), "'a': entry"),
    "a string past the end": (
        file([key("a", ARRAY, struct.pack("<IQ", STRING, 1) + struct.pack("<Q", HUGE))]),
        "'a': entry 0 of 1",
    ),
    "strings not UTF-8": (file([key("a", ARRAY, struct.pack("<IQ", STRING, 1) + text(b"\xff"))]), "'a': a text is not"),
    "duplicate key": (file([key("a", U32, bytes(4)), key("a", U32, bytes(4))]), "Duplicate a"),
    "alignment of 0": (file([key("general.alignment", U32, bytes(4))]), "alignment"),
    "alignment of 3": (file([key("general.alignment", U32, struct.pack("<I", 3))]), "alignment"),
    "alignment of text": (file([key("general.alignment", STRING, text("a"))]), "general.alignment"),
    "large alignment": (
        file([key("general.alignment", U32, struct.pack("<I", 1 << 31))], [tensor("t", [4], 0, 0)]),
        "'t': its data go on",
    ),
    "no dimensions": (file(tensors=[tensor("t", [], 0, 0)]), "'t': the dimensions"),
    "five dimensions": (file(tensors=[tensor("t", [1] * 5, 0, 0)]), "'t': the dimensions"),
    "dimensions past the end": (file(tensors=[text("t") + struct.pack("<I", 1 << 31)]), "'t': it goes on"),
    "dimension of 0": (file(tensors=[tensor("t", [4, 0], 0, 0)]), "'t': the dimensions"),
    "dimensions that wrap": (file(tensors=[tensor("t", [1 << 32, 1 << 32], 0, 0)]), "'t': its data go on"),
    "dimensions that wrap to little": (file(tensors=[tensor("t", [1 << 62, 4, 4], 0, 0)]), "'t': its data go on"),
    "tensor type": (file(tensors=[tensor("t", [4], 999, 0)]), "'t': the unknown type 999"),
    "tensor type not ours": (file(tensors=[tensor("t", [256], 10, 0)]), "'t': the type Q2_K is not supported"),
    "half a block": (file(tensors=[tensor("t", [33], 8, 0)]), "'t': rows of 33 numbers"),
    "offset between": (file(tensors=[tensor("t", [4], 0, 5)]), "'t': the offset 5"),
    "offset past the end": (file(tensors=[tensor("t", [4], 0, 1 << 20)]), "'t': its data go on"),
    "offset that wraps": (file(tensors=[tensor("t", [4], 0, (1 << 64) - 32)]), "'t': its data go on"),
    "data past the end": (file(tensors=[tensor("t", [65], 0, 0)]), "'t': its data go on"),
    "duplicate tensor": (file(tensors=[tensor("t", [4], 0, 0)] * 2), "duplicated tensor with name t"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_file_is_refused_by_the_field(tmp_path: Path, name: str) -> None:
    data, words = BAD[name]
    with pytest.raises(ParametersError) as caught:
        opened(data, tmp_path)
    assert words in caught.value.message
    assert str(tmp_path / "file.gguf") in caught.value.message


def test_every_truncation_of_a_header_is_refused(tmp_path: Path) -> None:
    whole = file([key("a", ARRAY, struct.pack("<IQ", STRING, 1) + text("x"))], [tensor("t", [8], 0, 0)], data=32)
    opened(whole, tmp_path)
    for size in range(len(whole)):
        with pytest.raises(ParametersError):
            opened(whole[:size], tmp_path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match="does not exist"):
        Container(tmp_path / "absent")
    with pytest.raises(ParametersError, match="is no file"):
        Container(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ParametersError, match="is no file"):
            Container(tmp_path / "pipe")


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of processes")
def test_fuzz(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.params.fuzz", "1000", "1", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1000 cases" in done.stdout
