"""What the commands have in common that train a model further: `tune`, `reward`, `prefer` and `reinforce`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from twofile.cli.console import note
from twofile.cli.options import file_type, find, force_option, output, resume_option, run_folder, run_option
from twofile.errors import TrainError

if TYPE_CHECKING:
    from twofile.train.tune.settings import Settings

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

_WHOLE, _RATE = click.IntRange(1), click.FloatRange(0, min_open=True)
files = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Asked:
    """What the options say, and the model that they are said of."""

    base: Path
    target: Path
    run: Path
    type: str
    numbers: Mapping[str, Any]

    def settings(
        self,
        stage: str,
        data: tuple[Path, ...],
        options: Mapping[str, Any] | None = None,
        others: Mapping[str, Path] | None = None,
    ) -> Settings:
        """The settings of a stage."""
        from twofile.params.parameters import Parameters
        from twofile.train.loop import Plan
        from twofile.train.pretrain.calibrate import faster_in_bfloat16
        from twofile.train.tune.settings import Settings

        numbers = dict(self.numbers)
        steps, minutes, batch = numbers["steps"], numbers["minutes"], numbers["batch"]
        with Parameters.open(self.base) as file:
            context = numbers["context"] or min(1024, file.hyper.context_length)
        plan = Plan(
            steps=steps,
            minutes=minutes if minutes or steps else 10.0,
            warmup=10,
            decay=0.6,
            matrix_rate=numbers["matrix_rate"],
            vector_rate=numbers["vector_rate"],
            bfloat16=faster_in_bfloat16(),
            compile=numbers["compiled"],
            validate_every=numbers["validate_every"],
        )
        if numbers["lora"]:
            options = {**(options or {}), "lora": numbers["lora"], "alpha": numbers["alpha"]}
        return Settings(
            stage=stage,
            base=self.base,
            data=data,
            plan=plan,
            context=context,
            batch=batch,
            micro=numbers["micro"] or min(8, batch),
            seed=numbers["seed"],
            held_out=numbers["held_out"],
            options=options or {},
            others=others or {},
        )

    def finish(self, learned: Any, more: Mapping[str, Any] | None = None) -> None:
        """Write the file, and say how it went. `more`: metadata that no adapter can have."""
        from twofile.train.tune.export import export, export_adapter
        from twofile.train.tune.lora import is_adapted

        said = learned.model, learned.start, learned.vocabulary, self.run, self.target
        step, name, command = learned.result.step, self.target.stem, shlex.join(["twofile", *sys.argv[1:]])
        low = is_adapted(learned.model)  # as the run was begun, whatever is asked now
        if low and more is not None:
            note("a reward model has a head, which no adapter can hold: the whole model is written")
        if low and not self.numbers["merge"] and more is None:
            export_adapter(*said, step=step, name=name, command=command)
        else:
            export(*said, step=step, name=name, type=self.type, command=command, more=more)
        click.echo(self.target)
        for figure, value in learned.result.validation.items():
            note(f"{figure} {value:.3f}")
        if not learned.result.finished:
            note("stopped before the end; --resume goes on")


def tuning_options(batch: int, matrix_rate: float, vector_rate: float, validate_every: int = 100) -> Decorator:
    """Adds the argument NAME and the options, with these numbers where nothing is said, and gives the command as
    `asked` what they say. The command's first parameter is then `asked`."""
    numbers: list[tuple[str, Any, Any, str]] = [
        ("--steps", _WHOLE, None, "Train so many steps."),
        ("--minutes", _RATE, None, "Train so long. [10, without --steps]"),
        ("--context", click.IntRange(16), None, "Tokens of a row. [the model's, at most 1024]"),
        ("--batch", _WHOLE, batch, f"What a step learns from. [{batch}]"),
        ("--micro", _WHOLE, None, "So many of them at a time; a batch is a multiple. [8, or the batch]"),
        ("--matrix-rate", _RATE, matrix_rate, f"Muon's rate. [{matrix_rate}]"),
        ("--vector-rate", _RATE, vector_rate, f"AdamW's rate. [{vector_rate}]"),
        ("--held-out", click.FloatRange(0, 0.9), 0.05, "Share to measure on. [0.05]"),
        ("--validate-every", _WHOLE, validate_every, f"Steps between measurements. [{validate_every}]"),
        ("--seed", click.IntRange(0), 0, "Of the order, and of what is drawn. [0]"),
        ("--lora", _WHOLE, None, "Learn low-rank changes of this rank alone; OUT is an adapter."),
        ("--alpha", _RATE, None, "How much such changes count. [twice their rank]"),
    ]
    names = [flag.removeprefix("--").replace("-", "_") for flag, *_ in numbers]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_asked(
            name: str,
            out: str,
            kind: str,
            run: Path | None,
            resume: bool,
            force: bool,
            compiled: bool,
            merge: bool,
            **values: Any,
        ) -> None:
            if int(os.environ.get("WORLD_SIZE", 1)) > 1:
                message = "under torchrun, every process would train the same model once"
                raise TrainError(message, "call it by itself: stages after pretraining run in one process")
            chosen = {key: values.pop(key) for key in names} | {"compiled": compiled, "merge": merge}
            if not chosen["lora"] and (merge or chosen["alpha"]):
                note("--alpha and --merge are ignored: they are for --lora")
            source = click.get_current_context().get_parameter_source
            if chosen["lora"] and source("matrix_rate") != ParameterSource.DEFAULT:
                note("--matrix-rate is ignored: low-rank changes learn at --vector-rate")
            if chosen["lora"] and not merge and source("kind") != ParameterSource.DEFAULT:
                note("--type is ignored: an adapter is F32")
            type, base, target = file_type(kind), find(name), output(out, force or resume)
            asked = Asked(base, target, run_folder(run, target, resume), type, chosen)
            note(f"logs and checkpoints in {asked.run}")
            command(asked, **values)

        decorated: Any = force_option(with_asked)
        decorated = resume_option(run_option(decorated))
        decorated = click.option("--type", "kind", default="Q8_0", help="The type of the matrices in OUT. [Q8_0]")(
            decorated
        )
        decorated = click.option("--compile/--no-compile", "compiled", default=False, help="Use torch.compile.")(
            decorated
        )
        decorated = click.option("--merge", is_flag=True, help="With --lora: OUT is the model with the changes in it.")(
            decorated
        )
        for flag, kind, default, help_text in reversed(numbers):
            decorated = click.option(flag, type=kind, default=default, help=help_text)(decorated)
        decorated = click.option("--out", required=True, help="What to make: a name, or a path that ends in .gguf.")(
            decorated
        )
        result: Callable[..., None] = decorated
        return result

    return decorate
