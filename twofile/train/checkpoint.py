"""Where training stands, on disk: `<run>/checkpoints/<step>/` with `model.safetensors` and `state.pt`.

Guarantees: a checkpoint appears whole or not at all (filled under another name, flushed, renamed), and the one before
it stays; loading runs no code from the file. With the state of both optimisers and of the random generator a run goes
on bit for bit as if it had never stopped. Cost: three times the parameters in float32, for each of the two kept.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from twofile.errors import TrainError

__all__ = ["latest", "load", "load_weights", "save"]

_KEEP = 2


def save(run: Path, step: int, model: torch.nn.Module, state: dict[str, Any]) -> Path:
    """Write the checkpoint of a step. `state`: plain values and tensors only. TrainError when the disk refuses."""
    target = run / "checkpoints" / f"{step:08d}"
    temporary = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")
        torch.save(state | {"step": step, "random": torch.get_rng_state()}, temporary / "state.pt")
        for path in (*temporary.iterdir(), temporary):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainError(f"cannot write the checkpoint {target}: {error}") from error
    for old in sorted(path for path in target.parent.iterdir() if path.name.isdigit())[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run."""
    found = sorted(path for path in (run / "checkpoints").glob("*") if path.name.isdigit())
    return found[-1] if found else None


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Fill the model from a checkpoint. TrainError when the tensors are not those of the model."""
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
    except Exception as error:  # safetensors and torch raise several kinds
        hint = "train with the recipe that made it, or in another folder"
        raise TrainError(f"checkpoint {path}: {error}", hint) from error


def load(path: Path, model: torch.nn.Module) -> dict[str, Any]:
    """Fill the model and the random generator; give back the state that was saved, with `step`."""
    load_weights(path, model)
    try:
        state: dict[str, Any] = torch.load(path / "state.pt", weights_only=True)
    except Exception as error:
        raise TrainError(f"checkpoint {path}: state.pt cannot be read ({error})") from error
    torch.set_rng_state(state.pop("random"))
    return state
