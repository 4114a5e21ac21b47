from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_hyper, tiny_parameters, tiny_tensors, tiny_vocabulary
from twofile.errors import ParametersError
from twofile.params.blocks import decode, encode
from twofile.params.parameters import Parameters
from twofile.params.provenance import Provenance
from twofile.params.quantise import FILE_TYPES, quantise
from twofile.params.write import field, write, write_container


@pytest.mark.parametrize("type", FILE_TYPES)
def test_it_is_what_writing_in_that_type_gives(tmp_path: Path, type: str) -> None:
    source = tiny_parameters("qwen2", "F32", 1, tmp_path / "source", wide=True)
    direct = tiny_parameters("qwen2", type, 1, tmp_path / "direct", wide=True)
    quantise(source, tmp_path / "target", type)
    with (
        Parameters.open(tmp_path / "target") as target,
        Parameters.open(direct) as want,
        Parameters.open(source) as old,
    ):
        assert target.hyper == want.hyper
        assert target.vocabulary == want.vocabulary
        assert target.metadata["general.file_type"] == want.metadata["general.file_type"]
        for name, info in want.tensors.items():
            assert target.tensors[name].type == info.type
            np.testing.assert_array_equal(target.raw(name), want.raw(name))
        assert target.provenance.stages == ("random weights", f"quantise {type}")
        assert target.provenance.parent == old.sha256()
        assert target.provenance.license == "apache-2.0"


def test_every_other_key_is_kept(tmp_path: Path) -> None:
    source = tiny_parameters("llama", "F32", 1, tmp_path / "source")
    with Parameters.open(source) as old:
        extra = {"general.author": field("ada"), "general.sampling.temp": field(0.5), "x.list": field([1, 2])}
        fields = {k: v for k, v in old.typed_metadata.items() if k != "general.architecture"} | extra
        layout = {name: (info.shape, info.type) for name, info in old.tensors.items()}
        write_container(tmp_path / "more", "llama", fields, layout, ((name, old.raw(name)) for name in layout))
    quantise(tmp_path / "more", tmp_path / "target", "Q8_0")
    with Parameters.open(tmp_path / "target") as target:
        for key, value in extra.items():
            assert target.typed_metadata[key] == value


def test_quantising_twice_warns(tmp_path: Path) -> None:
    source = tiny_parameters("llama", "Q4_0", 1, tmp_path / "a")
    with pytest.warns(UserWarning, match="is quantised already .Q4_0."):
        quantise(source, tmp_path / "b", "Q8_0")
    quantise(source, tmp_path / "c", "Q4_0")  # nothing is lost
    with Parameters.open(source) as a, Parameters.open(tmp_path / "c") as c:
        np.testing.assert_array_equal(a.raw("output.weight"), c.raw("output.weight"))


def test_in_place_and_progress(tmp_path: Path) -> None:
    path = tiny_parameters("qwen3", "F32", 1, tmp_path / "a")
    seen: list[tuple[int, int]] = []
    quantise(path, path, "Q8_0", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    with Parameters.open(path) as parameters:
        x = dict(tiny_tensors(parameters.hyper, 1))["blk.0.attn_k.weight"]
        np.testing.assert_array_equal(
            parameters.read("blk.0.attn_k.weight"), decode(encode(x, "Q8_0"), "Q8_0", x.shape)
        )


def test_memory_is_that_of_one_tensor(tmp_path: Path) -> None:
    vocabulary = tiny_vocabulary()
    hyper = tiny_hyper("llama", vocabulary, wide=True, n_layers=24, ffn_dim=1024)
    write(tmp_path / "a", hyper, vocabulary, tiny_tensors(hyper, 1), provenance=Provenance())
    quantise(tmp_path / "a", tmp_path / "warm", "Q8_0")
    tracemalloc.start()
    quantise(tmp_path / "a", tmp_path / "b", "Q8_0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole, largest = (tmp_path / "a").stat().st_size, 4 * 1024 * 256
    assert whole > 80 * largest
    assert peak < 12 * largest


def test_bad_arguments(tmp_path: Path) -> None:
    source = tiny_parameters("llama", "F32", 1, tmp_path / "a")
    with pytest.raises(ParametersError, match="'Q9' is not a type"):
        quantise(source, tmp_path / "b", "Q9")
    with pytest.raises(ParametersError, match="does not exist"):
        quantise(tmp_path / "absent", tmp_path / "b", "Q8_0")
    assert not (tmp_path / "b").exists()
