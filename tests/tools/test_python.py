"""The driver of programs: what lasts, what is the process's own, what is said when it goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from twofile.errors import ToolError
from twofile.kernel.driver import Context, Drivers, Outcome, run_driver
from twofile.kernel.label import Label
from twofile.tools.python import Python
from twofile.tools.sandbox.interpreter import which


@pytest.fixture
def python() -> Iterator[Python]:
    try:
        which()
    except ToolError as error:
        pytest.skip(str(error))
    made = Python()
    Drivers([made])
    yield made
    made.close()


def ran(python: Python, code: str, process: int = 1, seconds: float = 20) -> Outcome:
    return run_driver(python, {"code": code}, Context(process, time.monotonic() + seconds))


def test_variables_last_and_are_the_process_s_own(python: Python) -> None:
    assert ran(python, "x = 6\nprint('set')\nx").text == "set\n6"
    assert ran(python, "x * 7").text == "42"
    other = ran(python, "x", process=2)
    assert other.error
    assert other.text.endswith("NameError: name 'x' is not defined")
    assert ran(python, "y = 1").text == "[it printed nothing]"


def test_a_program_that_takes_too_long_keeps_what_was(python: Python) -> None:
    ran(python, "x = 6")
    late = ran(python, "print('begun')\nimport time\ntime.sleep(60)", seconds=2)
    assert late.text == "begun\nerror: it was stopped: it took too long"
    assert late.error
    assert ran(python, "x").text == "6"


def test_one_that_is_ended_says_what_is_lost(python: Python) -> None:
    ran(python, "x = 6")
    left = ran(python, "import os\nos._exit(3)")
    assert left.error
    assert left.text.startswith("[what was defined before is gone]\nerror: it was ended: ")
    again = ran(python, "'x' in globals()")
    assert again.text == "False\n[the interpreter is a new one: what was defined before is gone]"
    assert ran(python, "1").text == "1"


def test_few_interpreters_are_kept(python: Python) -> None:
    for process in range(1, 7):
        ran(python, f"x = {process}", process)
    assert ran(python, "x", 6).text == "6"
    assert "NameError" in ran(python, "x", 1).text


def test_what_it_reads_is_asked_for_and_private(tmp_path: Path) -> None:
    python = Python(read=[tmp_path])
    assert list(python.needs({})) == ["py:exec", f"fs:read:{tmp_path.resolve()}"]
    assert python.label({}) == Label.of("tool:python") | Label.of(f"file:{tmp_path.resolve()}", ["user"])
    assert list(Python().needs({})) == ["py:exec"]
