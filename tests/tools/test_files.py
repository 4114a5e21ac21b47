"""Reading, writing and listing: through the drivers, as the kernel runs them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.search.samples import docx, pdf
from twofile.kernel.capability import Grant, Grants, covers, normal
from twofile.kernel.driver import Context, Driver, Drivers, Outcome, run_driver
from twofile.kernel.label import Label
from twofile.tools.files import ListFiles, ReadFile, WriteFile
from twofile.tools.search.text import decoded


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    (path / "sub").mkdir(parents=True)
    (path / "a.txt").write_text("one\ntwo\n")
    return path


def call(driver: Driver, **arguments: Any) -> Outcome:
    driver.needs(arguments)
    return run_driver(driver, arguments, Context(1, time.monotonic() + 10))


def refused(driver: Driver, **arguments: Any) -> str:
    outcome = run_driver(driver, arguments, Context(1, time.monotonic() + 10))
    assert outcome.error
    assert "failed" not in outcome.text, outcome.text
    return outcome.text


def test_they_are_drivers(notes: Path) -> None:
    drivers = Drivers([ReadFile([notes]), WriteFile([notes]), ListFiles([notes])])
    assert [drivers[name].pure for name in drivers.names] == [True, False, True]


def test_read_write_list(notes: Path) -> None:
    assert call(ReadFile([notes]), path="notes/a.txt").text == "one\ntwo\n"
    assert call(ReadFile([notes]), path=str(notes / "a.txt")).text == "one\ntwo\n"
    assert call(WriteFile([notes]), path="notes/new/b.txt", text="été").text == "wrote notes/new/b.txt, 5 bytes"
    assert call(WriteFile([notes]), path="notes/new/b.txt", text="").text == "replaced notes/new/b.txt, 0 bytes"
    assert call(ReadFile([notes]), path="notes/new/b.txt").text == "[the file is empty]"
    os.mkfifo(notes / "pipe")
    (notes / "link").symlink_to("/etc")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    lines = call(ListFiles([notes]), path="notes").text.split("\n")
    assert lines == [f"a.txt  8 bytes, {day}", "link  (link)", "new/", "pipe  (other)", "sub/"]
    assert call(ListFiles([notes])).text == "notes/"
    assert call(ListFiles([notes]), path="notes/sub").text == "the folder is empty"
    assert call(ListFiles([notes], most=2), path="notes").text.endswith("\n[and 3 others]")


def test_what_is_needed_is_the_real_path(notes: Path, tmp_path: Path) -> None:
    (tmp_path / "other-name").symlink_to(notes)
    files = ReadFile([tmp_path / "other-name"])
    assert files.needs({"path": "notes/a.txt"}) == (f"fs:read:{notes}/a.txt",)
    assert files.label({"path": "notes/a.txt"}) == Label.of(f"file:{notes}/a.txt", {"user"})
    assert WriteFile([notes]).needs({"path": "notes/new/b"}) == (f"fs:write:{notes}/new/b",)
    assert WriteFile([notes]).label({"path": "notes/new/b"}) == Label()
    assert ListFiles([notes]).needs({"path": "notes"}) == (f"fs:read:{notes}",)
    assert ListFiles([notes]).needs({}) == ()
    assert covers(normal(f"fs:read:{notes}"), normal(files.needs({"path": "notes/a.txt"})[0]))


def test_a_folder_that_is_only_read_is_not_written_to(notes: Path, tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    write = WriteFile([tmp_path / "drafts"])
    assert "no folder that is granted" in refused(write, path=str(notes / "a.txt"), text="x")
    assert "no folder that is granted" in refused(write, path="/etc/passwd", text="x")
    assert "'..'" in refused(write, path="drafts/../notes/a.txt", text="x")
    assert (notes / "a.txt").read_text() == "one\ntwo\n"
    grants = Grants([Grant(normal(f"fs:read:{notes}"), "allow", "always")])
    limit = (f"fs:read:{notes}", f"fs:write:{tmp_path}/drafts")
    (need,) = WriteFile([notes]).needs({"path": "notes/a.txt"})
    assert grants.decide(1, limit, need, Label()) == "deny"
    (need,) = ReadFile([notes]).needs({"path": "notes/a.txt"})
    assert grants.decide(1, limit, need, Label()) == "allow"


def test_a_link_needs_what_it_leads_to_and_is_refused_all_the_same(notes: Path) -> None:
    """The kernel compares real paths: a link in a granted folder is decided as the place that it leads to."""
    (notes / "link").symlink_to("/etc/passwd")
    (need,) = ReadFile([notes]).needs({"path": "notes/link"})
    assert not covers(normal(f"fs:read:{notes}"), normal(need))
    assert "links are not followed" in refused(ReadFile([notes]), path="notes/link")
    assert "no plain file" in refused(WriteFile([notes]), path="notes/link", text="x")


def test_errors_are_words_for_the_model(notes: Path) -> None:
    assert "no such file" in refused(ReadFile([notes]), path="notes/none.txt")
    assert "it is a folder" in refused(ReadFile([notes]), path="notes/sub")
    assert "no such file" in refused(ListFiles([notes]), path="notes/none")
    assert "no folder" in refused(ListFiles([notes]), path="notes/a.txt")
    assert "a path is a text" in refused(ReadFile([notes]), path=3)
    assert "offset is" in refused(ReadFile([notes]), path="notes/a.txt", offset=-1)
    assert "there is nothing at 9" in refused(ReadFile([notes]), path="notes/a.txt", offset=9)
    assert "at most 10" in refused(WriteFile([notes], most=10), path="notes/b", text="x" * 11)
    assert "half of a character" in refused(WriteFile([notes]), path="notes/b", text="\ud800")
    assert "none is granted" in refused(ReadFile([]), path="notes/a.txt")
    (notes / "binary").write_bytes(b"\x7fELF\0\0")
    assert "no text file" in refused(ReadFile([notes]), path="notes/binary")
    assert not (notes / "b").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(notes: Path) -> None:
    (notes / "a.txt").chmod(0)
    assert "no permission" in refused(ReadFile([notes]), path="notes/a.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_long_file_is_read_in_parts(notes: Path, encoding: str) -> None:
    text = "".join(f"{n}: é東𝄞\n" for n in range(300))
    (notes / "long.txt").write_text(text, encoding=encoding)
    read, offset, whole = ReadFile([notes], most=1000), 0, ""
    while True:
        said = call(read, path="notes/long.txt", offset=offset).text
        part, found, note = said.partition("\n[bytes ")
        whole += part
        if not found:
            break
        assert int(note.rpartition("offset ")[2].rstrip("]")) > offset
        offset = int(note.rpartition("offset ")[2].rstrip("]"))
    assert whole == text


def test_the_text_of_a_pdf_and_of_a_word_file(notes: Path) -> None:
    (notes / "a.pdf").write_bytes(pdf(["First page", "Second page"], "Report"))
    (notes / "a.docx").write_bytes(docx([(1, "Head"), (0, "below")]))
    (notes / "bad.pdf").write_bytes(b"%PDF-1.7")
    assert call(ReadFile([notes]), path="notes/a.pdf").text == "Report\n[page 1]\nFirst page\n[page 2]\nSecond page"
    assert call(ReadFile([notes]), path="notes/a.docx").text == "Head\n[Head]\nbelow"
    assert call(ReadFile([notes], most=6), path="notes/a.pdf", offset=7).text.startswith("[page \n[bytes 7 to 13 of 47")
    assert "damaged" in refused(ReadFile([notes]), path="notes/bad.pdf")


def test_a_file_without_an_end_is_bounded() -> None:
    read = ReadFile(["/proc/self"], most=100)
    assert len(call(read, path="status").text) <= 200


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        text, used = decoded(data, data)
    except ValueError:
        assert b"\0" in data
        return
    assert used <= len(data)
    assert len(data) - used < 4
    text.encode("utf-8", "strict")


def test_windows_text() -> None:
    assert decoded("naïve – “x”".encode("cp1252"), "naïve – “x”".encode("cp1252"))[0] == "naïve – “x”"
    assert decoded(b"caf\xc3", b"caf\xc3") == ("caf", 4 - 1)


@pytest.mark.parametrize("target", ["/etc", "../secret", "sub", "/proc/self/root/etc", "/proc/self/cwd"])
def test_no_driver_goes_through_a_link(notes: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").mkdir()
    (notes / "way").symlink_to(target)
    for driver, more in ((ReadFile, {}), (WriteFile, {"text": "x"}), (ListFiles, {})):
        path = "notes/way" if driver is ListFiles else "notes/way/passwd"
        why = refused(driver([notes]), path=path, **more)
        assert "links are not followed" in why or "no folder" in why  # the latter where there is no openat2
    assert os.listdir(tmp_path / "secret") == os.listdir(notes / "sub") == []


@pytest.mark.skipif(not os.path.exists("/proc/self/root"), reason="there is no /proc")
def test_magic_links_lead_nowhere() -> None:
    """Of a folder that has them in it: they lead to the root of the system, past every name."""
    for path in ("self/root/etc/passwd", "self/cwd/pyproject.toml", "self/task/../root/etc/passwd"):
        assert "root:" not in refused(ReadFile(["/proc"]), path=path)
    assert "links are not followed" in refused(ReadFile([f"/proc/{os.getpid()}"]), path="root/etc/passwd")
    assert "bin" not in refused(ListFiles([f"/proc/{os.getpid()}"]), path="root").split()


def test_no_driver_waits_for_a_fifo_or_a_device(notes: Path) -> None:
    os.mkfifo(notes / "pipe")
    start = time.monotonic()
    assert "no plain file" in refused(ReadFile([notes]), path="notes/pipe")
    assert "no plain file" in refused(WriteFile([notes]), path="notes/pipe", text="x")
    assert "no plain file" in refused(ReadFile(["/dev"]), path="zero")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "name", ["line\nbreak", "\x1b[31mred", "\udcff\udcfe", " spaced ", '"quoted"', "\u202eabc", "-rf"]
)
def test_a_name_that_is_listed_can_be_read_and_written(notes: Path, name: str) -> None:
    (notes / "odd").mkdir()
    (notes / "odd" / name).write_text("odd")
    text = call(ListFiles([notes]), path="notes/odd").text
    assert text.isprintable(), "a name is one line, and nothing in it is obeyed"
    line = text.rpartition("  3 bytes")[0]
    read, write = ReadFile([notes / "odd"]), WriteFile([notes / "odd"])
    assert call(read, path=line).text == "odd"
    assert "replaced" in call(write, path=line, text="new").text
    assert os.listdir(notes / "odd") == [name]
    assert call(read, path=line).text == "new"


def test_a_folder_that_becomes_a_link_meanwhile(notes: Path, tmp_path: Path) -> None:
    """What is read and listed is never what the link leads to; of writing, `Folder`'s own tests show it."""
    outside, sub, kept = tmp_path / "outside", notes / "sub", notes / "kept"
    outside.mkdir()
    for above, text in ((outside, "secret"), (sub, "inside")):
        (above / "a.txt").write_text(text)
    (outside / "secret.txt").touch()
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            sub.rename(kept)
            sub.symlink_to(outside)
            sub.unlink()
            kept.rename(sub)

    thread = threading.Thread(target=swap)
    thread.start()
    said = set()
    try:
        for _ in range(150):
            for driver, more in ((ReadFile, {"path": "notes/sub/a.txt"}), (ListFiles, {"path": "notes/sub"})):
                said.add(run_driver(driver([notes]), more, Context(1, time.monotonic() + 10)).text)
    finally:
        done.set()
        thread.join()
    assert not any("secret" in one for one in said)
    assert "inside" in said
    assert any("links are not followed" in one or "no such file" in one for one in said), "the swap was never seen"
    assert sorted(os.listdir(outside)) == ["a.txt", "secret.txt"]
