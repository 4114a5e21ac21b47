"""safetensors files, read and written as streams.

The format is a length, a JSON header and raw numbers. It is read here rather than with its own package because NumPy
has no bfloat16, so that package can only hand such a tensor to torch, and because one tensor at a time must be enough
memory. Every length is checked against the file. Tensors are given as float32 whatever their type, which is exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.atomic import atomic_path
from twofile.params.blocks import encode

__all__ = ["SafeTensors", "write_safetensors"]

_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NUMPY: dict[str, Any] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LONGEST_HEADER = 100_000_000  # that of the format's own reader


class SafeTensors:
    """The float tensors of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names.

    `tensors` maps a name to its (type, shape). Raises ParametersError for a file that is damaged or missing."""

    def __init__(self, folder: Path) -> None:
        self.tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._where: dict[str, tuple[Path, int]] = {}
        index = folder / "model.safetensors.index.json"
        if (folder / "model.safetensors").is_file():
            names = ["model.safetensors"]
        elif index.is_file():
            try:
                names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ParametersError(f"{index} is no index of safetensors files: {error}") from error
        else:
            old = " (a pytorch_model.bin can run code when it is read, so it is not)" if [*folder.glob("*.bin")] else ""
            raise ParametersError(
                f"{folder} has no model.safetensors{old}",
                "load it with transformers and call save_pretrained, which writes safetensors" if old else "",
            )
        for name in names:
            if not isinstance(name, str) or Path(name).name != name:
                raise ParametersError(f"{index} names {str(name)[:80]!r}, which is no file of its folder")
            self._open(folder / name)

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor as float32 of its shape, a copy."""
        dtype, shape = self.tensors[name]
        path, offset = self._where[name]
        x = np.fromfile(path, _NUMPY[dtype], math.prod(shape), offset=offset).reshape(shape)
        if dtype == "BF16":
            return (x.astype(np.uint32) << 16).view(np.float32)
        return x.astype(np.float32)

    def _open(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            with open(path, "rb") as file:
                start = 8 + int.from_bytes(file.read(8), "little")
                if not 8 < start <= min(size, _LONGEST_HEADER):
                    raise ParametersError(f"{path} is no safetensors file: its header ends at byte {start} of {size}")
                header: dict[str, Any] = json.loads(file.read(start - 8))
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
                if dtype not in _DTYPES:
                    raise ParametersError(
                        f"{path}: the tensor {name} is {dtype}: only {', '.join(_DTYPES)} are supported"
                    )
                if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                    raise ParametersError(f"{path}: the tensor {name} has the shape {shape} at {begin}-{end}")
                if end - begin != math.prod(shape) * _DTYPES[dtype] or start + end > size:
                    raise ParametersError(
                        f"{path}: the tensor {name} of {shape} {dtype} is said to be at {begin}-{end}"
                    )
                self.tensors[name] = dtype, shape
                self._where[name] = path, start + begin
        except OSError as error:
            raise ParametersError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ParametersError(f"{path} is no safetensors file: its header cannot be read ({error})") from error


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, tensors: Iterable[NDArray[np.float32]]
) -> None:
    """Write tensors, in the order of `shapes`, as F32, F16 or BF16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * _DTYPES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(encode(x, dtype, f"the tensor {name}").data for name, x in zip(shapes, tensors, strict=True))
