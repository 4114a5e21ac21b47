"""A run that is killed again and again ends with the bytes of one that was not."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.train.tiny import write_corpus

ROOT = Path(__file__).resolve().parents[3]
STEPS = 40

SCRIPT = f"""
import sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.train.tiny import recipe
from twofile.train.pretrain.stage import pretrain
torch.set_num_threads(1)
folder = Path(sys.argv[1])
plan = dict(steps={STEPS}, warmup=5, save_minutes=float(sys.argv[3]), validate_every=15, dream_minutes=0.02)
pretrain(replace(recipe(**plan), within_documents=True), folder, folder / sys.argv[2], lambda _: None)
"""


def begin(folder: Path, run: str, save_minutes: float) -> subprocess.Popen[bytes]:
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), run, str(save_minutes)], cwd=ROOT, stderr=said
        )


def reached(run: Path) -> int:
    found = [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
    return max(found, default=0)


def test_killed_at_five_random_steps(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    whole = begin(tmp_path, "whole", 1e9)
    assert whole.wait(120) == 0, (tmp_path / "said").read_text()
    kills = sorted(random.Random(0).sample(range(1, STEPS - 3), 5))
    for step in kills:
        child = begin(tmp_path, "parts", 0)
        end = time.monotonic() + 60
        while reached(tmp_path / "parts") < step and time.monotonic() < end:
            assert child.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert step <= reached(tmp_path / "parts") < STEPS
    last = begin(tmp_path, "parts", 0)
    assert last.wait(120) == 0, (tmp_path / "said").read_text()
    one, two = (tmp_path / run / "checkpoints" / f"{STEPS:08d}" for run in ("whole", "parts"))
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir()) == ["manifest.json", "rank-00000-of-00001.safetensors"]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
