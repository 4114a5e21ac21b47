"""From a name to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofile.errors import NotFoundError
from twofile.params import names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a bundled folder of the test's own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "stories.gguf").touch()
    monkeypatch.setattr(names, "_BUNDLED", tmp_path / "bundled")
    return folder


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_path(elsewhere: Path) -> None:
    put(elsewhere / "a.gguf")
    assert names.resolve("a.gguf") == Path("a.gguf")
    assert names.resolve(str(elsewhere / "a.gguf")) == elsewhere / "a.gguf"


def test_local_name_comes_before_the_bundled_one(own_home: Path, tmp_path: Path) -> None:
    assert names.resolve("stories") == tmp_path / "bundled" / "stories.gguf"
    mine = put(own_home / "models" / "stories.gguf")
    assert names.resolve("stories") == mine
    assert list(names.local()) == list(names.bundled()) == ["stories"]


def test_default_folder_is_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TWOFILE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names.models_folder().is_relative_to(tmp_path)
    assert names.models_folder().parts[-2:] == ("twofile", "models")


def test_pulled_files_are_listed_by_their_hub_name(own_home: Path) -> None:
    path = put(own_home / "models/hf/ada/tiny/sub/x.gguf")
    assert names.pulled() == {"hf:ada/tiny:sub/x.gguf": path}
    assert names.resolve("hf:ada/tiny:sub/x.gguf") == names.resolve("hf:ada/tiny") == path


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("storys", "stories"),
        ("./model.ggu", "model.gguf"),
        ("model", "model.gguf"),
        ("mine2", "mine"),
        ("sub/mdl.gguf", "sub/mod.gguf"),
    ],
)
def test_a_missing_file_suggests_near_names(name: str, suggestion: str, elsewhere: Path, own_home: Path) -> None:
    put(elsewhere / "model.gguf")
    put(elsewhere / "sub" / "mod.gguf")
    put(own_home / "models" / "mine.gguf")
    with pytest.raises(NotFoundError) as caught:
        names.resolve(name)
    assert repr(name) in caught.value.message
    assert suggestion in caught.value.hint


def test_nothing_near() -> None:
    with pytest.raises(NotFoundError) as caught:
        names.resolve("qqqqqq")
    assert caught.value.hint == "twofile list shows the models that are here"


def test_a_folder(elsewhere: Path) -> None:
    (elsewhere / "hf-model").mkdir()
    with pytest.raises(NotFoundError, match="is a folder") as caught:
        names.resolve("hf-model")
    assert caught.value.hint.startswith("twofile import hf-model")


def test_a_folder_does_not_hide_a_bundled_name(elsewhere: Path, tmp_path: Path) -> None:
    (elsewhere / "stories").mkdir()
    assert names.resolve("stories") == tmp_path / "bundled" / "stories.gguf"


@pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "~nobody-of-this-name/x.gguf", "hf:ada", "..", "/"])
def test_odd_names_are_refused_in_words(name: str) -> None:
    with pytest.raises(NotFoundError):
        names.resolve(name)


def test_target(own_home: Path) -> None:
    assert names.target("mine") == own_home / "models" / "mine.gguf"
    assert (own_home / "models").is_dir()
    assert names.target("out/mine.gguf") == Path("out/mine.gguf")
    assert names.target("mine.gguf") == Path("mine.gguf")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a b", "a\0b", "hf:ada"])
def test_a_local_name_cannot_leave_its_folder(name: str, own_home: Path) -> None:
    with pytest.raises(NotFoundError, match="local name"):
        names.target(name)
    assert not own_home.exists()


def test_a_hidden_or_outside_file_is_no_local_name(own_home: Path, tmp_path: Path) -> None:
    put(own_home / "models" / ".secret.gguf")
    put(own_home / "outside.gguf")
    assert names.local() == {}
    with pytest.raises(NotFoundError):
        names.resolve("../outside")
