"""What every test may ask for. No test touches the network, the user's folders, or files outside its own tmp_path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Many small tensors: threads that wait for one another cost more than they give, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; a test that needs it is skipped where it is absent.

    TWOFILE_SHARED_DATA names it where the repository was cloned elsewhere."""
    path = Path(os.environ.get("TWOFILE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"the shared data is not at {path} (set TWOFILE_SHARED_DATA to run this test)")
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the whole run, so that run.c is compiled once and never into the user's cache."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOFILE_CACHE", str(path))
        yield path


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder for each test, and no hub to reach."""
    home = tmp_path / "twofile-home"
    monkeypatch.setenv("TWOFILE_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return home
