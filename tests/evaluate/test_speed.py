"""What the measuring promises: every figure, shares and ratios of the same round, JSON; the limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny import tiny_parameters
from twofile.errors import EngineError
from twofile.evaluate import limits
from twofile.evaluate.limits import KINDS, Limits, Machine
from twofile.evaluate.speed import Cell, Ours, Work, cells, measure, spread
from twofile.evaluate.start import Start, fresh
from twofile.params.parameters import Parameters


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_parameters("llama", "Q8_0", 1, tmp_path_factory.mktemp("speed") / "tiny.gguf", tied=True)


@pytest.fixture(scope="module")
def machine() -> Machine:
    try:
        return Machine(2)
    except EngineError as error:
        pytest.skip(error.message)


class Steady:
    """Takes a hundredth of a second for anything, and notes what it was asked."""

    name = "steady"

    def __init__(self) -> None:
        self.asked: list[Cell] = []

    def run(self, cell: Cell) -> float:
        self.asked.append(cell)
        return 0.01

    def start(self) -> Start | None:
        return None


def test_a_report_has_every_figure(path: Path, machine: Machine) -> None:
    report = measure(path, [Ours(path, 1), Steady()], machine, rounds=2, seconds=0.0, starts=1)
    assert [result.program.split()[0] for result in report.results] == ["twofile", "steady"]
    for result in report.results:
        assert [figure.cell for figure in result.figures] == list(cells(128))
        for figure in result.figures:
            assert len(figure.rates) == len(figure.shares) == 2
            assert min(figure.rates) > 0
            assert min(figure.shares) > 0
            assert figure.bound in ("read", "int8")
    assert len(report.limits) == 2 * len(cells(128))
    (start,) = report.results[0].starts
    assert 0 < start.load < start.first < 60
    assert report.results[1].starts == ()
    assert start.memory >= 0
    assert report.bytes == path.stat().st_size


def test_the_json_says_what_the_report_says(path: Path) -> None:
    report = measure(path, [Steady()], None, rounds=3, seconds=0.0)
    found = report.to_json()
    assert json.loads(json.dumps(found)) == found
    figure = found["results"][0]["figures"][0]
    assert figure["cell"] == {"name": "decode", "sessions": 1, "tokens": 1, "passes": 128}
    assert figure["rates"] == [12800.0] * 3
    assert figure["rate"] == {"median": 12800.0, "low": 12800.0, "high": 12800.0}
    assert (figure["shares"], figure["bound"]) == ([], "")


def test_rounds_are_interleaved_and_the_first_is_short(path: Path) -> None:
    steady = Steady()
    measure(path, [steady, steady], None, rounds=1, seconds=0.025)
    wanted = cells(128)
    warm, counted = steady.asked[: 2 * len(wanted)], steady.asked[2 * len(wanted) :]
    assert all(cell.passes <= 4 for cell in warm)
    assert counted == [cell for cell in wanted for _ in range(6)]  # three times each, until 0.025 s have passed


def test_cells_fit_the_context() -> None:
    for context in (8, 64, 128, 512, 2048):
        for cell in cells(context):
            assert cell.tokens * cell.passes <= context
            assert cell.ids(100).shape == (cell.passes, cell.sessions, cell.tokens)
            assert 0 <= cell.ids(100).min() <= cell.ids(100).max() < 100
    assert [cell.sessions for cell in cells(2048)] == [1, 1, 2, 4, 8, 16, 32]
    assert cells(2048)[1] == Cell("prefill 512", 1, 512, 1)


def test_work_counts_what_a_pass_reads(path: Path, tmp_path: Path) -> None:
    """Tied, the embedding is the output matrix and is read; untied, only rows of it are."""
    tied = Work.of(Parameters(path))
    untied = Work.of(Parameters(tiny_parameters("llama", "BF16", 1, tmp_path / "untied.gguf")))
    assert (tied.kind, untied.kind) == ("int8", "bf16")
    assert (tied.body, tied.output) == (untied.body, untied.output)
    assert tied.weights == (tied.body + tied.output) * 34 // 32
    assert untied.weights == (untied.body + untied.output) * 2


def test_the_nearer_limit_counts() -> None:
    work = Work(weights=1000, body=900, output=100, kind="bf16")
    fast = Limits(read=1e4, int8=1.0, bf16=1e6, f32=1e5)
    assert work.least(Cell("", 1, 1, 3), fast) == (pytest.approx(0.3), "read")
    assert work.least(Cell("", 1, 1000, 1), fast) == (pytest.approx(0.9001), "bf16")
    without = Limits(read=1e4, int8=1.0, bf16=0.0, f32=1e5)
    assert work.least(Cell("", 1, 1000, 1), without) == (pytest.approx(9.001), "f32")


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


def test_a_process_that_fails_says_why() -> None:
    import sys

    with pytest.raises(EngineError, match="nobody there"):
        fresh([sys.executable, "-c", "raise SystemExit('nobody there')"])


def test_limits_are_positive(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SECONDS", 0.01)
    found = machine.limits(100_000)
    assert found.read > 1e8
    assert found.f32 > 1e8
    for kind in KINDS:
        assert getattr(found, kind) > 1e8 or not machine.instructions(kind)
    assert machine.read(0) > 0  # every thread has something to read
    assert limits.processor()


def test_limits_that_cannot_be_measured_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFILE_CC", "no-such-compiler")
    with pytest.raises(EngineError, match="no-such-compiler") as error:
        Machine(1)
    assert "compiler" in error.value.hint
