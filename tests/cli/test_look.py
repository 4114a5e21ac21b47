"""dream, next and surprise, with a real file on the NumPy reference; recall too."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import click
import pytest

from twofile.cli import main as cli
from twofile.cli.look import SCALE, coloured, legend
from twofile.evaluate.surprise import Surprise

NUMPY = ("--backend", "numpy")


def call(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as exit:
        cli.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    assert exit.value.code == status, captured.err
    return captured.out, captured.err


def test_next(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = call(capsys, "next", "Once upon", "--model", tiny, "-k", "300", *NUMPY)
    head, *rows = out.splitlines()
    assert head.split() == ["token", "probability", "bits"]
    found = [(float(p), float(bits)) for p, bits in re.findall(r"  (\d\.\d{4}) +(\d+\.\d\d)(?: +█+)?\n", out)]
    assert len(found) == len(rows) == 300
    assert [p for p, _ in found] == sorted((p for p, _ in found), reverse=True)
    assert all(abs(-math.log2(p) - bits) < 0.1 for p, bits in found if p > 0.001)
    assert out.count("█") == sum(round(30 * p) for p, _ in found)
    assert "[300 of" in err


def test_next_as_json_sums_to_one(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(call(capsys, "next", "Once", "--model", tiny, "-k", "9999", "--json", *NUMPY)[0])
    probabilities = [each["probability"] for each in found["next"]]
    assert sum(probabilities) == pytest.approx(1)
    assert found["entropy_bits"] == pytest.approx(-sum(p * math.log2(p) for p in probabilities))
    assert found["text"] == "Once"
    assert {"token", "text", "probability"} == set(found["next"][0])


def test_next_agrees_with_run(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = json.loads(call(capsys, "next", "the little", "--model", tiny, "-k", "1", "--json", *NUMPY)[0])["next"][0]
    out, _ = call(capsys, "run", tiny, "the little", "-n", "1", "-t", "0", "--logprobs", "0", *NUMPY)
    assert float(out.split()[0]) == pytest.approx(math.log(best["probability"]), abs=1e-4)


def test_next_of_nothing_and_from_stdin(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "read 1 tokens" in call(capsys, "next", "", "--model", tiny, *NUMPY)[1]
    monkeypatch.setattr("sys.stdin", io.StringIO("Once"))
    assert json.loads(call(capsys, "next", "--model", tiny, "--json", *NUMPY)[0])["text"] == "Once"


def test_dream(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("dream", tiny, "-n", "12", *NUMPY)
    out, err = call(capsys, *args, "-d", "2", "--seed", "7")
    assert out.count("<|endoftext|>\n") >= 2
    assert "[document 1, seed 7: " in err
    assert "[document 2, seed 8: " in err
    assert out.endswith(call(capsys, *args, "-d", "1", "--seed", "8")[0])
    assert "seed" in call(capsys, *args, "-d", "1")[1]


def test_dream_shows_how_a_document_ends(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = set()
    for seed in range(12):
        out, err = call(capsys, "dream", tiny, "-d", "1", "-t", "3", "--seed", str(seed), *NUMPY)
        ended = out.rstrip("\n").endswith(("<|endoftext|>", "<|im_end|>"))
        assert ended == ("cut off" not in err)
        ends.add(ended)
    assert True in ends


def test_surprise_line_by_line(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'Once upon a "time"\né'
    out, err = call(capsys, "surprise", text, "--model", tiny, *NUMPY)
    rows = [line.split("\t") for line in out.splitlines()]
    assert "".join(json.loads(shown) for _, shown in rows) == text
    bits = sum(float(bits) for bits, _ in rows)
    assert float(err.split()[-4]) == pytest.approx(bits / len(text.encode()), abs=0.01)
    (tmp_path / "text").write_text(text, "utf-8")
    assert call(capsys, "surprise", "--file", tmp_path / "text", "--model", tiny, *NUMPY)[0] == out
    found = json.loads(call(capsys, "surprise", text, "--model", tiny, "--json", *NUMPY)[0])
    assert found["bits"] == pytest.approx(bits, abs=0.01 * len(rows))
    assert found["bytes"] == len(text.encode())
    assert [each["text"] for each in found["surprises"]] == [json.loads(shown) for _, shown in rows]


def test_colours() -> None:
    shown = coloured([Surprise((1,), "known", 0.2), Surprise((2,), "a\x1b[0m\n", 4.0), Surprise((3,), "new", 99.0)])
    assert shown.startswith("known\x1b[")
    assert "48;5;229ma\\x1b[0m\x1b[0m" in shown
    assert "↵\x1b[0m\n" in shown
    assert shown.endswith("48;5;203mnew\x1b[0m")
    assert click.unstyle(coloured([Surprise((1,), "one\n\ntwo", 0.1)])) == "one\n\ntwo"
    assert click.unstyle(legend()).split("   ") == [" 0 to 1", "1 to 3", "3 to 6", "6 to 10", "10 and more "]
    assert [most for most, _ in SCALE] == sorted(most for most, _ in SCALE)


def test_wrong_calls(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("x")
    assert "once" in call(capsys, "surprise", "a", "--file", tmp_path / "x", status=2)[1]
    assert "do not fit" in call(capsys, "next", "y" * 200, "--model", tiny, *NUMPY, status=1)[1]


def test_recall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the model itself says is what it was trained on, as far as this can see."""
    greedy, _ = call(capsys, "run", "stories", "Once upon a time", "-n", "36", "-t", "0", *NUMPY)
    (tmp_path / "own.jsonl").write_text(json.dumps({"text": "Once upon a time" + greedy}), "utf-8")
    (tmp_path / "other.txt").write_text("The committee has adjourned; no quorum was present. " * 20, "utf-8")
    args = ("recall", "stories", "--train", tmp_path / "own.jsonl", "--held-out", tmp_path / "other.txt", *NUMPY)
    out, err = call(capsys, *args, "--prompt", "12", "--continue", "20")
    assert [line.split("  ")[0] for line in out.splitlines()[:4]] == ["text", "trained on", "held out", "difference"]
    assert "100.0% (20.7% to 100.0%)  20.0 of 20" in out
    own = "Once upon a time" + greedy
    assert own.startswith(out.split("\n\n")[1].replace(" | ", "", 1).rstrip("\n"))
    assert "the intervals are too narrow" in err
    found = json.loads(call(capsys, *args, "--prompt", "12", "--continue", "20", "--json")[0])
    assert (found["trained on"]["passages"], found["trained on"]["recalled"]) == (1, 1)
    assert found["trained on"]["tokens_right"] == [20]
    assert found["held out"]["documents"] == 1
    assert found["difference"][1] <= found["difference"][0] <= found["difference"][2]


def test_recall_of_texts_too_short(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("short")
    args = ("recall", tiny, "--train", tmp_path / "a.txt", "--held-out", tmp_path / "a.txt", *NUMPY)
    assert (
        "no document trained on has 60 tokens" in call(capsys, *args, "--prompt", "30", "--continue", "30", status=1)[1]
    )
    assert "64 tokens" in call(capsys, *args, status=2)[1]
