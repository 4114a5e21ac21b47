from __future__ import annotations

import gguf
import pytest

from tests.tiny import tiny_hyper, tiny_vocabulary
from twofile.errors import ParametersError
from twofile.params.mixture import FILE_TYPES, file_type, plan

WIDE = tiny_hyper("llama", tiny_vocabulary(), wide=True, n_layers=16)


@pytest.mark.parametrize("type", FILE_TYPES)
def test_vectors_are_whole_and_matrices_have_the_type(type: str) -> None:
    layout = plan(WIDE, type)
    assert list(layout) == list(WIDE.shapes())
    for shape, kind in layout.values():
        assert kind == "F32" if len(shape) == 1 else kind in ((type,) if type != "Q4_K_M" else ("Q4_K", "Q6_K"))
    assert gguf.LlamaFileType(file_type(type)).name.endswith({"Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S"}.get(type, type))


def test_the_mixture_is_that_of_llama_cpp() -> None:
    layout = plan(WIDE, "Q4_K_M")
    better = {name for name, (_, kind) in layout.items() if kind == "Q6_K"}
    layers = {0, 1, 4, 7, 10, 13, 14, 15}  # of 16: the first and last eighth, every third between
    assert better == {"output.weight"} | {f"blk.{n}.{part}.weight" for n in layers for part in ("attn_v", "ffn_down")}
    tied = plan(tiny_hyper("llama", tiny_vocabulary(), wide=True, tied=True), "Q4_K_M")
    assert tied["token_embd.weight"][1] == "Q6_K"


def test_rows_that_do_not_fill_blocks_fall_back_with_a_word() -> None:
    narrow = tiny_hyper("llama", tiny_vocabulary(), ffn_dim=172)
    with pytest.warns(UserWarning, match="matrices are kept as") as caught:
        layout = plan(narrow, "Q4_K")
    assert len(caught) == 2
    assert layout["blk.0.attn_q.weight"][1] == "Q8_0"
    assert layout["blk.0.ffn_down.weight"] == ((64, 172), "F16")


def test_an_unknown_type() -> None:
    with pytest.raises(ParametersError, match="'IQ2_XS' is not a type"):
        plan(WIDE, "IQ2_XS")
