"""Fine-tuning: weights by token, whatever the packing; exact resume; a model that has learned to answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.test_main import call
from tests.tiny import tiny_parameters
from tests.train.tiny import kill_at_checkpoint, random_model, resumed
from twofile.engine.engine import Engine
from twofile.engine.generate import generate
from twofile.engine.sampler import Sampling
from twofile.engine.template import ChatTemplate
from twofile.errors import TrainError
from twofile.params.adapter import Adapter
from twofile.params.parameters import Parameters
from twofile.train.loop import Plan
from twofile.train.start import Start
from twofile.train.tune.examples import Example
from twofile.train.tune.finetune import Tuned, fine_tune
from twofile.train.tune.settings import Settings
from twofile.train.tune.sft import FineTuning

QUESTIONS = ("once upon", "the little girl", "and he was", "time on")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_parameters("qwen3", "F32", 1, tmp_path / "base.gguf")


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    rows = [{"prompt": f"{q} {i}", "completion": "a little day"} for i in range(20) for q in QUESTIONS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(base: Path, talks: Path, **changes: Any) -> Settings:
    steps = changes.pop("steps", 40)
    plan = Plan(
        steps=steps, warmup=3, decay=0.5, matrix_rate=0.02, vector_rate=0.01, bfloat16=False, compile=False,
        validate_every=10,
    )  # fmt: skip
    return Settings("sft", base, (talks,), plan, **({"context": 64, "batch": 8, "micro": 4} | changes))


def tuned(base: Path, talks: Path, run: Path, **changes: Any) -> Tuned:
    return fine_tune(settings(base, talks, **changes), run, lambda _: None)


def test_a_token_weighs_the_same_whatever_the_packing(base: Path, talks: Path) -> None:
    draw, start = np.random.default_rng(1), Start.open(base)
    model = random_model(vocab_size=start.hyper.vocab_size, context_length=64).requires_grad_(True)
    made = []
    for size in draw.integers(4, 30, 12):
        made.append(Example(draw.integers(0, 256, size), (draw.random(size) < 0.4) & (np.arange(size) > 0)))
        made[-1].supervised[-1] = True

    def gradient(context: int, batch: int, micro: int) -> dict[str, torch.Tensor]:
        stage = FineTuning(settings(base, talks, context=context, batch=batch, micro=micro), start.vocabulary, made, [])
        assert stage.rows.steps == 1
        assert stage.tokens(0) == sum(int(one.supervised.sum()) for one in made)
        model.zero_grad()
        micros = stage.batch(0)
        for part in micros:
            (stage.loss(model, part) / len(micros)).backward()  # type: ignore[no-untyped-call]
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    counts = {context: _rows(base, talks, made, context) for context in (32, 48, 63)}
    assert len(set(counts.values())) > 1
    found = [gradient(context, rows, micro) for context, rows in counts.items() for micro in (rows, 1)]
    for other in found[1:]:
        for name, weight in found[0].items():
            assert torch.allclose(weight, other[name], atol=1e-6), name


def _rows(base: Path, talks: Path, made: list[Example], context: int) -> int:
    """How many rows one epoch makes, so that a batch is just that."""
    one = settings(base, talks, context=context, batch=1, micro=1)
    return FineTuning(one, Start.open(base).vocabulary, made, []).rows.steps


def test_learns_to_answer(base: Path, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    options = ["--steps", "60", "--context", "64", "--batch", "8", "--micro", "4", "--matrix-rate", "0.02"]
    options += ["--vector-rate", "0.01", "--type", "F32", "--run", str(tmp_path / "run")]
    assert call("tune", str(base), str(talks), "--out", str(out), *options) == 0
    printed, told = capsys.readouterr()
    assert printed.strip() == str(out)
    assert "80 conversations, 80 examples" in told
    with Engine(out) as engine:
        prompt = ChatTemplate.of(engine).render([{"role": "user", "content": "the little girl 99"}])
        said = "".join(piece.text for piece in generate(engine.session(), prompt, Sampling(temperature=0)))
    assert said == "a little day"
    with Parameters.open(out) as file, Parameters.open(base) as before:
        assert file.provenance.stages[-1] == "sft 60 steps"
        assert file.provenance.parent == before.sha256()
    assert call("tune", str(base), str(talks), "--out", str(tmp_path / "b.gguf"), *options) == 1
    assert "earlier run" in capsys.readouterr().err


def test_low_rank_changes(base: Path, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They learn what all weights learn; the adapter beside its base, and merged, say what the trainer says."""
    options = ["--steps", "80", "--context", "64", "--batch", "8", "--micro", "4", "--lora", "8"]
    options += ["--vector-rate", "0.02", "--type", "F32"]
    adapter, merged = tmp_path / "adapter.gguf", tmp_path / "merged.gguf"
    assert call("tune", str(base), str(talks), "--out", str(adapter), "--run", str(tmp_path / "a"), *options) == 0
    more = ["--out", str(merged), "--run", str(tmp_path / "b"), "--merge"]
    assert call("tune", str(base), str(talks), *more, *options) == 0
    assert adapter.stat().st_size < base.stat().st_size / 3
    (saved,) = (tmp_path / "a" / "checkpoints").glob("*80")
    assert sum(file.stat().st_size for file in saved.iterdir()) < base.stat().st_size  # three of the thin ones
    said = []
    for path, change in ((base, adapter), (merged, None)):
        with Engine(path, adapter=change) as engine:
            prompt = ChatTemplate.of(engine).render([{"role": "user", "content": "the little girl 99"}])
            said.append("".join(piece.text for piece in generate(engine.session(), prompt, Sampling(temperature=0))))
    assert said == ["a little day", "a little day"]
    with Parameters.open(base) as before:
        held = Adapter.open(adapter)
        assert (held.provenance.parent, held.provenance.stages[-1]) == (before.sha256(), "sft 80 steps")
    capsys.readouterr()
    assert call("tune", str(base), str(talks), "--out", str(tmp_path / "c.gguf"), "--lora", "999", "--steps", "1") == 1
    assert "ranks up to" in capsys.readouterr().err


def test_low_rank_changes_killed_and_resumed(base: Path, talks: Path, tmp_path: Path) -> None:
    low = {"options": {"lora": 4}}
    whole, run = tuned(base, talks, tmp_path / "whole", **low), tmp_path / "killed"
    code = (
        "from pathlib import Path; from tests.train.tune.test_finetune import tuned;"
        f"tuned(Path({str(base)!r}), Path({str(talks)!r}), Path({str(run)!r}), **{low!r})"
    )
    killed = kill_at_checkpoint(code, run)
    last = tuned(base, talks, run, **low)
    assert resumed(run) == [killed]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, last.model.state_dict()[name]), name
    unchanged = Start.open(base).model().state_dict()
    assert all(torch.equal(weight, unchanged[n]) for n, weight in last.model.state_dict().items() if n in unchanged)


def test_shows_what_is_learned(base: Path, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("tune", str(base), str(talks), "--out", str(tmp_path / "a.gguf"), "--show", "2") == 0
    shown = capsys.readouterr().out
    assert shown.count("a little day<|im_end|>") == 2
    assert "once upon 0<|im_end|>" in shown
    assert not (tmp_path / "a.gguf").exists()


def test_killed_and_resumed_is_the_same(base: Path, talks: Path, tmp_path: Path) -> None:
    whole = tuned(base, talks, tmp_path / "whole")
    run = tmp_path / "killed"
    code = (
        "from pathlib import Path; from tests.train.tune.test_finetune import tuned;"
        f"tuned(Path({str(base)!r}), Path({str(talks)!r}), Path({str(run)!r}))"
    )
    first = kill_at_checkpoint(code, run)
    second = kill_at_checkpoint(code, run, after=first)
    last = tuned(base, talks, run)
    assert last.result.finished
    assert resumed(run) == [first, second]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, last.model.state_dict()[name]), name
    assert whole.result.validation == last.result.validation


@pytest.mark.parametrize("context", [64, 128, 256, 512])
def test_conversations_longer_than_the_context(tmp_path: Path, context: int) -> None:
    base = tiny_parameters("qwen3", "F32", 1, tmp_path / "base.gguf", context_length=512)
    path = tmp_path / "long.jsonl"
    roles = ("user", "assistant") * 60
    rows = [[{"role": r, "content": f"the day {i} was on time"} for r in roles] for i in range(12)]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    found = tuned(base, path, tmp_path / "run", context=context, steps=4)
    assert found.counts.cut == 12
    assert found.result.finished
    assert all(np.isfinite(value) for value in found.result.validation.values())


def test_what_cannot_be(base: Path, talks: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="more than the"):
        tuned(base, talks, tmp_path / "a", context=4096)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(TrainError, match="nothing to learn from"):
        tuned(base, empty, tmp_path / "b")
    tuned(base, talks, tmp_path / "c", steps=2)
    talks.write_text(talks.read_text() + '{"prompt": "once", "completion": "more"}\n')
    with pytest.raises(TrainError, match="another file now"):
        tuned(base, talks, tmp_path / "c", steps=4)
