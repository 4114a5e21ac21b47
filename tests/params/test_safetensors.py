from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twofile.errors import ParametersError
from twofile.params.safetensors import SafeTensors, write_safetensors

torch = pytest.importorskip("torch")
library = pytest.importorskip("safetensors.torch")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_it_reads_what_the_library_writes(tmp_path: Path, dtype: str) -> None:
    tensors = {"a": torch.randn(3, 5), "b.c": torch.randn(7), "none": torch.zeros(0, 4)}
    tensors = {name: x.to(getattr(torch, dtype)) for name, x in tensors.items()}
    library.save_file(tensors, tmp_path / "model.safetensors")
    read = SafeTensors(tmp_path)
    assert read.tensors.keys() == tensors.keys()
    for name, x in tensors.items():
        np.testing.assert_array_equal(read.read(name), x.to(torch.float32).numpy())


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_library_reads_what_it_writes(tmp_path: Path, dtype: str) -> None:
    tensors = {"a": np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32), "b": np.ones(7, np.float32)}
    shapes = {name: x.shape for name, x in tensors.items()}
    write_safetensors(tmp_path / "model.safetensors", shapes, dtype, tensors.values())
    for name, x in library.load_file(tmp_path / "model.safetensors").items():
        assert str(x.dtype) == {"F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16"}[dtype]
        np.testing.assert_allclose(x.to(torch.float32).numpy(), tensors[name], rtol=0.005)


def test_shards(tmp_path: Path) -> None:
    library.save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    library.save_file({"b": torch.zeros(3)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = SafeTensors(tmp_path)
    assert (read.read("a").tolist(), read.read("b").tolist()) == ([1, 1], [0, 0, 0])
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ParametersError, match=r"cannot read .*model-2.safetensors"):
        SafeTensors(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(ParametersError, match="which is no file of its folder"):
        SafeTensors(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ParametersError, match="no index"):
        SafeTensors(tmp_path)


def test_a_folder_without(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match=r"has no model\.safetensors"):
        SafeTensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ParametersError, match="can run code"):
        SafeTensors(tmp_path)


def entry(dtype: Any, shape: Any, offsets: Any) -> dict[str, Any]:
    return {"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "its header ends at byte 8"),
        (b"not json", "its header cannot be read"),
        (b"[]", "its header cannot be read"),
        (b"\xff\xff", "its header cannot be read"),
        ({"t": 3}, "its header cannot be read"),
        ({"t": {}}, "its header cannot be read"),
        (entry("F8_E4M3", [4], [0, 4]), "the tensor t is F8_E4M3"),
        (entry("F32", [4], [0, 15]), "is said to be at 0-15"),
        (entry("F32", [1 << 60], [0, 1 << 62]), "the tensor t"),
        (entry("F32", [100], [0, 400]), "the tensor t"),
        (entry("F32", [-4], [0, -16]), "the tensor t has the shape"),
        (entry("F32", [4.0], [0, 16]), "the tensor t has the shape"),
        (entry("F32", [4], [-16, 0]), "the tensor t has the shape"),
        (entry("F32", "ab", [0, 16]), "the tensor t has the shape"),
        (entry("F32", [4], [0]), "its header cannot be read"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: Any, words: str) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    with pytest.raises(ParametersError, match=words):
        SafeTensors(tmp_path)


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    for length in (1 << 20, 1 << 63):
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(ParametersError, match="its header ends at byte"):
            SafeTensors(tmp_path)
