"""The loop: the schedule, a loss that falls, resume bit for bit, an interrupt, several processes."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.train.tiny import recipe, write_corpus
from twofile.errors import TrainError
from twofile.train.loop import Plan, train
from twofile.train.pretrain.stage import pretrain


class Line:
    """A stage of three lines: fit y = 2 x through a matrix; `when(step)` is called before each batch."""

    name = "line"
    micros = 2

    def __init__(self, when=lambda step: None) -> None:
        self.when = when

    def batch(self, step: int, rank: int = 0, size: int = 1) -> list[Tensor]:
        self.when(step)
        return list(torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).split(4))[rank::size]

    def loss(self, model: nn.Module, micro: Tensor) -> Tensor:
        return (model(micro) - 2 * micro).square().mean()

    def tokens(self, step: int) -> int:
        return 8

    def validate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        return {"error": float((model.weight - 2 * torch.eye(4)).abs().max())}

    def dream(self, model: nn.Module) -> str:
        return ""


def line_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 4, bias=True)


def test_schedule() -> None:
    plan = Plan(steps=100, warmup=10, decay=0.2)
    rates = [plan.rate(step, plan.progress(step, 0)) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10:80] == pytest.approx([1.0] * 70)
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)
    assert Plan(minutes=2).progress(1000, 60) == 0.5
    assert Plan(minutes=2, steps=10).progress(9, 60) == 0.9
    with pytest.raises(TrainError, match="steps or minutes"):
        Plan()


def test_it_learns_and_logs(tmp_path: Path) -> None:
    model = line_model()
    result = train(model, Line(), Plan(steps=300, warmup=5, validate_every=100), tmp_path)
    assert (result.step, result.tokens, result.finished) == (300, 2400, True)
    assert result.validation["error"] < 0.02
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "event" not in line]
    assert [line["step"] for line in steps] == [*range(1, 301), 300]
    assert set(steps[99]) >= {"loss", "norm", "rate", "tokens", "seconds", "error"}


def test_tiny_language_model_learns(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    _, vocabulary, result = pretrain(recipe(steps=150), tmp_path, tmp_path / "run", lambda _: None)
    assert result.validation["bpb_stories"] < 0.6  # five bits of choice in forty bytes; untrained it is 2.9
    assert len(vocabulary.tokens) == 288


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    whole = pretrain(recipe(steps=30), tmp_path, tmp_path / "whole", lambda _: None)[0]

    def stop(step: int) -> None:
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    from twofile.train.model import Transformer
    from twofile.train.pretrain.prepare import prepare
    from twofile.train.pretrain.stage import Pretraining

    run, what = tmp_path / "parts", recipe(steps=30)
    vocabulary = prepare(what, tmp_path, run, lambda _: None)
    stage = Pretraining(what, vocabulary, run)
    plain = stage.batch
    stage.batch = lambda step, *at: (stop(step), plain(step, *at))[1]  # type: ignore[method-assign]
    torch.manual_seed(what.seed)
    first = train(Transformer(what.hyper), stage, what.plan, run)
    assert (first.step, first.finished) == (13, False)
    parts, _, second = pretrain(what, tmp_path, run, lambda _: None)
    assert (second.step, second.finished) == (30, True)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name


def test_a_loss_that_is_no_number_is_named(tmp_path: Path) -> None:
    stage = Line()
    stage.loss = lambda model, micro: model(micro).mean() * float("nan")  # type: ignore[method-assign]
    with pytest.raises(TrainError, match="step 0: loss nan"):
        train(line_model(), stage, Plan(steps=3), tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(line_model(), Line(), Plan(steps=1), tmp_path)
    with pytest.raises(TrainError, match="checkpoint"):
        train(nn.Linear(4, 5), Line(), Plan(steps=2), tmp_path)
