from __future__ import annotations

import pytest

from twofile import __version__
from twofile.params.provenance import Cost, Provenance


def test_metadata_round_trip() -> None:
    whole = Provenance("n", "d", "mit", "1", ("a", "b"), ("x 00",), "ff", "twofile train", "abc")
    assert Provenance.from_metadata(whole.to_metadata()) == whole
    assert whole.to_metadata()["twofile.stages"] == ["a", "b"]
    assert Provenance().to_metadata() == {"twofile.version": __version__}


def test_a_further_stage_keeps_what_was_before() -> None:
    first = Provenance("n", "d", "mit", "0.0.1", ("pretrain",), ("x 00",), "", "twofile train", "abc")
    then = first.then("quantise Q8_0", parent="ff")
    assert then == Provenance("n", "d", "mit", __version__, ("pretrain", "quantise Q8_0"), ("x 00",), "ff", "", "")


def test_keys_of_the_wrong_type_count_as_absent() -> None:
    metadata = {"twofile.stages": "a", "twofile.data": [1], "general.name": 3, "general.license": "mit"}
    assert Provenance.from_metadata(metadata) == Provenance(license="mit")


@pytest.mark.parametrize("text", ["", "[", "[" * 5000, "{}", '{"seconds": 1e999, "tokens": 1, "flops": 1, "data": []}',
                                  '{"seconds": 1, "tokens": 1e999, "flops": 1, "data": []}',
                                  '{"seconds": -1, "tokens": 1, "flops": 1, "data": []}'])  # fmt: skip
def test_a_cost_that_is_none(text: str) -> None:
    assert Cost.read(text) is None


def test_costs() -> None:
    cost = Cost(1.5, 10, 1e9, ("a.txt",))
    assert Cost.read(cost.written()) == cost
    older = Provenance(stages=("pretrain",))
    newer = older.then("sft", cost=cost).then("quantise Q8_0")
    assert [newer.cost(i) for i in range(4)] == [None, cost, None, None]
    assert Provenance.from_metadata(newer.to_metadata()).cost(1) == cost
