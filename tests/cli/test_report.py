"""`twofile report`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from twofile.cli import main as cli


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as exit:
        cli.main(list(args))
    assert isinstance(exit.value.code, int)
    return exit.value.code


def run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = [{"step": i, "loss": 5 / i, "tokens": 10 * i, "seconds": i} for i in range(1, 9)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_page_beside_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "night")
    assert call("report", str(folder)) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert "<h1>night</h1>" in (folder / "report.html").read_text()
    assert call("report", str(folder)) == 0  # again, as the run goes on


def test_several_runs_and_a_place_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    assert call("report", str(one), str(two), "--out", str(tmp_path / "both.html")) == 0
    assert "<h1>one, two</h1>" in (tmp_path / "both.html").read_text()
    assert call("report", str(one), str(two)) == 0
    assert (one / "report-with-two.html").is_file()
    capsys.readouterr()
    assert call("report", str(one), "--out", str(one / "log.jsonl")) == 2  # no log is written over
    assert "ends in .html" in capsys.readouterr().err


def test_a_ladder_brings_its_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / "ladder" / name)
    (tmp_path / "ladder" / "ladder.json").write_text('{"points": [{"params": 1, "tokens": 1, "loss": 3}]}')
    assert call("report", str(tmp_path / "ladder")) == 0
    page = (tmp_path / "ladder" / "report.html").read_text()
    assert "prediction and outcome" in page
    assert 'data-name="b"' in page


def test_a_run_by_its_name_and_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWOFILE_HOME", str(tmp_path))
    run(tmp_path / "runs" / "owls")
    assert call("report", "owls") == 0
    assert (tmp_path / "runs" / "owls" / "report.html").is_file()
    capsys.readouterr()
    assert call("report", "owl") == 1
    assert capsys.readouterr().err == "error: there is no run 'owl'\nhint: runs here: owls\n"


def test_it_needs_no_torch(tmp_path: Path) -> None:
    folder = run(tmp_path / "night")
    code = f"""
import sys
from twofile.cli.main import main
try:
    main(['report', {str(folder)!r}])
except SystemExit as exit:
    assert exit.code == 0
print([name for name in ('numpy', 'rich', 'torch') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
