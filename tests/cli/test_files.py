"""The commands about files, with a real file: show, quantise, export, import; run and chat on the NumPy reference."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from twofile.cli import main as cli


def call(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as exit:
        cli.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    assert exit.value.code == status, captured.err
    return captured.out, captured.err


def test_show(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "show", tiny)
    for words in (
        "qwen3",
        "2 of width 64",
        "64 tokens",
        "byte-level BPE",
        "<|im_end|>",
        "made up",
        "CC0-1.0",
        "abc123",
    ):
        assert words in out
    assert "\x1b" not in out
    assert "tiny\\x1b[31m" in out
    out, _ = call(capsys, "show", tiny, "--tensors", "--no-checksum")
    assert "token_embd.weight" in out
    assert "sha256" not in out
    assert call(capsys, "show", tiny, "--template") == ("\n", "")


def test_show_refuses_what_is_no_parameters_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(20))
    _, err = call(capsys, "show", tmp_path / "x.gguf", status=1)
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_quantise(tiny: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = call(capsys, "quantise", tiny, "q8_0")
    path = own_home / "models" / "tiny-Q8_0.gguf"
    assert out.strip() == str(path)
    assert "became" in err
    assert "Q8_0" in call(capsys, "show", "tiny-Q8_0")[0]
    before = path.read_bytes()
    _, err = call(capsys, "quantise", tiny, "Q4_0", "--out", "tiny-Q8_0", status=1)
    assert "--force" in err
    assert path.read_bytes() == before
    call(capsys, "quantise", tiny, "Q4_0", "--out", "tiny-Q8_0", "--force")
    assert path.read_bytes() != before


def test_warnings_are_words(tiny: Path, tmp_path: Path) -> None:
    small, smaller = tmp_path / "a.gguf", tmp_path / "b.gguf"
    for source, target, kind in ((tiny, small, "Q8_0"), (small, smaller, "Q4_0")):
        command = [sys.executable, "-m", "twofile", "quantise", str(source), kind, "--out", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("warning: ")
    assert "UserWarning" not in done.stderr


def test_export_and_import(tiny: Path, tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "export", tiny, tmp_path / "hf")
    assert (tmp_path / "hf" / "config.json").is_file()
    _, err = call(capsys, "export", tiny, tmp_path / "hf", status=1)
    assert "--force" in err
    out, _ = call(capsys, "import", tmp_path / "hf", "again")
    assert out.strip() == str(own_home / "models" / "again.gguf")
    assert "qwen3" in call(capsys, "show", "again")[0]


def test_import_llama2c(shared_data: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_data / "models" / "stories260K"
    call(capsys, "import", folder / "stories260K.bin", "small")
    assert "llama" in call(capsys, "show", "small")[0]
    assert (own_home / "models" / "small.gguf").is_file()


def test_import_needs_a_source_and_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in call(capsys, "import", tmp_path / "no", "x", status=1)[1]
    (tmp_path / "model.bin").write_bytes(bytes(100))
    assert "--tokenizer" in call(capsys, "import", tmp_path / "model.bin", "x", status=1)[1]


def test_run_and_chat_with_a_real_file(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = call(capsys, "run", tiny, "a", "-n", "5", "--seed", "1", "--backend", "numpy")
    assert call(capsys, "run", tiny, "a", "-n", "5", "--seed", "1", "--backend", "numpy")[0] == out
    assert "2 read" in err
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n"))
    again, err = call(capsys, "chat", tiny, "-n", "5", "--seed", "1", "--backend", "numpy")
    assert again == out
    assert "base model" in err


def test_a_prompt_longer_than_the_context_is_an_error(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = call(capsys, "run", tiny, "a" * 64, "--backend", "numpy", status=1)
    assert out == ""
    assert "65 tokens" in err
    assert "64 tokens" in err
