"""What text to allow, and how to guess it: the options of run and chat, with a real file on the NumPy reference."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from tests.tiny import tiny_spm_parameters
from twofile.cli import main as cli

NUMPY = ("--backend", "numpy")


def call(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as exit:
        cli.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    assert exit.value.code == status, captured.err
    return captured.out, captured.err


def test_forms(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "lines.lark"
    schema.write_text(json.dumps({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}))
    grammar.write_text('start: "time "{1,3} "é"', "utf-8")
    for seed in ("1", "2"):
        out, err = call(capsys, "run", tiny, "a", "--json-schema", schema, "--seed", seed, *NUMPY)
        assert [type(item) for item in json.loads(out)] == [bool, bool]
        assert "tokens" in err
        out, _ = call(capsys, "run", tiny, "a", "--regex", "[a-c]{3}", "--seed", seed, *NUMPY)
        assert re.fullmatch("[a-c]{3}\n", out)
        out, _ = call(capsys, "run", tiny, "a", "--grammar", grammar, "--seed", seed, *NUMPY)
        assert re.fullmatch("(time ){1,3}é\n", out)


def test_wrong_forms(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, binary = tmp_path / "a.json", tmp_path / "b.json"
    broken.write_text("{")
    binary.write_bytes(b"\xff")
    for args, words in (
        (("--regex", "a", "--grammar", broken), "exclude one another"),
        (("--regex", "[a"), "unclosed character class"),
        (("--json-schema", broken), "is not JSON"),
        (("--json-schema", binary), "cannot be read"),
        (("--json-schema", tmp_path / "none.json"), "does not exist"),
        (("--grammar", tmp_path), "is a directory"),
    ):
        out, err = call(capsys, "run", tiny, "a", *args, *NUMPY, status=2)
        assert out == ""
        assert words in err


def test_drafts_change_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*args: str | Path) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("once once once\n"))
        return call(capsys, args[0], tiny, "-n", "20", "--seed", "4", *args[1:], *NUMPY)[0]

    for command in ("run", "chat"):
        plain = said(command)
        assert said(command, "--draft", "lookup") == plain
        assert said(command, "--draft", tiny) == plain


def test_a_draft_model_of_another_family(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tiny_spm_parameters("F32", 1, tmp_path / "other.gguf")
    _, err = call(capsys, "run", tiny, "a", "--draft", other, *NUMPY, status=1)
    assert "other.gguf cannot draft for tiny.gguf" in err
    assert "hint:" in err
    assert "no-such-model" in call(capsys, "run", tiny, "a", "--draft", "no-such-model", *NUMPY, status=1)[1]
