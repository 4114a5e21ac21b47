"""`twofile bench` on a tiny file: the table, the JSON, a machine without a compiler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twofile.cli import main as cli
from twofile.cli.bench import describe
from twofile.evaluate.limits import Limits
from twofile.evaluate.speed import Cell, Figure, Report, Result, Work
from twofile.evaluate.start import Start


def test_bench(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", str(tiny), "--threads", "1", "--rounds", "1", "--seconds", "0", "--json", str(out)])
    captured = capsys.readouterr()
    assert exit.value.code == 0, captured.err
    for words in ("tiny: ", "decode", "prefill 64", "32 sessions", "load", "first token", "of the file"):
        assert words in captured.out
    found = json.loads(out.read_text())
    assert found["threads"] == 1
    assert "-DTF_LIBRARY" in found["flags"]
    (report,) = found["reports"]
    assert len(report["results"][0]["figures"]) == 7


def test_without_a_compiler_there_are_speeds_and_no_limits(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWOFILE_CC", "no-such-compiler")
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", str(tiny), "--rounds", "1", "--seconds", "0"])
    captured = capsys.readouterr()
    assert exit.value.code == 0, captured.err
    assert "twofile (numpy)" in captured.out
    assert "of the limit" not in captured.out
    assert "limits cannot be measured" in captured.err


def test_a_report_with_a_peer() -> None:
    def result(program: str, *rates: float, start: bool = True) -> Result:
        figure = Figure(Cell("decode", 1, 1, 128), rates, tuple(rate / 1000 for rate in rates), "read")
        return Result(program, (figure,), (Start(0.001, 0.0123, 3_000_000),) if start else ())

    report = Report(
        "model\x1b[31m", 15_200_000, 2_000_000, Work(1_900_000, 1, 1, "int8"), (Limits(1e9, 1e9, 0, 1e9),) * 3,
        (result("ours", 300, 100, 200), result("theirs", 100, 200, 50.5, start=False)),
    )  # fmt: skip
    lines = describe(report, None).splitlines()
    assert lines[0] == "model\\x1b[31m: 15.2M parameters, 2.0 MB, of which a pass reads 1.9 MB"
    assert lines[1].split() == ["tokens/s", "ours", "theirs", "ratio", "of", "the", "limit"]
    for words in ("200 (100 to 300)", "100 (50.5 to 200)", "3.00 (0.50 to 3.96)", "20% of read"):
        assert words in lines[2]
    assert "12.3 ms" in lines[4]
    assert "3.0 MB, 1.50 of the file" in lines[5]
