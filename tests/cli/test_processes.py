"""Processes on the command line: talked with, left, gone on with, looked at, branched, killed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.cli.test_main import call
from tests.tiny import tiny_parameters


def test_from_beginning_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_parameters("qwen3", "F32", 1, tmp_path / "tiny.gguf", context_length=1024)
    log = ["--log", str(tmp_path / "kernel.db")]

    def told(*args: str) -> str:
        assert call(*args, *log) == 0
        return capsys.readouterr().out

    assert call("ps", *log) == 1
    assert "no processes yet" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("once upon\nthe girl\n"))
    assert call("chat", str(model), "--system", "Be kind.", "--seed", "1", *log) == 0
    out, err = capsys.readouterr()
    assert "process 1" in err
    assert out
    listed = told("ps").splitlines()
    assert listed[1].split()[:3] == ["1", "tiny", "waiting"]
    shown = told("context", "1")
    assert "Be kind." in shown
    assert "the girl" in shown
    assert "system" in shown
    pages = told("maps", "1")
    assert {"in", "user"} <= set(pages.split())
    monkeypatch.setattr("sys.stdin", io.StringIO("more\n"))
    assert call("chat", "--process", "1", "--seed", "2", *log) == 0
    capsys.readouterr()
    events = [json.loads(line) for line in told("replay", "1", "--json").splitlines()]
    said = [event["kind"] for event in events if event["kind"] not in ("memory", "paged")]
    assert said == ["begin", *["user", "assistant"] * 3]
    assert "user: once upon" in told("replay", "1")
    assert told("fork", "1", "--upto", str(events[2]["seq"])).strip() == "2"
    forked = [json.loads(line)["kind"] for line in told("replay", "2", "--json").splitlines()]
    assert forked == ["begin", "user", "assistant", "fork"]
    assert told("kill", "1") == "process 1 is killed\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("more\n"))
    assert call("chat", "--process", "1", *log) == 1
    assert "process 1 is over: killed" in capsys.readouterr().err
    assert "killed" in told("top", "--once")
    assert told("strace", "1") == ""
    assert call("context", "9", *log) == 1
    assert "no process 9" in capsys.readouterr().err
    assert call("chat", "--process", "9", *log) == 1
    assert call("chat", "--process", "1", "--log", str(tmp_path / "none.db")) == 1
    assert "begins one" in capsys.readouterr().err
