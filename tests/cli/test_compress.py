"""compress and decompress from the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from twofile.cli import main as cli
from twofile.engine import library
from twofile.errors import EngineError
from twofile.evaluate.peers import peers

STORY = (
    "Once upon a time there was a little girl named Lily. She loved to play outside in the park with her mom. One day, "
    "she saw a big dog. The dog was very happy to see her. They played together all day and became best friends.\n"
)


@pytest.fixture(autouse=True)
def program(own_cache: Path) -> None:
    try:
        library.load_program()
    except EngineError as error:
        pytest.skip(error.message)


@pytest.fixture
def story(tmp_path: Path) -> Path:
    (tmp_path / "story.txt").write_text(STORY)
    return tmp_path / "story.txt"


def call(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as exit:
        cli.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    assert exit.value.code == status, captured.err
    return captured.out, captured.err


def test_there_and_back(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = call(capsys, "compress", story)
    made = story.with_name("story.txt.2f")
    lines = out.splitlines()
    assert lines[0] == str(made)
    sizes = {line[2:].split("  ")[0]: line.split()[-2:] for line in lines[2:]}
    assert sizes["as it is"] == [str(len(STORY)), "8.000"]
    assert sizes["twofile, stories"] == [str(made.stat().st_size), f"{8 * made.stat().st_size / len(STORY):.3f}"]
    assert sizes["xz -9"][0] == str(peers(STORY.encode())["xz -9"])
    assert {"zstd -19", "brotli -q 11"} <= sizes.keys()
    assert made.stat().st_size < 0.75 * len(STORY)  # most of which is the header
    assert "4.4 MB, is needed too and not counted" in err
    story.unlink()
    assert call(capsys, "decompress", made)[0] == f"{story}\n"
    assert story.read_text() == STORY


def test_check(story: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "compress", story, "--check")
    made = story.with_name("story.txt.2f")
    made.unlink()
    fingerprints = iter((b"a" * 16, b"b" * 16))  # as on a machine that is not even equal to itself
    monkeypatch.setattr("twofile.evaluate.compress.fingerprint", lambda *_: next(fingerprints))
    assert "other bits" in call(capsys, "compress", story, "--check", status=1)[1]
    assert not made.exists()


def test_what_is_there_stays(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "compress", story, "-o", story.with_name("x.2f"))
    assert "--force" in call(capsys, "compress", story, "-o", story.with_name("x.2f"), status=1)[1]
    assert "--force" in call(capsys, "decompress", story.with_name("x.2f"), "-o", story, status=1)[1]
    call(capsys, "decompress", story.with_name("x.2f"), "-o", story, "--force")
    assert story.read_text() == STORY


def test_the_model_is_found_by_its_checksum(story: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from twofile.params.names import resolve

    (own_home / "models").mkdir(parents=True)
    other = own_home / "models" / "mine.gguf"
    raw = bytearray(resolve("stories").read_bytes())
    raw[-1] ^= 1  # the last weight is another
    other.write_bytes(raw)
    made, back = story.with_name("x.2f"), story.with_name("back")
    call(capsys, "compress", story, "--model", other, "-o", made)
    other.rename(other.with_name("renamed.gguf"))
    call(capsys, "decompress", made, "-o", back)
    assert back.read_text() == STORY
    back.unlink()
    _, err = call(capsys, "decompress", made, "--model", "stories", "-o", back, status=1)
    assert "whose sha256 is" in err
    assert "hint: --model" in err
    other.with_name("renamed.gguf").unlink()
    assert "none is given" in call(capsys, "decompress", made, "-o", back, status=1)[1]
    assert not back.exists()


def test_refusals(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say with -o" in call(capsys, "decompress", story, status=2)[1]
    assert "no file that twofile compressed" in call(capsys, "decompress", story, "-o", "x", status=1)[1]
    made = story.with_name("story.txt.2f")
    call(capsys, "compress", story)
    made.write_bytes(made.read_bytes()[:-1])
    assert "is damaged" in call(capsys, "decompress", made, "--force", status=1)[1]
    assert story.read_text() == STORY


def test_a_file_that_no_model_makes_shorter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, path = os.urandom(2000), tmp_path / "random.bin"
    path.write_bytes(data)
    _, err = call(capsys, "compress", path)
    assert "2.0 kB of 2.0 kB are kept without the model" in err
    path.unlink()
    call(capsys, "decompress", path.with_name("random.bin.2f"))
    assert path.read_bytes() == data


def test_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_bytes(b"")
    call(capsys, "compress", tmp_path / "empty")
    call(capsys, "decompress", tmp_path / "empty.2f", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_peers_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    monkeypatch.setitem(__import__("sys").modules, "brotli", None)
    found = peers(b"x" * 100)
    assert found == {"xz -9": found["xz -9"], "zstd -19": None, "brotli -q 11": None}
    assert found["xz -9"]
