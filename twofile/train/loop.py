"""The loop that trains every stage: a `Stage` supplies batches and a loss, the loop does the rest.

Muon on the hidden matrices and AdamW on embeddings and norms; warm-up, stable, decay; gradient clipping; validation, a
log line a step, checkpoints, resume. Guarantees: with a budget of steps, a run that was stopped and resumed gives the
same weights bit for bit (a budget of minutes follows the clock, so it does not); Ctrl-C ends the step, saves and
leaves. Under `torchrun` every process takes its share of a step's micro-batches and the gradients are averaged: the
same steps, faster, and on cores shared with other programs steadier than threads. Cost: weights, gradients and about
two more copies of the weights in float32 in each process, and what `loss` keeps.

Sources: Muon, K. Jordan 2024 and arXiv:2502.16982; the schedule, arXiv:2404.06395 and arXiv:2405.18392.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from twofile.errors import TrainError
from twofile.train import checkpoint

__all__ = ["Plan", "Result", "Stage", "train"]


class Stage(Protocol):
    """What a stage of training brings: batches, and what is wanted of the model on them."""

    name: str

    def batch(self, step: int) -> list[Tensor]:
        """The micro-batches of a step: a function of the step alone, so that a run can be resumed."""

    def loss(self, model: nn.Module, micro: Tensor) -> Tensor:
        """The mean loss of a micro-batch, a scalar in float32."""

    def tokens(self, step: int) -> int:
        """How many tokens the model learns from in this step."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out data; called under no_grad in evaluation mode."""


@dataclass(frozen=True)
class Plan:
    """How long to train and how fast to learn. `steps` or `minutes` ends the run; with both, whichever is first."""

    steps: int | None = None
    minutes: float | None = None
    warmup: int = 100  # steps
    decay: float = 0.3  # the share of the run at its end over which the rates fall to zero
    matrix_rate: float = 0.02  # Muon
    vector_rate: float = 0.003  # AdamW: embeddings, norms
    weight_decay: float = 0.05  # of the matrices
    clip: float = 1.0  # largest norm of the gradient
    bfloat16: bool = True
    compile: bool = True
    validate_every: int = 250
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise TrainError("a plan needs steps or minutes", "give --steps or --minutes")
        if not 0 <= self.decay <= 1:
            raise TrainError(f"decay is {self.decay}: a share between 0 and 1")

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run lies behind, 1 at its end."""
        of_steps = step / self.steps if self.steps is not None else 0.0
        of_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        return max(of_steps, of_time)

    def rate(self, step: int, progress: float) -> float:
        """What the learning rates are multiplied with: up over `warmup` steps, level, then straight down to zero."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        return min(up, (1 - progress) / self.decay if self.decay else 1.0)


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    step: int
    tokens: int
    seconds: float
    finished: bool  # False: interrupted
    validation: dict[str, float]


def _optimisers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    hidden: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        ends = name.startswith(("token_embd", "output"))
        (others if ends or weight.ndim != 2 else hidden).append(weight)
    return [
        torch.optim.Muon(hidden, lr=plan.matrix_rate, weight_decay=plan.weight_decay, momentum=0.95),
        torch.optim.AdamW(others, lr=plan.vector_rate, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0),
    ]


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event; a second one interrupts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, old[number])

    try:
        for number in old:
            signal.signal(number, note)
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _processes() -> tuple[int, int]:
    """Which process this is, of how many."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _agree(*values: float) -> list[float]:
    """The largest of each value over all processes, so that all take the same turn."""
    if not dist.is_initialized():
        return list(values)
    all_values = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(all_values, dist.ReduceOp.MAX)
    return all_values.tolist()


def _average(model: nn.Module, loss: float) -> float:
    """Average the gradients, in place, and the loss over all processes."""
    if not dist.is_initialized():
        return loss
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([loss])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat[:-1], [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return float(flat[-1])


class _Report:
    """A progress bar on a terminal, a line now and then elsewhere, and every step in `log.jsonl`."""

    def __init__(self, run: Path, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn(name), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self.bar = Progress(*columns, console=console)
        self.first = _processes()[0] == 0
        self.live = console.is_terminal and self.first
        self.task = self.bar.add_task("", total=1.0)
        self.log = (run / "log.jsonl" if self.first else Path(os.devnull)).open("a", encoding="utf-8")

    def __enter__(self) -> _Report:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.bar.stop()
        self.log.close()

    def line(self, values: dict[str, Any], progress: float, *, show: bool) -> None:
        self.log.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}) + "\n")
        self.log.flush()
        text = " ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        if self.live:
            self.bar.update(self.task, completed=min(1.0, progress), description=text)
        elif show and self.first:
            print(f"{progress:6.1%} {text}", file=sys.stderr, flush=True)


def train(model: nn.Module, stage: Stage, plan: Plan, run: Path) -> Result:
    """Train `model` in place, from the newest checkpoint in the folder `run` where there is one; logs and saves there.

    Raises TrainError when the loss or the gradient is not a finite number, or `run` holds another model."""
    run.mkdir(parents=True, exist_ok=True)
    if len(stage.batch(0)) % _processes()[1]:
        raise TrainError(f"{len(stage.batch(0))} micro-batches a step cannot be shared by {_processes()[1]} processes")
    optimisers = _optimisers(model, plan)
    step, tokens, before = 0, 0, 0.0
    if (found := checkpoint.latest(run)) is not None:
        state = checkpoint.load(found, model)
        step, tokens, before = state["step"], state["tokens"], state["seconds"]
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
    rank, processes = _processes()
    base = (plan.matrix_rate, plan.vector_rate)
    validation: dict[str, float] = {}
    begun = saved_at = time.monotonic()

    def save() -> None:
        if rank > 0:
            return
        seconds = before + time.monotonic() - begun
        states = [optimiser.state_dict() for optimiser in optimisers]
        checkpoint.save(run, step, model, {"tokens": tokens, "seconds": seconds, "optimisers": states})

    with _interruptible() as interrupted, _Report(run, stage.name) as report:
        model.train()
        while True:
            seconds = before + time.monotonic() - begun
            progress, stop = _agree(plan.progress(step, seconds), float(interrupted.is_set()))
            if progress >= 1 or stop:
                break
            rate = plan.rate(step, progress)
            for optimiser, lr in zip(optimisers, base, strict=True):
                optimiser.param_groups[0]["lr"] = lr * rate
            micros = stage.batch(step)[rank::processes]
            loss = 0.0
            for micro in micros:
                part = stage.loss(model, micro) / len(micros)
                part.backward()  # type: ignore[no-untyped-call]
                loss += part.item()
            loss = _average(model, loss)
            norm = float(nn.utils.clip_grad_norm_(model.parameters(), plan.clip))
            if not (abs(loss) < float("inf") and norm < float("inf")):
                hint = "lower the learning rates in the recipe"
                raise TrainError(f"step {step}: loss {loss}, gradient norm {norm}", hint)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            tokens += stage.tokens(step)
            step += 1
            values = {"step": step, "loss": loss, "norm": norm, "rate": rate, "tokens": tokens, "seconds": seconds}
            if step % plan.validate_every == 0 and rank == 0:
                validation = _validate(model, stage)
            report.line(values | (validation if step % plan.validate_every == 0 else {}), progress, show=step % 20 == 0)
            if time.monotonic() - saved_at > 60 * plan.save_minutes:
                save()
                saved_at = time.monotonic()
        finished = progress >= 1
        save()
        if finished:
            validation = _validate(model, stage)
            report.line({"step": step, "tokens": tokens, "finished": True} | validation, 1.0, show=True)
    return Result(step, tokens, before + time.monotonic() - begun, finished, validation)


def _validate(model: nn.Module, stage: Stage) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        figures = stage.validate(model)
    model.train()
    return figures
