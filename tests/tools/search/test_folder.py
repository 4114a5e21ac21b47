"""What is opened through a folder lies in it: with the kernel's call, and with the walk where there is none."""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofile.errors import ToolError
from twofile.tools.search import folder as module
from twofile.tools.search.folder import Folder, Folders, PathError, meant, shown


@pytest.fixture(autouse=True, params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "walk":
        monkeypatch.setattr(module, "_openat2", lambda: None)
    elif module._openat2() is None:
        pytest.skip("this kernel has no openat2")
    return str(request.param)


@pytest.fixture
def granted(tmp_path: Path) -> Iterator[Path]:
    """A folder with a secret beside it."""
    path = tmp_path / "granted"
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file.txt").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    yield path
    if before:
        assert len(os.listdir("/proc/self/fd")) <= len(before), "a handle was left open"


def content(folder: Folder, path: str) -> str:
    with folder.opened(path) as (handle, _):
        return os.read(handle, 1000).decode()


def test_what_is_inside_is_read(granted: Path) -> None:
    assert content(Folder(granted), "inner/file.txt") == "inside"
    assert content(Folder(granted), "./inner//file.txt") == "inside"
    assert [(one.name, one.kind) for one in Folder(granted).entries("", 10)] == [("inner", "folder")]
    assert [(one.name, one.size) for one in Folder(granted).entries("inner", 10)] == [("file.txt", 6)]


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.txt",
        "inner/../../outside/secret.txt",
        "inner/../inner/file.txt",
        "file",
        "inner",
        "a\0b",
        "..",
    ],
)
def test_what_is_refused(granted: Path, path: str) -> None:
    with pytest.raises(ValueError), Folder(granted).opened(path):  # noqa: PT011
        pass


@pytest.mark.parametrize(
    "target", ["../outside/secret.txt", "/etc/passwd", "inner/file.txt", "/proc/self/root/etc/passwd"]
)
def test_no_link_is_followed(granted: Path, target: str) -> None:
    (granted / "link").symlink_to(target)
    (granted / "way").symlink_to(Path(target).parent)
    folder = Folder(granted)
    for path in ("link", f"way/{Path(target).name}"):
        with pytest.raises(PathError), folder.opened(path):
            pass
    with pytest.raises(PathError):
        folder.entries("way", 10)
    with pytest.raises(PathError):
        folder.write(f"way/{Path(target).name}", b"x")
    with pytest.raises(PathError, match="no plain file"):
        folder.write("link", b"x")
    assert {one.name: one.kind for one in folder.entries("", 10)}["link"] == "link"
    assert (granted.parent / "outside" / "secret.txt").read_text() == "secret"
    assert (granted / "inner" / "file.txt").read_text() == "inside"


@pytest.mark.skipif(not os.path.exists("/proc/self/root"), reason="there is no /proc")
def test_magic_links_lead_nowhere() -> None:
    handle = os.open("/etc", os.O_RDONLY)
    try:
        for path in ("self/root/etc/passwd", f"self/fd/{handle}/passwd", "self/cwd/pyproject.toml"):
            with pytest.raises(PathError), Folder("/proc").opened(path):
                pass
    finally:
        os.close(handle)


def test_nothing_waits_for_what_is_no_file(granted: Path) -> None:
    os.mkfifo(granted / "fifo")
    folder = Folder(granted)
    with pytest.raises(PathError, match="plain file"), folder.opened("fifo"):
        pass
    with pytest.raises(PathError, match="plain file"):
        folder.write("fifo", b"x")
    for device in ("zero", "null", "tty"):
        with pytest.raises(PathError), Folder("/dev").opened(device):
            pass


def test_a_granted_folder_that_becomes_a_link_leads_nowhere(granted: Path) -> None:
    folder = Folder(granted)
    granted.rename(granted.parent / "moved")
    granted.symlink_to(granted.parent / "outside")
    with pytest.raises(PathError), folder.opened("secret.txt"):
        pass
    with pytest.raises(PathError):
        folder.write("new.txt", b"x")
    assert sorted(os.listdir(granted.parent / "outside")) == ["secret.txt"]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_link_that_is_swapped_in_meanwhile(granted: Path, what: str) -> None:
    """A thread swaps a folder, or a file, for a link to the outside as fast as it can. Whatever is read is the inside,
    whatever is written lies there."""
    outside, inner = granted.parent / "outside", granted / "inner"
    (outside / "file.txt").write_text("secret")
    (granted / "other").symlink_to(outside if what == "folder" else outside / "file.txt")
    changing = inner if what == "folder" else inner / "file.txt"
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    if exchange is None:
        pytest.skip("this system cannot exchange two names at once")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            assert exchange(-100, bytes(changing), -100, bytes(granted / "other"), 2) == 0

    folder = Folder(granted)
    read = refused = 0
    thread = threading.Thread(target=swap)
    assert (granted / "other" / "file.txt" if what == "folder" else granted / "other").read_text() == "secret"
    thread.start()
    try:
        for _ in range(3000):
            try:
                assert content(folder, "inner/file.txt") in ("inside", "ours")
                read += 1
            except PathError:
                refused += 1
        for _ in range(30):
            try:
                folder.write("inner/new.txt" if what == "folder" else "inner/file.txt", b"ours")
            except PathError:
                refused += 1
    finally:
        done.set()
        thread.join()
    assert read
    assert refused, "the swap was never seen, so nothing was shown"
    assert (outside / "file.txt").read_text() == "secret"
    assert sorted(os.listdir(outside)) == ["file.txt", "secret.txt"]


def test_writing_is_whole_or_not_at_all(granted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(granted)
    assert folder.write("new/deep/file.txt", b"one")
    assert not folder.write("new/deep/file.txt", b"two")
    assert (granted / "new" / "deep" / "file.txt").read_bytes() == b"two"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(PathError, match="the disk is full"):
        folder.write("new/deep/file.txt", b"three")
    assert os.listdir(granted / "new" / "deep") == ["file.txt"]
    assert (granted / "new" / "deep" / "file.txt").read_bytes() == b"two"


def test_writing_keeps_what_a_file_may_do(granted: Path) -> None:
    target = granted / "inner" / "file.txt"
    os.link(target, granted.parent / "outside" / "hard.txt")
    target.chmod(0o640)
    Folder(granted).write("inner/file.txt", b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert (granted.parent / "outside" / "hard.txt").read_text() == "inside", "the file itself was written to"
    target.chmod(0o440)
    with pytest.raises(PathError, match="read-only"):
        Folder(granted).write("inner/file.txt", b"newer")
    for path in ("", ".", "inner", "inner/file.txt/below"):
        with pytest.raises(ValueError):  # noqa: PT011
            Folder(granted).write(path, b"x")


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31mb", "ü" * 127, "n" * 255, "\udcff\udcfe", " a ", '"q"', "\u202eabc"]
)
def test_names_of_every_kind(granted: Path, name: str) -> None:
    folder = Folder(granted)
    folder.write(name, b"x")
    found = [one.name for one in folder.entries("", 100)]
    assert name in found
    line = shown(name)
    assert line.isprintable()
    assert meant(line) == name
    assert content(folder, name) == "x"
    assert Folders([granted]).find(line)[1] == name.strip("/")


@given(st.text())
def test_a_name_is_read_as_it_was_shown(name: str) -> None:
    assert meant(shown(name)) == name
    assert shown(name).isprintable()


def test_too_long_and_too_deep(granted: Path) -> None:
    for path in ("n" * 256, "/".join(["a"] * 500), "\ud800"):
        with pytest.raises(ValueError), Folder(granted).opened(path):  # noqa: PT011
            pass


def test_a_path_finds_its_folder(tmp_path: Path) -> None:
    for one in ("a/notes", "b/notes", "a/notes/deep"):
        (tmp_path / one).mkdir(parents=True)
    folders = Folders(
        [tmp_path / "a/notes", tmp_path / "b/notes", tmp_path / "a/notes/deep", tmp_path / "b/../b/notes"]
    )
    assert list(folders.named) == ["notes", "notes-2", "deep"]
    assert folders.find("notes-2/x.txt")[0].path == str(tmp_path / "b/notes")
    assert folders.find(str(tmp_path / "a/notes/x"))[1] == "x"
    assert folders.find(str(tmp_path / "a/notes/deep/x"))[0].path == str(tmp_path / "a/notes/deep")
    for path in ("other/x", str(tmp_path / "a/notes2"), str(tmp_path), "/", "", "/etc/passwd", "notes/../../x"):
        with pytest.raises(ValueError):  # noqa: PT011
            folders.find(path)
    assert Folders([tmp_path / "b/notes"]).find("x/y")[1] == "x/y"
    with pytest.raises(ToolError):
        Folders([tmp_path / "none"])
