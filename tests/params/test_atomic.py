from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twofile.errors import ParametersError
from twofile.params.atomic import atomic_path, write_json

WRITER = """
import sys, time
from pathlib import Path
from tests.tiny import tiny_hyper, tiny_tensors, tiny_vocabulary
from twofile.params.write import write

def slowly(tensors):
    for n, pair in enumerate(tensors):
        if n == 10:
            print("half way", flush=True)
            time.sleep(float(sys.argv[2]))
        yield pair

vocabulary = tiny_vocabulary()
hyper = tiny_hyper("qwen3", vocabulary)
write(Path(sys.argv[1]), hyper, vocabulary, slowly(tiny_tensors(hyper, 1)))
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "twofile-home")


def test_replaces_the_file_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_json_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"é": [1, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"é": object()})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"é": [1, None]}
    assert names(tmp_path) == ["a.json"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "file"
    target.write_text("old")
    (tmp_path / "link").symlink_to(target)
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_a_disk_that_refuses_is_a_parameters_error(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match="No space left"), atomic_path(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):  # what the block itself lacks is its own
        (tmp_path / "absent").read_bytes()
    assert names(tmp_path) == []


def test_a_folder_that_is_absent_or_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match="does not exist") as caught, atomic_path(tmp_path / "no" / "file"):
        pass
    assert caught.value.hint.startswith("mkdir")
    with pytest.raises(ParametersError, match="is a folder"), atomic_path(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of processes")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    target.write_text("old")
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + WRITER
    done = subprocess.run([sys.executable, "-c", full, target, "0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ParametersError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert target.read_text() == "old"
    assert names(tmp_path) == ["model.gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    target.write_text("old")
    with subprocess.Popen([sys.executable, "-c", WRITER, target, "60"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        part = [*tmp_path.glob(".model.gguf.*.part")]
        assert part
        assert part[0].stat().st_size > 100_000
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    time.sleep(0.05)
    assert target.read_text() == "old"
