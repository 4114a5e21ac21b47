"""The loop: the schedule, a loss that falls, resume bit for bit, an interrupt, several processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.train.tiny import recipe, write_corpus
from twofile.errors import TrainError
from twofile.train import checkpoint
from twofile.train.loop import Plan, train
from twofile.train.pretrain import pretrain

ROOT = Path(__file__).resolve().parents[2]


class Line:
    """A stage of three lines: fit y = 2 x through a matrix; `when(step)` is called before each batch."""

    name = "line"

    def __init__(self, when=lambda step: None) -> None:
        self.when = when

    def batch(self, step: int) -> list[Tensor]:
        self.when(step)
        return list(torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).split(4))

    def loss(self, model: nn.Module, micro: Tensor) -> Tensor:
        return (model(micro) - 2 * micro).square().mean()

    def tokens(self, step: int) -> int:
        return 8

    def validate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        return {"error": float((model.weight - 2 * torch.eye(4)).abs().max())}


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
    assert [line["step"] for line in lines] == [*range(1, 301), 300]
    assert set(lines[99]) >= {"loss", "norm", "rate", "tokens", "seconds", "error"}


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
    from twofile.train.pretrain import Pretraining, prepare

    run, what = tmp_path / "parts", recipe(steps=30)
    vocabulary = prepare(what, tmp_path, run, lambda _: None)
    stage = Pretraining(what, vocabulary, run)
    plain = stage.batch
    stage.batch = lambda step: (stop(step), plain(step))[1]  # type: ignore[method-assign]
    torch.manual_seed(what.seed)
    first = train(Transformer(what.hyper), stage, what.plan, run)
    assert (first.step, first.finished) == (13, False)
    parts, _, second = pretrain(what, tmp_path, run, lambda _: None)
    assert (second.step, second.finished) == (30, True)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name


def test_two_processes_are_one(tmp_path: Path) -> None:
    """The same steps under torchrun, up to the order of additions."""
    write_corpus(tmp_path)
    (tmp_path / "run.py").write_text(
        "import sys, torch, torch.distributed as dist\nfrom pathlib import Path\n"
        "from tests.train.tiny import recipe\nfrom twofile.train.pretrain import pretrain\n"
        "dist.init_process_group('gloo')\n"
        "pretrain(recipe(steps=5), Path(sys.argv[1]), Path(sys.argv[1]) / 'two', lambda _: None)\n"
        "dist.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "run.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    one = pretrain(recipe(steps=5), tmp_path, tmp_path / "one", lambda _: None)[0]
    two = pretrain(recipe(steps=5), tmp_path, tmp_path / "two", lambda _: None)[0]  # reads the last checkpoint
    for name, weight in one.state_dict().items():
        assert torch.allclose(weight, two.state_dict()[name], atol=2e-3), name


def test_a_loss_that_is_no_number_is_named(tmp_path: Path) -> None:
    stage = Line()
    stage.loss = lambda model, micro: model(micro).mean() * float("nan")  # type: ignore[method-assign]
    with pytest.raises(TrainError, match="step 0: loss nan"):
        train(line_model(), stage, Plan(steps=3), tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(line_model(), Line(), Plan(steps=1), tmp_path)
    with pytest.raises(TrainError, match="checkpoint"):
        train(nn.Linear(4, 5), Line(), Plan(steps=1), tmp_path)


def test_checkpoints_are_whole_and_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = line_model()
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, model, {})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000002", "00000003"]

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(TrainError, match="No space left"):
        checkpoint.save(tmp_path, 4, model, {})
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "00000003"
