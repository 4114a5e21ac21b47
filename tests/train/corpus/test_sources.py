"""Reading documents: every format, the held-out split, the filters, what is wrong named."""

import gzip
import json
import lzma
import os
from pathlib import Path

import pytest

from twofile.errors import TrainError
from twofile.train.corpus.sources import Document, Source, both, clean, copies, documents, files, sha256, sources, stamp

TEXTS = [f"Story {i}. The cat sat." for i in range(40)]


def write(path: Path, data: bytes) -> Path:
    packer = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(packer(data))
    return path


def read(source: Source, folder: Path, held_out: bool = False) -> list[str]:
    return [document.text for document in documents(source, folder, held_out=held_out)]


@pytest.mark.parametrize("packing", ["", ".gz", ".xz"])
@pytest.mark.parametrize("kind", ["jsonl", "txt", "parquet"])
def test_formats(tmp_path: Path, kind: str, packing: str) -> None:
    path = tmp_path / f"a.{kind}{packing}"
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        parquet.write_table(pa.table({"text": TEXTS, "n": list(range(40))}), tmp_path / "plain")
        write(path, (tmp_path / "plain").read_bytes())
    elif kind == "jsonl":
        write(path, "\n".join(json.dumps({"text": text}) for text in TEXTS).encode())
    else:
        write(path, "\n\n".join(TEXTS).encode())
    source = Source(path.name, "a", held_out=0, split=r"\n\n")
    assert read(source, tmp_path) == TEXTS
    assert [document.source for document in documents(source, tmp_path)] == ["a"] * 40


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", b"one\n\ntwo")
    assert read(Source("b.txt", "b", held_out=0), tmp_path) == ["one\n\ntwo"]


def test_glob_is_sorted(tmp_path: Path) -> None:
    for name in "cab":
        write(tmp_path / f"{name}.txt", name.encode())
    assert [file.path.stem for file in files(Source("*.txt", "x"), tmp_path)] == ["a", "b", "c"]


def test_held_out_is_a_partition_by_text(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXTS * 2).encode())
    source = Source("a.jsonl", "a", held_out=0.3)
    kept, held_out = read(source, tmp_path), read(source, tmp_path, held_out=True)
    assert sorted(kept + held_out) == sorted(TEXTS * 2)
    assert not set(kept) & set(held_out)
    assert 2 < len(set(held_out)) < 25
    assert read(Source("a.jsonl", "a", held_out=1), tmp_path) == []


def test_both_sides_in_one_reading(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXTS).encode())
    source = Source("a.jsonl", "a", held_out=0.3)
    found = list(both(source, tmp_path))
    assert [document.text for document, _ in found] == TEXTS
    for side in (False, True):
        assert [document.text for document, aside in found if aside == side] == read(source, tmp_path, side)


def test_a_stamp_changes_with_the_files(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"one")
    source = Source("*.txt", "a")
    stamps = [stamp(source, tmp_path), stamp(source, tmp_path)]
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    stamps.append(stamp(source, tmp_path))
    write(tmp_path / "b.txt", b"")
    stamps.append(stamp(source, tmp_path))
    assert len(set(stamps)) == 3
    assert stamps[0] == stamps[1]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x/one", "x/two"):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder / "a.txt", b"a")
    for path in (".", "x", "**/*.txt"):
        assert [file.name for file in files(Source(path, "a"), tmp_path)] == ["one/a.txt", "two/a.txt"]
    assert [file.name for file in files(Source("x/one/*", "a"), tmp_path)] == ["a.txt"]


@pytest.mark.parametrize("name", ["../x", "wiki.1", "", "a b", "a/b", "a, held out", "a\n"])
def test_a_name_that_is_no_file_name(name: str) -> None:
    with pytest.raises(TrainError, match="a source's name is made of letters"):
        sources([{"path": "x", "name": name}])


@pytest.mark.parametrize("name", ["wiki-1", "märchen", "Ada_2"])
def test_a_name_that_can_be_a_file_name(name: str) -> None:
    assert sources([{"path": "x", "name": name}])[0].name == name


def test_drop_and_column(tmp_path: Path) -> None:
    rows = [{"body": "free", "license": "CC-BY"}, {"body": "not free", "license": "CC BY-NC-SA"}]
    write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert read(Source("a.jsonl", "a", held_out=0, column="body", drop={"license": "NC"}), tmp_path) == ["free"]


def test_copies() -> None:
    found = [copies(Document(str(i), "a"), 2.25) for i in range(2000)]
    assert set(found) == {2, 3}
    assert 400 < found.count(3) < 600


def test_clean() -> None:
    assert clean("â€œHello,â€ she said. Itâ€™s\u00a0 me.") == '"Hello," she said. It\'s me.'
    assert clean("me.\r\nBye \n\n\n\nnow\u2028end\x00") == "me.\nBye\n\nnow\nend"
    assert clean("“a” ‘b’ é") == "\"a\" 'b' é"


def test_sha256_is_of_the_files(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"x")
    assert sha256(Source("a.txt", "a"), tmp_path).startswith("2d711642b726b044")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: not a JSON object"),
        ("a.jsonl", b'{"body": "x"}\n', "no text in column 'text'"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
        ("a.pdf", b"", "not a format"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    write(tmp_path / name, data)
    with pytest.raises(TrainError, match=message):
        read(Source(name, "a"), tmp_path)


def test_damaged_archives_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(b"x" * 1000)[:-20])
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no table PAR1")
    for name in ("a.txt.xz", "b.txt.gz", "c.parquet"):
        with pytest.raises(TrainError, match=name):
            read(Source(name, "a"), tmp_path)


def test_missing_file_and_bad_recipe(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"source a: no file matches none\.txt"):
        read(Source("none.txt", "a"), tmp_path)
    with pytest.raises(TrainError, match="source a"):
        sources([{"path": "x", "name": "a", "wieght": 2}])
    with pytest.raises(TrainError, match="same name"):
        sources([{"path": "x", "name": "a"}, {"path": "y", "name": "a"}])
