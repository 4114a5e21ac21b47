"""Two processes are one: the same losses replicated and sharded, and checkpoints that any number of them reads."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.tiny import recipe, write_corpus
from twofile.errors import TrainError
from twofile.train.checkpoint import newest
from twofile.train.parallel import World, spread
from twofile.train.pretrain.stage import pretrain

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.train.tiny import recipe
from twofile.train.parallel import join
from twofile.train.pretrain.stage import pretrain
folder = Path(sys.argv[1])


def go(name, **plan):
    pretrain(replace(recipe(**plan), batch=8), folder, folder / name, lambda _: None)


with join() as world:
    assert world.size == 2
    for layout in ("replicated", "sharded"):
        go(layout, steps=50, layout=layout)
        go(f"{layout} begun", steps=6, decay=0.0, layout=layout)
        go(f"{layout} on", steps=6, decay=0.0, layout=layout)
        go(f"{layout} on", steps=12, decay=0.0, layout="sharded" if layout == "replicated" else "replicated")
        go(f"{layout} by one", steps=12, decay=0.0, layout=layout)
    go("compiled", steps=4, decay=0.0, layout="sharded", compile=True)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two processes, and one of a single process."""
    folder = tmp_path_factory.mktemp("parallel")
    write_corpus(folder)
    (folder / "run.py").write_text(SCRIPT)
    for layout in ("replicated", "sharded"):
        train_alone(folder, f"{layout} by one", steps=6, decay=0.0)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder / "run.py"), str(folder)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    train_alone(folder, "one", steps=50)
    train_alone(folder, "twelve", steps=12, decay=0.0)
    return folder


def train_alone(folder: Path, name: str, **plan: Any) -> None:
    pretrain(replace(recipe(**plan), batch=8), folder, folder / name, lambda _: None)


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def apart(one: list[float], two: list[float]) -> float:
    """The largest difference of two lists of as many losses."""
    return max(abs(a - b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_losses_are_those_of_one_process(runs: Path, layout: str) -> None:
    assert len(losses(runs / layout)) == 50
    assert apart(losses(runs / "one"), losses(runs / layout)) < 1e-5


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_one_process_goes_on_with_what_two_wrote(runs: Path, layout: str) -> None:
    begun = runs / f"{layout} begun"
    found = newest(begun)
    assert found is not None
    files = sorted(path.name for path in found.path.glob("*.safetensors"))
    assert files == ["rank-00000-of-00002.safetensors", "rank-00001-of-00002.safetensors"]
    train_alone(runs, begun.name, steps=12, decay=0.0)
    assert apart(losses(begun), losses(runs / "twelve")) < 1e-5


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_two_go_on_in_the_other_layout(runs: Path, layout: str) -> None:
    assert apart(losses(runs / f"{layout} on"), losses(runs / "twelve")) < 1e-5


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_two_go_on_with_what_one_wrote(runs: Path, layout: str) -> None:
    assert apart(losses(runs / f"{layout} by one"), losses(runs / "twelve")) < 1e-5


def test_compiled_layers_are_sharded(runs: Path) -> None:
    assert apart(losses(runs / "compiled"), losses(runs / "twelve")[:4]) < 1e-4


def test_sharded_files_hold_half_each(runs: Path) -> None:
    folder = max((runs / "sharded" / "checkpoints").iterdir())
    sizes = sorted(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert sizes[0] > 0.9 * sizes[1] > 0


def test_an_unknown_layout_is_named() -> None:
    with pytest.raises(TrainError, match="replicated or sharded"):
        spread(torch.nn.Linear(2, 2), None, World.here(), "wide")  # type: ignore[arg-type]
