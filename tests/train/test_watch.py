"""Watching: what is logged, what follows from it, the view, trackers, the machine's peak."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console

from twofile.errors import TrainError
from twofile.html.figures import span
from twofile.train.history import read
from twofile.train.loop import Plan
from twofile.train.machine import machine, memory
from twofile.train.peak import matrix_peak
from twofile.train.track import Tracker, check
from twofile.train.watch import Watch


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def watch(run: Path, clock: Clock, **more: Any) -> Watch:
    return Watch(run, "test", plan=Plan(steps=100), clock=clock, **more)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_speed_and_share_are_of_the_step_alone(tmp_path: Path) -> None:
    clock = Clock()
    with watch(tmp_path, clock, peak=4e6, flops_per_step=4e6) as watching:
        watching.step({"step": 1, "loss": 2.0, "tokens": 4000}, 0.01)
        clock.now += 2
        watching.step({"step": 2, "loss": 2.0, "tokens": 8000}, 0.02)
        clock.now += 1
        with watching.pause():
            clock.now += 50
        clock.now += 1
        watching.step({"step": 3, "loss": float("nan"), "tokens": 12000}, 0.03)
    begun, *steps = lines(tmp_path)
    assert (begun["event"], begun["peak"], begun["processes"]) == ("machine", 4e6, 1)
    assert "speed" not in steps[0]  # nobody knows when it began
    assert [(line["speed"], line["share"]) for line in steps[1:]] == [(2000.0, 0.5), (2000.0, 0.5)]
    assert steps[2]["loss"] is None
    assert steps[0]["memory"] > 1e6


def test_what_the_loop_says_itself_counts(tmp_path: Path) -> None:
    clock = Clock()
    with watch(tmp_path, clock) as watching:
        for step in (1, 2):
            clock.now += 1
            watching.step({"step": step, "loss": 2.0, "tokens": 10 * step, "speed": 77.0}, 0.5)
    assert lines(tmp_path)[-1]["speed"] == 77.0


def test_time_left_follows_the_last_minute(tmp_path: Path) -> None:
    clock = Clock()
    with watch(tmp_path, clock) as watching:
        for step in range(1, 41):
            clock.now += 10 if step <= 20 else 2  # it was slow, and is not any more
            watching.step({"step": step, "loss": 2.0, "tokens": 100 * step}, step / 100)
        assert 120 <= watching._now.left < 200  # of the whole run it would be 360
        clock.now += 100
        for step in range(41, 81):
            clock.now += 2
            watching.step({"step": step, "loss": 2.0, "tokens": 100 * step}, step / 100)
        assert watching._now.left == pytest.approx(40)
        assert watching._now.speed == pytest.approx(50)


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 3.0, "tokens": 10, "seconds": 1}\n{"step": 2, "lo')
    with watch(tmp_path, Clock()) as watching:
        watching.event("resumed", step=1)
        watching.step({"step": 2, "loss": 2.0, "tokens": 20, "seconds": 2.0}, 0.02)
    history = read(tmp_path)
    assert (history.unreadable, history.end.step) == (1, 2)
    assert [mark.step for mark in history.resumed] == [1]


def test_only_the_first_process_writes_and_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with watch(tmp_path, Clock(), first=False) as watching:
        watching.step({"step": 1, "loss": 2.0, "tokens": 1}, 0.5)
        watching.event("dream", text="x")
        watching.say("x")
    assert not (tmp_path / "log.jsonl").exists()
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_line_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with watch(tmp_path, clock) as watching:
        for step in range(1, 101):
            clock.now += 1
            bits = {"bpb": 1.5, "bpb_tales": 1.25} if step == 50 else {}
            watching.step({"step": step, "loss": 2.0, "tokens": 300 * step} | bits, step / 100)
    said = capsys.readouterr().err.splitlines()
    assert 5 <= len(said) <= 7
    (validated,) = [line for line in said if "bits per byte" in line]
    for words in (
        "50.0%",
        "step 50",
        "loss 2.0000",
        "bits per byte 1.5000",
        "tales 1.2500",
        "300 tokens/s",
        "50 s left",
    ):
        assert words in validated


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(TrainError, match="cannot write"), watch(tmp_path, Clock()):
        pass


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_view_shows_a_run(tmp_path: Path, width: int) -> None:
    clock = Clock()
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, height=40, color_system=None)
    with watch(tmp_path, clock, peak=1e9, flops_per_step=6e8, console=console) as watching:
        for step in range(1, 31):
            clock.now += 1
            bits = {"bpb": 2 - step / 100, "bpb_tales": 1.25} if step % 10 == 0 else {}
            watching.step({"step": step, "loss": 5 - step / 10, "tokens": 600 * step, "rate": 0.5} | bits, step / 100)
        watching.event("dream", step=30, text="An owl\x1b[2J sat\nin a tree.")
        watching.event("warning", text="something to say")
    text = " ".join(screen.getvalue().replace("│", " ").split())
    for words in ("step 30 of 100", "loss 2.0000", "600 tokens/s", "60%", "1.7000", "-0.1000", "a dream at step 30"):
        assert words in text, words
    assert "something to say" in text
    assert "\x1b[2J" not in text  # a model does not command the terminal
    assert "\\x1b[2J sat" in text


def test_the_view_costs_little(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Watch(tmp_path, "test", plan=Plan(steps=3000), console=console) as watching:
        start = time.process_time()
        for step in range(1, 3001):
            watching.step({"step": step, "loss": 2.0, "tokens": step}, step / 3000)
        assert time.process_time() - start < 1.5  # half a millisecond a step, with a wide margin for a busy machine


def test_times_for_people() -> None:
    assert [span(s) for s in (0, 59.4, 60, 750, 3000, 11100, 187200)] == [
        "0 s",
        "59 s",
        "1 min",
        "12 min 30 s",
        "50 min",
        "3 h 05 min",
        "2 d 4 h",
    ]


def test_memory_is_what_is_resident() -> None:
    before = memory()
    block = bytearray(b"x") * 80_000_000
    assert 70e6 < memory() - before < 200e6
    assert block
    assert machine()["memory"] > before
    assert machine()["torch"] == torch.__version__


def test_the_peak_is_at_least_what_a_product_reaches() -> None:
    x, w = torch.randn(512, 512), torch.randn(512, 512)
    peak = matrix_peak(torch.float32, seconds=0.5)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        torch.matmul(x, w)
        times.append(time.perf_counter() - start)
    assert 2 * 512**3 / min(times) < 2 * peak  # twice: other work on the machine may have stopped meanwhile
    assert peak > 1e8


class Fake(ModuleType):
    """A tracker's package, as far as it is used: the parameters are those of the real ones."""

    def __init__(self, name: str, fail_at: int | None = None) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.fail_at = fail_at

    def init(self, project, name, config, resume, **more):  # type: ignore[no-untyped-def]
        self.calls.append(("init", {"project": project, "name": name, "config": config, "resume": resume} | more))

    def define_metric(self, name: str, step_metric: str) -> None:
        self.calls.append(("define_metric", (name, step_metric)))

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        if self.fail_at is not None and step == self.fail_at:
            raise ConnectionError("the line is dead")
        self.calls.append(("log", (data, step)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


def test_wandb_is_given_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake("wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "owls")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = tmp_path / "night"
    run.mkdir()
    (run / "recipe.json").write_text('{"seed": 7}')
    with Watch(run, "test", plan=Plan(steps=2, track="wandb")) as watching:
        for step in (1, 2):
            watching.step({"step": step, "loss": 2.0, "tokens": step}, step / 2)
    (_, begun), (_, axis), (_, first), (_, second), (last, _) = fake.calls
    assert (begun["project"], begun["name"], begun["config"]) == ("owls", "night", {"seed": 7})
    assert (begun["id"], begun["resume"], begun["dir"]) == ("owls-night", "allow", str(run))
    assert axis == ("*", "step")
    assert (first[0]["step"], first[0]["loss"], first[1]) == (1, 2.0, None)
    assert second[0]["step"] == 2
    assert last == "finish"


def test_a_tracker_that_fails_is_said_once_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake("trackio", fail_at=2)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    said: list[str] = []
    tracker = Tracker("trackio", tmp_path, {}, said.append)
    for step in (1, 2, 3):
        tracker.log({"loss": 1.0}, step)
    tracker.close()
    assert [call for call in fake.calls if call[0] == "log"] == [("log", ({"loss": 1.0}, 1))]
    (words,) = said
    assert "the line is dead" in words
    assert "log.jsonl has everything" in words


def test_a_tracker_that_cannot_begin_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake("wandb")
    fake.init = lambda **_: (_ for _ in ()).throw(RuntimeError("not logged in"))  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(TrainError, match="wandb cannot begin: not logged in"):
        Tracker("wandb", tmp_path, {}, print)


def test_a_tracker_that_is_absent_or_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainError, match="needs the package wandb") as caught:
        check("wandb")
    assert caught.value.hint == "pip install wandb"
    with pytest.raises(TrainError, match="no tracker 'tensorbord'"):
        check("tensorbord")


def test_tracking_that_the_environment_switches_off_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Fake("wandb"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    said: list[str] = []
    Tracker("wandb", tmp_path, {}, said.append)
    assert said == ["--track wandb is ignored: WANDB_MODE=disabled is set"]


def test_the_watch_brings_no_torch() -> None:
    alone = "import sys, twofile.train.watch, twofile.train.report.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", alone], check=True, cwd=Path(__file__).resolve().parents[2])
