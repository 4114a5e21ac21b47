"""Two processes are one: the same losses replicated and sharded, and checkpoints that any number of them reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train.tiny import recipe, write_corpus
from twofile.errors import TrainError
from twofile.train.checkpoint import newest
from twofile.train.parallel import World, spread
from twofile.train.pretrain import pretrain

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from pathlib import Path
import torch
from tests.train.tiny import recipe
from twofile.train.parallel import join
from twofile.train.pretrain import pretrain
folder = Path(sys.argv[1])
with join() as world:
    assert world.size == 2
    for layout in ("replicated", "sharded"):
        pretrain(recipe(steps=50, layout=layout), folder, folder / layout, lambda _: None)
        pretrain(recipe(steps=6, decay=0.0, layout=layout), folder, folder / f"{layout} begun", lambda _: None)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two processes, and one of a single process."""
    folder = tmp_path_factory.mktemp("parallel")
    write_corpus(folder)
    (folder / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder / "run.py"), str(folder)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    pretrain(recipe(steps=50), folder, folder / "one", lambda _: None)
    return folder


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_losses_are_those_of_one_process(runs: Path, layout: str) -> None:
    one, two = losses(runs / "one"), losses(runs / layout)
    assert len(one) == len(two) == 50
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-5


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_one_process_goes_on_with_what_two_wrote(runs: Path, layout: str) -> None:
    begun = runs / f"{layout} begun"
    found = newest(begun)
    assert found is not None
    files = sorted(path.name for path in found.path.glob("*.safetensors"))
    assert files == ["rank-0-of-2.safetensors", "rank-1-of-2.safetensors"]
    (begun / "log.jsonl").unlink()
    pretrain(recipe(steps=12, decay=0.0), runs, begun, lambda _: None)
    pretrain(recipe(steps=12, decay=0.0), runs, runs / f"whole {layout}", lambda _: None)
    went_on, expected = losses(begun), losses(runs / f"whole {layout}")[6:]
    assert len(went_on) == 6
    assert max(abs(a - b) for a, b in zip(went_on, expected, strict=True)) < 1e-5


def test_sharded_files_hold_half_each(runs: Path) -> None:
    folder = max((runs / "sharded" / "checkpoints").iterdir())
    sizes = sorted(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert sizes[0] > 0.9 * sizes[1] > 0


def test_an_unknown_layout_is_named() -> None:
    with pytest.raises(TrainError, match="replicated or sharded"):
        spread(torch.nn.Linear(2, 2), None, World.here(), "wide")  # type: ignore[arg-type]
