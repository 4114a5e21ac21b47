"""Checkpoints: whole or not there, checked, few, the same bytes for the same state."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from twofile.errors import TrainError
from twofile.train import checkpoint
from twofile.train.checkpoint import Checkpoint, Writer, checkpoints, newest


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return {"model.a": torch.randn(5, 3, generator=chance), "model.b": torch.randn(4, generator=chance)}


def save(run: Path, *steps: int, validation: dict[int, float] | None = None, keep: int = 2) -> Writer:
    writer = Writer(run, keep=keep)
    for step in steps:
        figure = (validation or {}).get(step)
        writer.save(step, state(step), {"tokens": 10 * step, "validation": figure})
        writer.wait()
    return writer


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found = newest(tmp_path)
    assert found is not None
    assert (found.step, found.values) == (7, {"tokens": 70, "validation": None})
    tensors = {name: torch.zeros_like(tensor) for name, tensor in state().items()}
    found.fill(tensors)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state(7).items())


def test_training_goes_on_while_it_is_written(tmp_path: Path) -> None:
    """What is saved is the state at that moment, whatever happens to the tensors afterwards."""
    writer, tensors = Writer(tmp_path), state(3)
    writer.save(3, tensors, {})
    for tensor in tensors.values():
        tensor.zero_()
    writer.wait()
    Checkpoint(tmp_path / "checkpoints" / "00000003").fill(tensors)
    assert torch.equal(tensors["model.a"], state(3)["model.a"])


def test_same_state_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    for run in ("a", "b"):
        save(tmp_path / run, 5)
    one, two = (tmp_path / run / "checkpoints" / "00000005" for run in ("a", "b"))
    assert sorted(path.name for path in one.iterdir()) == ["manifest.json", "rank-00000-of-00001.safetensors"]
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5, validation={1: 2.0, 2: 1.0, 3: 1.5, 4: 1.2, 5: 1.1})
    assert [int(path.name) for path in checkpoints(tmp_path)] == [2, 4, 5]


def test_a_damaged_byte_is_found(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    file = tmp_path / "checkpoints" / "00000002" / "rank-00000-of-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    said: list[str] = []
    found = newest(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert "damaged" in said[0]
    save(tmp_path, 2)  # what is damaged is out of the way, whatever it is called
    again = newest(tmp_path, said.append)
    assert again is not None
    assert again.step == 2
    for step in (1, 2):
        assert (tmp_path / "checkpoints" / f"{step:08d}").is_dir()
    shutil.rmtree(tmp_path / "checkpoints" / "00000002")
    (tmp_path / "checkpoints" / "00000001" / "rank-00000-of-00001.safetensors").unlink()
    with pytest.raises(TrainError, match="cannot be read"):
        newest(tmp_path, said.append)


def test_killed_while_one_takes_the_place_of_another(tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    (folder / "00000001").rename(folder / ".00000001.before")
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_what_a_kill_leaves_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    part = tmp_path / "checkpoints" / ".00000002.part"
    part.mkdir()
    (part / "rank-00000-of-00001.safetensors").write_bytes(b"half")
    assert [int(path.name) for path in checkpoints(tmp_path)] == [1]
    save(tmp_path, 2)
    assert [int(path.name) for path in checkpoints(tmp_path)] == [1, 2]
    assert not part.exists()


def test_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    found = newest(tmp_path)
    assert found is not None
    with pytest.raises(TrainError, match=r"model\.a is \[5, 3\], not \[5, 4\]"):
        found.fill({"model.a": torch.zeros(5, 4)})
    with pytest.raises(TrainError, match=r"model\.c is not there"):
        found.fill({"model.c": torch.zeros(5, 4)})


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 3)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    writer = Writer(tmp_path)
    writer.save(4, state(), {})
    with pytest.raises(TrainError, match="No space left"):
        writer.wait()
    assert [int(path.name) for path in checkpoints(tmp_path)] == [3]


def test_random_state_comes_back(tmp_path: Path) -> None:
    import random

    import numpy as np

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    held = json.loads(json.dumps(checkpoint.random_state()))
    drawn = random.random(), float(np.random.standard_normal()), float(torch.rand(1))
    checkpoint.set_random_state(held)
    assert drawn == (random.random(), float(np.random.standard_normal()), float(torch.rand(1)))
