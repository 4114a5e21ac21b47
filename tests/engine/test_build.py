"""Compiling the program: cached, atomic, and never a crash where it cannot be done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twofile.engine.build import build, library_path

SOURCE = "int answer(void) { return 42; }\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWOFILE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "run.c"
    path.write_text(SOURCE)
    return path


def test_compiles_once(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = build(source=source)
    assert first.path is not None
    assert first.path.is_file()
    assert (first.reason, first.cached) == ("", False)
    assert capfd.readouterr().err == "twofile: compiling the program (once) ...\n"
    second = build(source=source)
    assert (second.path, second.cached, second.seconds) == (first.path, True, 0.0)
    assert capfd.readouterr().err == ""


def test_what_it_depends_on_makes_another(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {build(source=source).path, build("-O1", source=source).path}
    monkeypatch.setenv("TWOFILE_CFLAGS", "-DOTHER='a b'")
    paths.add(build(source=source).path)
    source.write_text(SOURCE + "int other;\n")
    paths.add(build(source=source).path)
    assert len(paths) == 4
    assert None not in paths


def test_builders_at_the_same_time(source: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: build(source=source), range(4)))
    assert len({b.path for b in built}) == 1
    assert built[0].path is not None
    assert [p.name for p in built[0].path.parent.iterdir()] == [built[0].path.name]  # no temporary files are left


def test_killed_while_compiling_leaves_no_library(source: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow-cc"
    slow.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\nsleep 60\n')
    slow.chmod(0o755)
    code = f"from pathlib import Path; from twofile.engine.build import build; build(source=Path({str(source)!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={"TWOFILE_CC": str(slow), "TWOFILE_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE, cwd=Path(__file__).parents[2], start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        process.stderr.readline()
        os.killpg(process.pid, signal.SIGKILL)
    assert not list((tmp_path / "cache").glob("*.so"))
    built = build(source=source)
    assert built.path is not None


def test_a_compiler_that_fails(source: Path) -> None:
    source.write_text("this is not C;\n")
    built = build(source=source)
    assert built.path is None
    assert "failed" in built.reason
    assert "error" in built.reason


def test_no_compiler(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFILE_CC", "no-such-compiler -x")
    built = build(source=source)
    assert built.path is None
    assert built.reason == "no C compiler was found (looked for no-such-compiler -x)"
    assert library_path() is None


def test_an_unknown_march_is_left_out(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picky = tmp_path / "picky-cc"
    picky.write_text('#!/bin/sh\ncase "$*" in *-march=*) echo "error: unknown" >&2; exit 1;; esac\nexec cc "$@"\n')
    picky.chmod(0o755)
    monkeypatch.setenv("TWOFILE_CC", str(picky))
    built = build(source=source)
    assert built.path is not None
    assert "-march=native" not in built.flags
    assert build(source=source).path == built.path


def test_a_folder_of_others_is_not_trusted(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache").chmod(0o777)
    built = build(source=source)
    assert built.path is None
    assert "written by other users" in built.reason


def test_a_folder_that_cannot_be_made(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFILE_CACHE", str(source / "below-a-file"))
    built = build(source=source)
    assert built.path is None
    assert built.reason
