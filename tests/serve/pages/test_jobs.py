"""Jobs: they outlive who began them, stop like Ctrl-C, and never leave their folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from twofile.errors import TwofileError
from twofile.serve.pages import jobs as module
from twofile.serve.pages.jobs import Job, Jobs

_STUB = """
import time
what, *rest = sys.argv[1:]
print("begun", what, flush=True)
try:
    if what == "wait":
        time.sleep(float(rest[0]))
    elif what == "fail":
        print("error: it is no good\\nhint: another", file=sys.stderr)
        sys.exit(1)
except KeyboardInterrupt:
    print("saved", flush=True)
    sys.exit(0 if rest[1:] == ["well"] else 130)
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Jobs whose command does as it is told, at once."""
    monkeypatch.setattr(module, "_RUN", _STUB)
    made = Jobs(tmp_path / "jobs")
    yield made
    for job in made.all():
        job.kill()
        assert job.wait(10)


def _printed(job: Job, words: str, name: str = "out") -> None:
    until = time.monotonic() + 20
    while words not in job.printed(name):  # type: ignore[arg-type]
        assert time.monotonic() < until, job.printed("err")
        time.sleep(0.02)


def test_a_job_runs_to_its_end_and_is_found_again(jobs: Jobs) -> None:
    job = jobs.begin("train", "tiny", ["wait", "0.2"], {"texts": ["a"]})
    assert job.state == "running"
    assert job.ended is None
    assert job.wait(20)
    found = Jobs(jobs.folder).get("train", "tiny")
    assert found is not None
    assert (found.state, found.argv, found.about, found.problem) == ("done", ("wait", "0.2"), {"texts": ["a"]}, "")
    assert found.ended is not None
    assert found.ended >= found.begun - 1
    assert found.command == "twofile wait 0.2"


def test_a_job_that_fails_says_why(jobs: Jobs) -> None:
    job = jobs.begin("train", "tiny", ["fail"])
    assert job.wait(20)
    assert job.state == "failed"
    assert job.problem == "it is no good hint: another"


def test_a_command_of_twofile_is_what_is_run(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs")
    job = jobs.begin("train", "none", ["train", str(tmp_path / "nowhere.txt"), "--out", "none"])
    assert job.wait(60)
    assert job.state == "failed"
    assert "nowhere.txt" in job.problem


def test_a_job_survives_that_its_parent_is_killed(jobs: Jobs) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from twofile.serve.pages import jobs
        jobs._RUN = {_STUB!r}
        jobs.Jobs(Path({str(jobs.folder)!r})).begin("train", "tiny", ["wait", "1"])
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    job = jobs.get("train", "tiny")
    assert job is not None
    assert job.state == "running"
    assert job.wait(20)
    assert job.state == "done"


@pytest.mark.parametrize("how", ["well", "badly"])
def test_stopping_is_an_interrupt(jobs: Jobs, how: str) -> None:
    job = jobs.begin("train", "tiny", ["wait", "60", how])
    _printed(job, "begun")
    job.stop()
    assert job.wait(20)
    assert job.state == "stopped"
    assert "saved" in job.printed("out")


def test_a_job_is_stopped_where_the_server_ignores_interrupts(jobs: Jobs) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a server that a script put into the background
    try:
        job = jobs.begin("train", "tiny", ["wait", "60", "well"])
        _printed(job, "begun")
        job.stop()
        assert job.wait(20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "saved" in job.printed("out")


def test_a_job_that_has_just_begun_can_be_stopped(jobs: Jobs) -> None:
    job = jobs.begin("train", "tiny", ["wait", "60"])
    job.stop()
    assert job.wait(20)
    assert job.state == "stopped"


def test_a_killed_job_is_stopped(jobs: Jobs) -> None:
    job = jobs.begin("train", "tiny", ["wait", "60"])
    _printed(job, "begun")
    os.killpg(int((job.folder / "pid").read_text()), signal.SIGKILL)  # as a power cut
    assert job.wait(20)
    assert not (job.folder / "status").exists()
    assert job.state == "stopped"


def test_a_number_that_another_process_has_is_left_alone(jobs: Jobs) -> None:
    job = jobs.begin("train", "tiny", ["wait", "0"])
    assert job.wait(20)
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (job.folder / "pid").write_text(str(other.pid))
        job.stop()
        job.kill()
        assert other.poll() is None
        assert job.state == "done"
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("half", ["", "{", "[]", "null", '{"kind": "train"}', "\xff\x00"])
def test_half_a_job_is_none(jobs: Jobs, half: str) -> None:
    whole = jobs.begin("train", "whole", ["wait", "0"])
    (jobs.folder / "train-half").mkdir()
    (jobs.folder / "train-half" / "job.json").write_bytes(half.encode("latin-1"))
    (jobs.folder / "train-none").mkdir()
    assert [job.name for job in jobs.all()] == ["whole"]
    assert jobs.begin("train", "half", ["wait", "0"]).wait(20)
    assert whole.wait(20)
    assert [job.name for job in jobs.all()] == ["half", "whole"]


@pytest.mark.parametrize("field", ["kind", "name", "argv", "begun", "about"])
def test_a_job_with_a_strange_field_is_none_or_read(jobs: Jobs, field: str) -> None:
    table = {"kind": "train", "name": "odd", "argv": ["wait"], "begun": 1.0, "about": {}} | {field: {"odd": 1}}
    (jobs.folder / "train-odd").mkdir(parents=True)
    (jobs.folder / "train-odd" / "job.json").write_text(json.dumps(table))
    for job in jobs.all():
        assert job.state == "stopped"
        assert job.folder == jobs.folder / "train-odd"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", ".hidden", "a\0b", "a\n", "x" * 101, "ä" * 101, "語" * 80]
)
def test_a_name_cannot_leave_the_folder(jobs: Jobs, name: str) -> None:
    with pytest.raises(TwofileError, match="cannot be a name"):
        jobs.begin("train", name, ["wait", "0"])
    assert jobs.all() == []


def test_of_two_that_begin_the_same_one_does(jobs: Jobs) -> None:
    begun: list[Job] = []
    refused: list[str] = []
    ready = threading.Barrier(4)

    def begin(folder: Path) -> None:
        ready.wait()
        try:
            begun.append(Jobs(folder).begin("train", "tiny", ["wait", "60"]))
        except TwofileError as error:
            refused.append(error.message)

    threads = [threading.Thread(target=begin, args=(jobs.folder,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1
    assert refused == ["tiny is being made"] * 3
    with pytest.raises(TwofileError, match="is being made"):
        jobs.forget(begun[0])


def test_who_asks_at_once_does_not_see_one_another(jobs: Jobs) -> None:
    job = jobs.begin("train", "tiny", ["wait", "0"])
    assert job.wait(20)
    seen: list[bool] = []

    def ask() -> None:
        seen.extend(job.running for _ in range(300))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(seen)


def test_a_job_is_begun_again_in_its_place_and_forgotten(jobs: Jobs) -> None:
    assert jobs.begin("train", "tiny", ["fail"]).wait(20)
    again = jobs.begin("train", "tiny", ["wait", "0"])
    assert again.wait(20)
    assert [job.state for job in jobs.all()] == ["done"]
    jobs.forget(again)
    assert jobs.all() == []
    assert not again.folder.exists()
