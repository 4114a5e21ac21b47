"""Where training stands, on disk: `<run>/checkpoints/<step>/`, one safetensors file a process and `manifest.json`.

Each process writes the rows it holds of each tensor, so that nothing is gathered; what every process has alike the
first one writes. Guarantees: a checkpoint appears whole or not at all (filled under another name, flushed, renamed by
the first process when all have written), its bytes depend on the state alone, and every file is checked against the
manifest's SHA-256 before it is used; where the newest is damaged, the one before it is taken and that is said. Any
number of processes reads what any number wrote. Loading runs no code from the file. Writing happens in a thread, from a
copy, while training goes on; several processes must see the same folder. Kept are the last K and the one with the
lowest validation loss. Cost: the state once more in memory while it is written; about 12 bytes a parameter on disk.

safetensors' own files hold whole tensors; ours are valid ones of which the metadata says which rows they hold.
PyTorch's distributed checkpoints would do the same, but no two of them are alike to the byte, and nothing in them is
checksummed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from twofile.errors import TrainError
from twofile.params.checksum import file_sha256
from twofile.train.parallel import World

__all__ = ["Checkpoint", "Writer", "checkpoints", "newest", "random_state", "seed_all", "set_random_state"]

_PATIENCE = 600.0  # seconds that the first process waits for the files of the others


def _rows(tensor: Tensor) -> tuple[Tensor, int]:
    """The rows that this process holds, and which is the first of them."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    local = tensor.to_local()
    placement = tensor.placements[0]
    if len(tensor.placements) != 1 or not (placement.is_shard(0) or placement.is_replicate()):
        raise TrainError(f"a tensor placed as {tensor.placements} cannot be saved: shards of rows can")
    if placement.is_replicate():
        return local, 0
    rank, processes = tensor.device_mesh.get_local_rank(), tensor.device_mesh.size()
    return local, min(tensor.shape[0], rank * -(-tensor.shape[0] // processes))


def seed_all(seed: int) -> None:
    """Begin every random generator that training could use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process that training could use."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """What `random_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch"]), dtype=torch.uint8))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.frombuffer(bytearray.fromhex(state["cuda"]), dtype=torch.uint8))


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    found = (run / "checkpoints").glob("*/manifest.json")
    return sorted(path.parent for path in found if path.parent.name.isdigit())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class _Piece:
    file: Path
    first: int
    rows: int


class Checkpoint:
    """One that is whole; TrainError when a file of it is damaged or missing. `values`: what was saved with it.

    `verify`: compare the files with their checksums, which somebody must have done before they are used."""

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path = path
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            self.step: int = manifest["step"]
            self.values: dict[str, Any] = manifest["values"]
            self._random: list[dict[str, Any]] = []
            self._shapes: dict[str, list[int]] = {}
            self._pieces: dict[str, list[_Piece]] = {}
            for name, digest in manifest["files"].items():
                if verify and file_sha256(path / name) != digest:
                    hint = f"remove {path} to go on from an earlier one"
                    raise TrainError(f"checkpoint {path}: {name} is damaged", hint)
                self._index(path / name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainError(f"checkpoint {path}: cannot be read ({error})") from error

    def _index(self, file: Path) -> None:
        with safe_open(file, "pt") as tensors:
            about = json.loads(tensors.metadata()["twofile"])
            self._random.append(about["random"])
            for name, (first, shape) in about["rows"].items():
                self._shapes[name] = shape
                rows = tensors.get_slice(name).get_shape()[:1] or [1]
                self._pieces.setdefault(name, []).append(_Piece(file, first, rows[0]))

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def names(self, prefix: str) -> list[str]:
        """The names of its tensors that begin so, without that."""
        return sorted(name.removeprefix(prefix) for name in self._shapes if name.startswith(prefix))

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy into tensors by name, however they are sharded now. TrainError unless all are there in these shapes."""
        for name, tensor in tensors.items():
            if self._shapes.get(name) != list(tensor.shape):
                here = "is not there" if name not in self else f"is {self._shapes[name]}, not {list(tensor.shape)}"
                hint = "train with the recipe that made it, or in another folder"
                raise TrainError(f"checkpoint {self.path}: the tensor {name} {here}", hint)
            local, first = _rows(tensor)
            if local.numel():
                local.copy_(self._read(name, first, len(local) if local.ndim else 1).view(local.shape))

    def _read(self, name: str, first: int, rows: int) -> Tensor:
        parts, at = [], first
        for piece in sorted(self._pieces[name], key=lambda piece: piece.first):
            last = min(piece.first + piece.rows, first + rows)
            if piece.first <= at < last:
                with safe_open(piece.file, "pt") as tensors:
                    whole = tensors.get_tensor(name) if not self._shapes[name] else None
                    parts.append(
                        whole if whole is not None else tensors.get_slice(name)[at - piece.first : last - piece.first]
                    )
                at = last
        if at != first + rows:
            raise TrainError(f"checkpoint {self.path}: rows {at} to {first + rows} of {name} are missing")
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def set_random_state(self) -> None:
        """The generators of this process as they were; a process that was not there before keeps its own."""
        rank = World.here().rank
        if rank < len(self._random):
            set_random_state(self._random[rank])


def newest(run: Path, say: Any = print) -> Checkpoint | None:
    """The newest checkpoint that is not damaged, which under several processes the first one finds for all.

    TrainError when all are damaged."""
    world = World.here()
    found = _newest(run, say) if world.rank == 0 else None
    step = int(world.first(found.step if found is not None else -1))
    if step < 0 or found is not None:
        return found
    return Checkpoint(run / "checkpoints" / f"{step:08d}", verify=False)


def _newest(run: Path, say: Any) -> Checkpoint | None:
    for before in (run / "checkpoints").glob(".*.before"):  # a kill came while its successor took its place
        if not (target := before.with_name(before.name[1:].removesuffix(".before"))).exists():
            before.rename(target)
    found = checkpoints(run)
    for path in reversed(found):
        try:
            return Checkpoint(path)
        except TrainError as error:
            if path == found[0]:
                raise
            aside = path.with_name(f"{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)  # it counts no more, and can be looked at
            say(f"{error.args[0]}; going on from the one before")
    return None


class Writer:
    """Saves checkpoints of a run, one at a time, in a thread. `best` is kept beside the last `keep`."""

    def __init__(self, run: Path, *, keep: int = 2) -> None:
        self.folder, self.keep = run / "checkpoints", keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], values: dict[str, Any]) -> None:
        """Copy the state, then write it while training goes on; waits for the one before. TrainError as `wait`.

        `values`: numbers and texts; `values["validation"]`, where given, decides which checkpoint is the best."""
        self.wait()
        rank = World.here().rank
        mine: dict[str, Tensor] = {}
        rows: dict[str, Any] = {}
        for name, tensor in tensors.items():
            local, first = _rows(tensor)
            sharded = isinstance(tensor, DTensor) and not tensor.placements[0].is_replicate()
            if (sharded and local.numel()) or (rank == 0 and not sharded):
                mine[name] = local.detach().to("cpu", copy=True).contiguous()
                rows[name] = [first, list(tensor.shape)]
        about = json.dumps({"rows": rows, "random": random_state()}, sort_keys=True)
        part = self.folder / f".{step:08d}.part"
        if rank == 0:  # what a killed run has left there must be gone before anybody writes
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        World.here().barrier()
        given = (step, part, mine, about, values)
        self._thread = threading.Thread(target=self._run, args=given, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until what was begun is on disk. TrainError when it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise TrainError(f"cannot write a checkpoint in {self.folder}: {error}") from error

    def _run(self, *given: Any) -> None:
        try:
            self._write(*given)
        except BaseException as error:
            self._error = error

    def _write(self, step: int, part: Path, tensors: dict[str, Tensor], about: str, values: dict[str, Any]) -> None:
        target = self.folder / f"{step:08d}"
        world = World.here()
        rank, processes = world.rank, world.size
        names = [f"rank-{k:05d}-of-{processes:05d}" for k in range(processes)]
        file = part / f"{names[rank]}.safetensors"
        save_file(tensors, file, {"twofile": about})
        _flush(file)
        ready = part / f"{names[rank]}.sha256"
        ready.with_suffix(".new").write_text(file_sha256(file))
        os.replace(ready.with_suffix(".new"), ready)
        if rank > 0:
            return
        done = [part / f"{name}.sha256" for name in names]
        end = time.monotonic() + _PATIENCE
        while not all(path.exists() for path in done):
            if time.monotonic() > end:
                raise OSError(f"the other processes wrote nothing for {_PATIENCE:.0f} s: do all see this folder?")
            time.sleep(0.01)
        files = {f"{path.stem}.safetensors": path.read_text() for path in done}
        manifest = {"step": step, "values": values, "files": files}
        for path in done:
            path.unlink()
        (part / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=1), encoding="utf-8")
        _flush(part / "manifest.json")
        _flush(part)
        before = target.with_name(f".{step:08d}.before")
        shutil.rmtree(before, ignore_errors=True)
        if target.exists():
            os.replace(target, before)
        os.replace(part, target)
        _flush(self.folder)
        shutil.rmtree(before, ignore_errors=True)
        self._tidy()

    def _tidy(self) -> None:
        found = [path for path in self.folder.glob("*/manifest.json") if path.parent.name.isdigit()]
        figures = {path.parent: json.loads(path.read_text())["values"].get("validation") for path in found}
        last = sorted(figures)[-self.keep :]
        measured = {path: figure for path, figure in figures.items() if figure is not None}
        best = min(measured, key=lambda path: (measured[path], path.name), default=None)
        for path in figures:
            if path not in last and path != best:
                shutil.rmtree(path, ignore_errors=True)
