"""One prompt, one completion, with a scripted engine."""

from __future__ import annotations

import io

import pytest

from tests.cli.fake import ASSISTANT, END, USER, Engine
from tests.cli.test_chat import TEMPLATE
from twofile.cli import main as cli


def run(engine: Engine, monkeypatch: pytest.MonkeyPatch, *args: str, stdin: str = "", status: int = 0) -> None:
    monkeypatch.setattr("twofile.cli.run.open_engine", lambda *_: engine)
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    with pytest.raises(SystemExit) as exit:
        cli.main(["run", "fake", *args])
    assert exit.value.code == status


@pytest.mark.parametrize("args", [("Once",), ("-p", "Once"), ("--prompt", "Once")])
def test_prompt(args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine([" upon"])
    run(engine, monkeypatch, *args)
    captured = capsys.readouterr()
    assert captured.out == " upon\n"
    assert captured.err.startswith("[6 tokens")
    assert engine.read[0] == list(b"Once")


def test_prompt_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(["x"])
    run(engine, monkeypatch, stdin="two\nlines\n")
    assert engine.read[0] == list(b"two\nlines\n")


def test_a_chat_model_answers_unless_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(["x", "y"], template=TEMPLATE)
    run(engine, monkeypatch, "hi")
    assert engine.read[0] == [USER, *b"hi", END, ASSISTANT]
    engine.read.clear()
    run(engine, monkeypatch, "hi", "--raw")
    assert engine.read[0] == list(b"hi")


def test_tokens_and_stop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(Engine(["abcdef"]), monkeypatch, "x", "-n", "3")
    run(Engine(["abcdef"]), monkeypatch, "x", "--stop", "zz", "--stop", "de")
    assert capsys.readouterr().out == "abc\nabc\n"


def test_logprobs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(Engine(["a"]), monkeypatch, "x", "--logprobs", "1")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["0.0000", "'a'", "0.0000", "'a'"], ["0.0000", "''", "0.0000", "''"]]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("a", "-p", "b"), "once"),
        (("",), "empty"),
        (("a", "--system", "s"), "chat template"),
        (("a", "-n", "0"), "tokens"),
    ],
)
def test_wrong_calls(
    args: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Engine(["x"]), monkeypatch, *args, status=2)
    assert words in capsys.readouterr().err


def test_a_prompt_longer_than_the_context(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(Engine(["x"]), monkeypatch, "y" * 201, status=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "201 tokens" in captured.err
    assert "200" in captured.err
