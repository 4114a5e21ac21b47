"""The C tests under the address, undefined-behaviour and thread sanitizers (tests/c/run.sh)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def test_the_program_is_clean_under_the_sanitizers(tmp_path: Path) -> None:
    """One compiler is enough here; `make sanitize` takes both."""
    compiler = next((cc for cc in ("gcc", "clang") if shutil.which(cc)), None)
    if compiler is None:
        pytest.skip("there is no C compiler")
    environment = os.environ | {
        "TWOFILE_C_WORK": str(tmp_path),
        "TWOFILE_SANITIZE_CC": compiler,
        "PYTHON": sys.executable,
    }
    done = subprocess.run([HERE / "run.sh"], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") >= 1
