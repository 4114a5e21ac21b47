"""Texts of a file: every format and packing, bounded pieces, damage named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from twofile.errors import TrainError
from twofile.train.corpus import reading
from twofile.train.corpus.reading import KINDS, PACKINGS, kind, pieces, texts

TEXTS = [f'Story {i}.\nThe cat — 猫 — sat,\r\n"still".' for i in range(100)]


def pack(data: bytes, packing: str) -> bytes:
    if packing == ".zst":
        zstd = pytest.importorskip("backports.zstd", reason="no zstd")
        return zstd.compress(data)
    return {".gz": gzip.compress, ".xz": lzma.compress}.get(packing, bytes)(data)


def written(folder: Path, suffix: str, packing: str = "") -> Path:
    """A file of TEXTS."""
    buffer = io.StringIO(newline="")
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        sink = io.BytesIO()
        parquet.write_table(pa.table({"text": TEXTS, "n": list(range(100))}), sink, row_group_size=30)
        data = sink.getvalue()
    elif suffix == ".jsonl":
        data = "\n".join(json.dumps({"text": text}) for text in TEXTS).encode()
    elif suffix == ".csv":
        csv.writer(buffer).writerows([("n", "text"), *enumerate(TEXTS)])
        data = buffer.getvalue().encode()
    else:
        data = "\n===\n".join(TEXTS).encode()
    path = folder / f"a{suffix}{packing}"
    path.write_bytes(pack(data, packing))
    return path


@pytest.mark.parametrize("packing", ["", *PACKINGS])
@pytest.mark.parametrize("suffix", KINDS)
def test_every_kind_in_every_packing(tmp_path: Path, suffix: str, packing: str) -> None:
    found = list(texts(written(tmp_path, suffix, packing), split=r"\n===\n"))
    as_lines = [text.replace("\r\n", "\n") for text in TEXTS]
    assert found == (as_lines if suffix in (".txt", ".md", ".tokens") else TEXTS)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_a_truncated_or_damaged_file_is_an_error(tmp_path: Path, suffix: str, packing: str) -> None:
    path = written(tmp_path, suffix, packing)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(TrainError, match="cannot be read"):
        list(texts(path))
    path.write_bytes(b"nonsense" + whole[8:])
    with pytest.raises(TrainError, match="cannot be read"):
        list(texts(path))


@pytest.mark.parametrize("packing", PACKINGS)
def test_frames_behind_one_another_are_all_read(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(pack(b"one ", packing) + pack(b"two", packing))
    assert list(texts(path)) == ["one two"]


@pytest.mark.parametrize(
    "split", [r"\n\n", r"\n+", r"\n(?=Once)", r"(?<=[.!])\n", r"(?=Once)", r"(\n){2}", r"^\n|x", r"zzz"]
)
@pytest.mark.parametrize("seed", range(3))
def test_pieces_are_what_re_split_gives(split: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the stream is cut into blocks."""
    random_ = random.Random(seed)
    text = "".join(random_.choices(["\n", "Once", " upon", "x", ".", "\n\n", "猫"], k=400))
    whole, start = [], 0
    for match in re.finditer(split, text):
        whole.append(text[start : match.start()])
        start = match.end()
    whole.append(text[start:])
    for block in (1, 7, 64, 5000):
        monkeypatch.setattr(reading, "_BLOCK", block)
        monkeypatch.setattr(reading, "_MARGIN", 16)
        found = list(pieces(io.StringIO(text, newline="\n"), split))
        assert [piece for piece in found if piece] == [piece for piece in whole if piece], block


def test_a_long_text_is_cut_at_blank_lines_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK", 100)
    text = "\n\n".join("word " * (i % 40) for i in range(200)) + "x" * 5000
    found = list(pieces(io.StringIO(text), longest=1000))
    assert "".join(found) == text
    assert max(map(len, found)) <= 1000
    assert all(piece.endswith("\n\n") for piece in found[:5])


def test_a_long_row_is_cut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST", 1000)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "word " * 500}) + '\n{"text": "short"}')
    found = list(texts(tmp_path / "a.jsonl"))
    assert "".join(found) == "word " * 500 + "short"
    assert max(map(len, found)) <= 1000


def test_null_is_no_document_and_half_a_character_is_mended(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    assert list(texts(tmp_path / "a.jsonl")) == ["a\ufffdb 😀"]


def test_rows_are_dropped_by_a_field(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,licence\nfree,CC-BY\nnot free,CC-BY-NC\n")
    assert list(texts(tmp_path / "a.csv", drop={"licence": "NC"})) == ["free"]


@pytest.mark.parametrize(("suffix", "has"), [(".jsonl", "body, n"), (".csv", "body, n"), (".parquet", "body, n")])
def test_a_wrong_column_names_those_there_are(tmp_path: Path, suffix: str, has: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.table({"body": ["x"], "n": [1]}), path)
    else:
        path.write_text({".jsonl": '{"body": "x", "n": 1}', ".csv": "body,n\nx,1\n"}[suffix])
    with pytest.raises(TrainError, match=f"no text in column 'text'; it has {has}") as caught:
        list(texts(path))
    assert "column" in caught.value.hint


def test_an_open_quote_in_a_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"never closed\n' + "x\n" * 100)
    with pytest.raises(TrainError, match="cannot be read"):
        list(texts(tmp_path / "a.csv"))


def test_kind() -> None:
    assert [kind(name) for name in ("a.txt", "a.b.jsonl.zst", "a.pdf", "a.gz", "LICENSE")] == [
        ".txt",
        ".jsonl",
        "",
        "",
        "",
    ]


def test_a_parquet_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path, draw = tmp_path / "large.parquet", random.Random(1)
    with parquet.ParquetWriter(path, pa.schema({"text": pa.string()})) as table:
        for _ in range(60):
            table.write_table(pa.table({"text": [draw.randbytes(500).hex() for _ in range(2000)]}))
    code = """
import resource, sys
from pathlib import Path
from twofile.train.corpus.reading import texts
found = texts(Path(sys.argv[1]))
next(found)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in found:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < path.stat().st_size / 3
