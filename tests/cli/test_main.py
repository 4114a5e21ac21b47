"""The command line itself: help, errors in words, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from twofile.cli import main as cli
from twofile.errors import EngineError, TwofileError


def twofile(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "twofile", *args], capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as exit:
        cli.main(list(args))
    assert isinstance(exit.value.code, int)
    return exit.value.code


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `twofile list` raise `error`."""

    @click.command("list")
    def command() -> None:
        raise error

    monkeypatch.setattr("twofile.cli.models.list_command", command)


def test_help_takes_less_than_200_ms_more_than_python() -> None:
    def best(*args: str) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("-m", "twofile", "--help") - best("-c", "") < 0.2


def test_bare_tour_names_what_is_here(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_home / "models").mkdir(parents=True)
    (own_home / "models" / "mine.gguf").write_bytes(b"x" * 1500)
    assert call() == 0
    out = capsys.readouterr().out
    assert "mine" in out
    assert "1.5 kB" in out
    assert "twofile chat" in out


def test_tour_without_any_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("twofile.params.names.bundled", dict)
    assert call() == 0
    assert "none yet" in capsys.readouterr().out


def test_list_and_its_words_when_there_is_none(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("twofile.params.names.bundled", dict)
    assert call("list") == 0
    assert "no model yet" in capsys.readouterr().err
    (own_home / "models/hf/ada/tiny").mkdir(parents=True)
    (own_home / "models/hf/ada/tiny/x.gguf").write_bytes(b"x")
    assert call("list") == 0
    assert capsys.readouterr().out == "hf:ada/tiny:x.gguf  1 B  pulled\n"


def test_unknown_command_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("chta") == 2
    assert "did you mean 'chat'?" in capsys.readouterr().err


def test_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", "nowhere") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: there is no parameters file 'nowhere'\nhint: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (TwofileError("it broke", "mend it"), 1, "error: it broke\nhint: mend it\n"),
        (EngineError("it broke"), 1, "error: it broke\n"),
        (MemoryError(), 1, "error: out of memory\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (KeyError("x"), 1, "error: KeyError: 'x'\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (click.UsageError("no"), 2, "Error: no\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_words(
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fails_with(error, monkeypatch)
    assert call("list") == status
    err = capsys.readouterr().err
    assert err.lstrip("\n").startswith(words) or err.endswith(words)
    assert "Traceback" not in err


@pytest.mark.parametrize("args", [("--debug", "list"), ("list", "--debug")])
def test_debug_shows_the_traceback(
    args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(TwofileError("it broke"), monkeypatch)
    assert call(*args) == 1
    err = capsys.readouterr().err
    assert "error: it broke" in err
    assert "Traceback" in err


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "twofile"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


def test_module_and_version() -> None:
    from twofile import __version__

    assert twofile("--version").stdout == f"twofile {__version__}\n"


def test_pull_checks_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("pull", "gpt2") == 1
    assert "hf:user/repo" in capsys.readouterr().err


def test_a_type_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("quantise", "x", "Q3") == 2
    assert "Q4_K_M" in capsys.readouterr().err


@pytest.mark.parametrize("args", [("--temperature", "-1"), ("--top-p", "0"), ("--min-p", "2"), ("--seed", "-3")])
def test_sampling_out_of_range_is_a_wrong_call(args: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "x", "y", *args) == 2
    assert args[0].removeprefix("--").replace("-", "_") in capsys.readouterr().err
