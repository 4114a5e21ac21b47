"""The process that reads: it may hang, crash or want too much, and the next file is read all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.search.samples import docx, pdf
from twofile.tools.search.readers import UnreadableError
from twofile.tools.search.worker import Reader


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader(seconds=1.0) as one:
        yield one


def read(reader: Reader, path: Path, kind: str) -> str:
    handle = os.open(path, os.O_RDONLY)
    try:
        return "|".join(one.text for one in reader.read(handle, kind).passages)
    finally:
        os.close(handle)


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_text("hello")
    return path


def started(reader: Reader, note: Path) -> int:
    assert read(reader, note, "text") == "hello"
    assert reader._process is not None
    return reader._process.pid


def test_one_process_reads_many(reader: Reader, note: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(["from a pdf"]))
    (tmp_path / "a.docx").write_bytes(docx([(0, "from word")]))
    process = started(reader, note)
    assert read(reader, tmp_path / "a.pdf", "pdf") == "from a pdf"
    assert read(reader, tmp_path / "a.docx", "docx") == "from word"
    assert started(reader, note) == process
    assert not os.path.exists(f"/proc/{process}/fd") or len(os.listdir(f"/proc/{process}/fd")) < 8


def test_one_that_was_killed_is_followed_by_another(reader: Reader, note: Path) -> None:
    process = started(reader, note)
    os.kill(process, signal.SIGKILL)
    time.sleep(0.05)
    assert started(reader, note) != process


def test_one_that_hangs_is_ended(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofile.tools.search.worker._GRACE", 0.2)
    with Reader(seconds=0.5) as reader:
        process = started(reader, note)
        os.kill(process, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(UnreadableError, match="takes longer than"):
            read(reader, note, "text")
        assert time.monotonic() - start < 2
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
        monkeypatch.undo()
        assert started(reader, note) != process


def test_memory_is_bounded(note: Path, tmp_path: Path) -> None:
    import io
    import zipfile

    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(docx([(0, "x")]))) as old, zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as new:
        for one in old.infolist():
            data = old.read(one)
            if one.filename == "word/document.xml":
                data = data.replace(b"<w:body>", b"<w:body>" + b"<w:p/>" * 20_000_000)
            new.writestr(one.filename, data)
    (tmp_path / "bomb.docx").write_bytes(held.getvalue())
    assert len(held.getvalue()) < 1 << 20
    with Reader(seconds=20, memory=400 << 20) as reader:
        with pytest.raises(UnreadableError, match=r"memory|crashed|damaged"):
            read(reader, tmp_path / "bomb.docx", "docx")
        started(reader, note)


def test_it_writes_nothing_and_has_no_keys(reader: Reader, note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "s3cret")
    process = started(reader, note)
    if not os.path.exists(f"/proc/{process}/environ"):
        pytest.skip("there is no /proc")
    assert b"s3cret" not in Path(f"/proc/{process}/environ").read_bytes()
    limits = Path(f"/proc/{process}/limits").read_text()
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]


def test_it_ends_with_its_parent(note: Path) -> None:
    reader = Reader()
    process = started(reader, note)
    assert reader._socket is not None
    reader._socket.close()  # as when the parent was killed
    assert reader._process is not None
    assert reader._process.wait(5) == 0
    assert process
    reader.close()


def test_an_empty_and_a_large_file(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate(60 << 20)
    for name, words in (("empty.txt", "no text"), ("large.txt", "larger than 50 MB")):
        with pytest.raises(UnreadableError, match=words):
            read(reader, tmp_path / name, "text")
    assert reader._process is None, "nothing had to be started for that"


@pytest.mark.parametrize(
    "table",
    [
        {}, {"title": 1, "note": "", "passages": []}, {"title": "", "note": "", "passages": [["a"]]},
        {"title": "", "note": "", "passages": 3}, {"title": "", "note": "", "passages": [["x" * 100_000, ""]]},
        {"title": "\ud800", "note": "", "passages": []}, {"title": "", "note": "", "passages": [[1, 2]]},
    ],
)  # fmt: skip
def test_a_process_that_says_anything(
    reader: Reader, note: Path, table: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_ask", lambda handle, head: table)
        with pytest.raises(UnreadableError, match="crashed"):
            read(reader, note, "text")
    assert started(reader, note)
