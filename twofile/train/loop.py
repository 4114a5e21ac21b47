"""The loop that trains every stage: a `Stage` supplies batches and a loss, the loop does the rest.

Warm-up, stable, decay; gradients accumulated over micro-batches and clipped; validation, dreams, a log line a step,
checkpoints, resume. Guarantees: with a budget of steps, one process on a CPU that was killed and resumed ends with the
same checkpoint byte for byte (a budget of minutes follows the clock, so it does not); Ctrl-C ends the step, saves and
leaves. Under `torchrun` every process takes its share of a step's micro-batches: the same steps, faster. Cost:
16 bytes a parameter, over all processes when sharded, and what `loss` keeps of one micro-batch.

Source of the schedule: arXiv:2404.06395, arXiv:2405.18392.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from twofile.errors import TrainError
from twofile.train import checkpoint, parallel
from twofile.train.history import last_with
from twofile.train.optimisers import Optimisers
from twofile.train.parallel import World
from twofile.train.watch import Watch

__all__ = ["Plan", "Result", "Stage", "train"]


Micro = TypeVar("Micro")  # what a micro-batch is: it moves to a device by `.to`, as tensors do


class Stage(Protocol[Micro]):
    """What a stage of training brings: batches, and what is wanted of the model on them."""

    name: str
    micros: int  # micro-batches of a step, over all processes

    def batch(self, step: int, rank: int = 0, size: int = 1) -> list[Micro]:
        """The micro-batches of a step, of which every `size`-th from `rank` on: a function of the step alone, whatever
        the number of processes, so that a run can be resumed."""

    def loss(self, model: nn.Module, micro: Micro) -> Tensor:
        """The mean loss of a micro-batch, a scalar in float32."""

    def tokens(self, step: int) -> int:
        """How many tokens the model learns from in this step."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out data, the first of which says which checkpoint is the best: the lowest. Called by all
        processes under no_grad in evaluation mode; all give the same figures."""

    def dream(self, model: nn.Module) -> str:
        """Something that the model makes up, to be shown; "" where there is nothing to show. Called as `validate`."""


@runtime_checkable
class Stateful(Protocol):
    """A stage with a state of its own, such as replies of the model that it learns from for some steps."""

    def tensors(self) -> dict[str, Tensor]:
        """What a run needs to go on, beside the model: the tensors themselves, by name."""

    def figures(self) -> dict[str, float]:
        """What is to be logged with each step."""


@runtime_checkable
class Compilable(Protocol):
    """A model that knows which of its parts to compile, before it is spread over processes."""

    def compile_parts(self) -> None: ...


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
    layout: parallel.Layout = "auto"
    validate_every: int = 250
    save_minutes: float = 5.0
    keep: int = 2  # checkpoints, beside the best
    dream_minutes: float = 5.0
    track: str = ""  # "wandb" or "trackio": what is logged goes there as well

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise TrainError("a plan needs steps or minutes", "give --steps or --minutes")
        if not 0 <= self.decay <= 1:
            raise TrainError(f"decay is {self.decay}: a share between 0 and 1")
        for name in ("steps", "validate_every", "keep"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise TrainError(f"{name} is {value}: it must be 1 or more")

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


def _seconds(run: Path, step: int) -> float:
    """How long a run had trained at a step, from its log: a checkpoint has no clock, for its bytes are the state's."""
    found = last_with(run, lambda line: line.get("step") == step and "seconds" in line)
    return float(found["seconds"]) if found else 0.0


class _Run:
    """A run under way: what is counted, and the turns that come now and then."""

    def __init__(self, model: nn.Module, stage: Stage[Any], plan: Plan, run: Path, watch: Watch, world: World) -> None:
        self.stage, self.plan, self.run, self.watch, self.world = stage, plan, run, watch, world
        self.plain = model
        if plan.compile and isinstance(model, Compilable):
            model.compile_parts()
        self.model = parallel.spread(model, getattr(model, "blk", None), world, plan.layout)
        self.optimisers = Optimisers(
            model.named_parameters(),
            matrix_rate=plan.matrix_rate,
            vector_rate=plan.vector_rate,
            weight_decay=plan.weight_decay,
            bfloat16=plan.bfloat16,
        )
        self.writer = checkpoint.Writer(run, keep=plan.keep)
        self.step, self.tokens, self.before = 0, 0, 0.0
        self.validation: dict[str, float] = {}
        self.tensors: dict[str, Tensor] = self.optimisers.state()
        learning = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
        self.tensors |= {f"model.{name}": weight for name, weight in learning}
        self.stateful = stage if isinstance(stage, Stateful) else None
        if self.stateful is not None:
            self.tensors |= self.stateful.tensors()
        if (found := checkpoint.newest(run, lambda text: watch.event("warning", text=text))) is not None:
            found.fill(self.tensors)
            found.set_random_state()
            self.step, self.tokens = found.step, found.values["tokens"]
            self.validation = found.values["figures"]
            self.before = _seconds(run, self.step)
            self.optimisers.resume(self.step)
            watch.event("resumed", step=self.step)
        self.begun = self.saved_at = self.dreamed_at = time.monotonic()
        self.saved = self.step if found else -1

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begun

    def advance(self, progress: float) -> None:
        """One step."""
        plan, stage = self.plan, self.stage
        rate = plan.rate(self.step, progress)
        micros = stage.batch(self.step, self.world.rank, self.world.size)
        losses = []
        for i, micro in enumerate(micros, 1):
            with parallel.accumulating(self.model, last=i == len(micros)):
                part = stage.loss(self.model, micro.to(self.world.device, non_blocking=True)) / len(micros)
                part.backward()  # type: ignore[no-untyped-call]
            losses.append(part.detach())
        norm = parallel.gradient_norm(self.plain, plan.clip)
        loss = self.world.sum(float(torch.stack(losses).sum()) / self.world.size)[0]
        if not (abs(loss) < float("inf") and norm < float("inf")):
            hint = "lower the learning rates in the recipe"
            raise TrainError(f"step {self.step}: loss {loss}, gradient norm {norm}", hint)
        self.optimisers.step(rate)
        self.tokens += stage.tokens(self.step)
        self.step += 1
        values = {"step": self.step, "loss": loss, "norm": norm, "rate": rate, "tokens": self.tokens}
        if self.stateful is not None:
            values |= self.stateful.figures()
        if self.step % plan.validate_every == 0:
            self.validation = self._look(stage.validate)
            values |= self.validation
        self.watch.step(values | {"seconds": self.seconds}, plan.progress(self.step, self.seconds))

    def now_and_then(self) -> None:
        """Save and dream, when it is time: all processes in the same step."""
        now = time.monotonic()
        save, dream = self.world.largest(
            float(now - self.saved_at > 60 * self.plan.save_minutes),
            float(now - self.dreamed_at > 60 * self.plan.dream_minutes),
        )
        if save or self.step % self.plan.validate_every == 0:
            with self.watch.pause():
                self.save()
        if dream:
            self.dreamed_at = now
            if text := self._look(self.stage.dream):
                self.watch.event("dream", step=self.step, text=text)

    def save(self) -> None:
        if self.saved == self.step:
            return
        figures = {"figures": self.validation, "validation": next(iter(self.validation.values()), None)}
        self.writer.save(self.step, self.tensors, {"tokens": self.tokens, **figures})
        self.saved, self.saved_at = self.step, time.monotonic()
        self.watch.event("saved", step=self.step)

    def finish(self) -> None:
        """The figures of the end, in the log and in the last checkpoint."""
        if self.step % self.plan.validate_every or not self.validation:
            self.validation = self._look(self.stage.validate)
        self.saved = -1  # even where this step is saved: with these figures it may be the best
        self.watch.step({"step": self.step, "tokens": self.tokens, "finished": True} | self.validation, 1.0)

    def _look(self, at: Any) -> Any:
        self.model.eval()
        with self.watch.pause(), torch.no_grad():
            found = at(self.model)
        self.model.train()
        return found


def train(
    model: nn.Module, stage: Stage[Any], plan: Plan, run: Path, *, peak: float = 0.0, flops: float = 0.0
) -> Result:
    """Train `model` in place, from the newest checkpoint in the folder `run` where there is one; logs and saves there.

    `peak` and `flops`: what the device can do in a second, and what a step costs, for the share that is shown.
    Raises TrainError when the loss or the gradient is not a finite number, or `run` holds another model."""
    run.mkdir(parents=True, exist_ok=True)
    world = World.here()
    if stage.micros % world.size:
        raise TrainError(f"{stage.micros} micro-batches a step cannot be shared by {world.size} processes")
    with (
        _interruptible() as interrupted,
        Watch(
            run,
            stage.name,
            plan=plan,
            peak=peak * world.size,
            flops_per_step=flops,
            processes=world.size,
            first=world.rank == 0,
        ) as watch,
    ):
        it = _Run(model, stage, plan, run, watch, world)
        model.train()
        try:
            while True:
                progress, stop = world.largest(plan.progress(it.step, it.seconds), float(interrupted.is_set()))
                if progress >= 1 or stop:
                    break
                it.advance(progress)
                it.now_and_then()
            finished = progress >= 1
            if finished:
                it.finish()
            it.save()
        finally:
            it.writer.wait()
    return Result(it.step, it.tokens, it.seconds, finished, it.validation)
