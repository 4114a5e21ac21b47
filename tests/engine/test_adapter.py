"""Low-rank changes: the program with an adapter says what the merged model says; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.cli.test_main import call
from twofile.engine.engine import Engine
from twofile.engine.template import ChatTemplate
from twofile.errors import NotFoundError, ParametersError
from twofile.params.adapter import MATRICES, Adapter, merge
from twofile.params.parameters import Parameters
from twofile.params.provenance import Provenance

Make = Callable[..., Path]
TOKENS = [int(token) for token in np.random.default_rng(3).integers(0, 256, 40)]


def adapter(base: Path, into: Path, matrices: tuple[str, ...] = MATRICES, rank: int = 5, **changes: Any) -> Path:
    """A random one; ranks differ from matrix to matrix."""
    draw = np.random.default_rng(7)
    pairs = {}
    with Parameters.open(base) as file:
        for name, shape in file.hyper.shapes().items():
            if name.startswith("blk.") and name.endswith(".weight") and name.split(".")[-2] in matrices:
                r = int(draw.integers(1, rank + 1))
                a, b = draw.standard_normal((r, shape[1])), draw.standard_normal((shape[0], r))
                pairs[name] = (a / np.sqrt(shape[1])).astype(np.float32), (b / 2).astype(np.float32)
        values = {"architecture": file.hyper.architecture, "alpha": 2.0, "pairs": pairs}
        values["provenance"] = Provenance(name="a", parent=file.sha256())
        Adapter(**(values | changes)).write(into)
    return into


def rms(x: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean(x * x)))


def logits(path: Path, change: Path | None, **how: Any) -> list[np.ndarray[Any, Any]]:
    """Of all tokens at once; in pieces of 1 and of a few; of three sessions in a pass."""
    with Engine(path, adapter=change, **how) as engine:
        whole = engine.session().append(TOKENS, "all")
        session = engine.session()
        parts = [session.append(part, "all") for part in (TOKENS[:1], TOKENS[1:2], TOKENS[2:7], TOKENS[7:])]
        three = [engine.session() for _ in range(3)]
        together = engine.evaluate([(one, TOKENS[: 10 + i], "last") for i, one in enumerate(three)])
        return [whole, np.concatenate(parts), together]


@pytest.mark.parametrize(
    "kind", [("qwen3", "F32"), ("qwen2", "BF16"), ("llama", "Q8_0"), ("qwen3", "Q4_0"), ("llama", "Q4_K_M")]
)
@pytest.mark.parametrize("matrices", [MATRICES, ("attn_k", "ffn_up"), ("attn_output", "ffn_down")])
def test_the_program_applies_it(
    make: Make, tmp_path: Path, kind: tuple[str, str], matrices: tuple[str, ...], backend: Literal["c", "numpy"]
) -> None:
    base = make(*kind)
    change = adapter(base, tmp_path / "a.gguf", matrices)
    merge(base, change, tmp_path / "m.gguf", type="F32")  # what the blocks stand for, and the changes: exact
    before, wanted = logits(base, None, backend="numpy"), logits(tmp_path / "m.gguf", None, backend="numpy")
    assert np.abs(before[0] - wanted[0]).max() > 0.5  # it matters
    hows: list[dict[str, Any]] = [{"backend": backend}]
    if backend == "c":
        hows = [{"backend": "c", "threads": threads, "repack": repack} for threads in (1, 2, 3) for repack in (1, 0)]
    for how in hows:
        plain, found = logits(base, None, **how), logits(base, change, **how)
        for one, exact, unchanged, reference in zip(found, wanted, plain, before, strict=True):
            rounding = rms(unchanged - reference)  # of activations in 8 bits or bf16, without any adapter
            assert rms(one - exact) < 2e-5 + 2 * rounding, how


def test_the_files_own_kernels_and_one_head_a_thread(make: Make, tmp_path: Path) -> None:
    base = make("qwen3", "F32", n_kv_heads=2, n_heads=4, head_dim=32)
    change = adapter(base, tmp_path / "a.gguf")
    wanted, found = logits(base, change, backend="numpy"), logits(base, change, backend="c", threads=2)
    for one, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, exact, atol=2e-4)


@pytest.mark.parametrize(("dim", "heads", "kv", "head_dim", "rank"), [(576, 9, 3, 64, 16), (320, 5, 5, 64, 16)])
def test_heads_that_threads_share(
    make: Make, tmp_path: Path, dim: int, heads: int, kv: int, head_dim: int, rank: int
) -> None:
    """Llama files have the rows of a head in another order: a panel reads rows all over it, whoever packs it."""
    base = make("llama", "F32", dim=dim, n_heads=heads, n_kv_heads=kv, head_dim=head_dim, n_layers=1)
    change = adapter(base, tmp_path / "a.gguf", rank=rank)
    mapped = logits(base, change, backend="c", threads=2, repack=False)
    for threads in (1, 2, 3):
        for one, exact in zip(logits(base, change, backend="c", threads=threads), mapped, strict=True):
            np.testing.assert_allclose(one, exact, atol=1e-4)


def test_its_chat_template_is_learned(make: Make, tmp_path: Path, backend: Literal["c", "numpy"]) -> None:
    base = make()
    change = adapter(base, tmp_path / "a.gguf", chat_template="{{ messages[0]['content'] }}!")
    with Engine(base, adapter=change, backend=backend) as engine:
        assert ChatTemplate.of(engine).text([{"role": "user", "content": "once"}]) == "once!"
    merge(base, change, tmp_path / "m.gguf")
    with Parameters.open(tmp_path / "m.gguf") as file, Parameters.open(base) as before:
        assert file.vocabulary.chat_template == "{{ messages[0]['content'] }}!"
        assert file.provenance.stages[-1] == "merge F32"
        assert file.provenance.parent == before.sha256()


def test_what_does_not_fit(make: Make, tmp_path: Path, backend: Literal["c", "numpy"]) -> None:
    base, other = make(), make("llama", "F32")
    good = adapter(base, tmp_path / "a.gguf")
    held = Adapter.open(good)

    def refused(words: str, path: Path = base, **changes: Any) -> None:
        bad = tmp_path / "bad.gguf"
        Adapter(**{**vars(held), "path": "", **changes}).write(bad)
        with pytest.raises(ParametersError, match=words):
            Engine(path, adapter=bad, backend=backend)

    a, b = held.pairs["blk.0.attn_q.weight"]
    refused("architecture qwen3", other)
    refused(r"changes blk\.0\.attn_q|no change of a matrix", pairs={"blk.0.attn_q.weight": (a[:, :-1], b)})
    refused(r"changes blk\.0\.attn_q|no change of a matrix", pairs={"blk.0.attn_q.weight": (a, b[:-1])})
    refused("no (change of a )?matrix", pairs={"blk.9.attn_q.weight": (a, b)})
    refused("no (change of a )?matrix", pairs={"token_embd.weight": (a, b)})
    with pytest.raises(ParametersError, match="is not an adapter"):
        Engine(base, adapter=base, backend=backend)
    with pytest.raises(ParametersError, match="is an adapter"):
        Engine(good, backend=backend)
    with pytest.raises(NotFoundError, match="no adapter"):
        Engine(base, adapter=tmp_path / "nothing.gguf", backend=backend)
    cut = good.read_bytes()[:-64]
    (tmp_path / "cut.gguf").write_bytes(cut)
    with pytest.raises(ParametersError):
        Engine(base, adapter=tmp_path / "cut.gguf", backend=backend)


def test_merged_on_another_file(make: Make, tmp_path: Path) -> None:
    change = adapter(make(), tmp_path / "a.gguf")
    with pytest.warns(UserWarning, match="another file"):
        merge(make("qwen3", "BF16"), change, tmp_path / "m.gguf")
    with Parameters.open(tmp_path / "m.gguf") as file:
        assert file.tensors["blk.0.attn_q.weight"].type == "BF16"


def test_commands(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, change, merged = make(), tmp_path / "a.gguf", tmp_path / "m.gguf"
    adapter(base, change)
    assert call("show", str(change)) == 0
    assert "low-rank changes (LoRA) to 14 matrices of a qwen3 model" in capsys.readouterr().out
    assert call("merge", str(base), str(change), "--out", str(merged)) == 0
    said = {}
    for name, more in (
        ("both", [str(base), "--adapter", str(change)]),
        ("merged", [str(merged)]),
        ("base", [str(base)]),
    ):
        capsys.readouterr()
        assert call("run", *more, "once upon", "--temperature", "0", "-n", "20") == 0
        said[name] = capsys.readouterr().out
    assert said["both"] == said["merged"] != said["base"]
    assert call("chat", str(change)) == 1
    assert "is an adapter" in capsys.readouterr().err
