"""`twofile tune`: a parameters file and conversations in, a model that answers as they do out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from twofile.cli.console import note
from twofile.cli.options import find, force_option, output
from twofile.errors import TrainError


@click.command("tune")
@click.argument("name")
@click.argument("conversations", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, help="What to make: a local name, or a path that ends in .gguf.")
@click.option("--steps", type=click.IntRange(1), help="Train so many steps.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Train so long. [10, without --steps]")
@click.option("--context", type=click.IntRange(16), help="Tokens of a row. [the model's, at most 1024]")
@click.option("--batch", type=click.IntRange(1), default=16, help="Rows a step. [16]")
@click.option("--micro", type=click.IntRange(1), help="Rows at a time; a batch is a multiple. [8, or the batch]")
@click.option("--matrix-rate", type=click.FloatRange(0, min_open=True), default=0.004, help="Muon's rate. [0.004]")
@click.option("--vector-rate", type=click.FloatRange(0, min_open=True), default=0.001, help="AdamW's rate. [0.001]")
@click.option("--held-out", type=click.FloatRange(0, 0.9), default=0.05, help="Share to measure on. [0.05]")
@click.option("--compile/--no-compile", "compiled", default=False, help="Use torch.compile.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the order of the conversations. [0]")
@click.option("--type", "kind", default="Q8_0", help="The type of the matrices in OUT. [Q8_0]")
@click.option("--run", type=click.Path(file_okay=False, path_type=Path), help="Folder for logs and checkpoints.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of an earlier run.")
@force_option
def tune_command(
    name: str,
    conversations: tuple[Path, ...],
    out: str,
    steps: int | None,
    minutes: float | None,
    context: int | None,
    batch: int,
    micro: int | None,
    matrix_rate: float,
    vector_rate: float,
    held_out: float,
    compiled: bool,
    seed: int,
    kind: str,
    run: Path | None,
    resume: bool,
    force: bool,
) -> None:
    """Teach the model NAME to answer as the assistant does in CONVERSATIONS: JSON lines, plain, .gz or .xz.

    A line has messages (role and content), or is in the form of ShareGPT, Alpaca, or prompt and completion. A model
    without a chat template learns ChatML. Ctrl-C saves and stops; the same call with --resume goes on.
    """
    try:
        from twofile.train.loop import Plan
        from twofile.train.pretrain.calibrate import faster_in_bfloat16
        from twofile.train.tune.export import export
        from twofile.train.tune.finetune import fine_tune
        from twofile.train.tune.settings import Settings
    except ModuleNotFoundError as error:
        missing = f"tuning needs {(error.name or str(error)).split('.')[0]}, which is not installed"
        raise TrainError(missing, "pip install 'twofile[train]'") from error
    from twofile.params.mixture import FILE_TYPES
    from twofile.params.names import models_folder
    from twofile.params.parameters import Parameters

    if (file_type := kind.upper()) not in FILE_TYPES:
        raise click.UsageError(f"there is no type {kind}; the types are {', '.join(FILE_TYPES)}")
    base, target = find(name), output(out, force or resume)
    folder = run or models_folder().parent / "runs" / target.stem
    there = (folder / "log.jsonl").exists()
    if resume and not there:
        raise TrainError(f"there is no run to go on with in {folder}", "leave --resume out")
    if there and not resume:
        raise TrainError(f"{folder} holds an earlier run", "--resume goes on with it; another --run or --out keeps it")
    with Parameters.open(base) as file:
        context = context or min(1024, file.hyper.context_length)
    plan = Plan(
        steps=steps,
        minutes=minutes if minutes or steps else 10.0,
        warmup=10,
        decay=0.6,
        matrix_rate=matrix_rate,
        vector_rate=vector_rate,
        bfloat16=faster_in_bfloat16(),
        compile=compiled,
        validate_every=100,
    )
    settings = Settings(
        stage="sft",
        base=base,
        data=conversations,
        plan=plan,
        context=context,
        batch=batch,
        micro=micro or min(8, batch),
        seed=seed,
        held_out=held_out,
    )
    note(f"logs and checkpoints in {folder}")
    tuned = fine_tune(settings, folder, note)
    command = shlex.join(["twofile", *sys.argv[1:]])
    export(tuned.model, tuned.start, tuned.vocabulary, folder, target, step=tuned.result.step, name=target.stem,
           type=file_type, command=command)  # fmt: skip
    click.echo(target)
    for figure, value in tuned.result.validation.items():
        note(f"{figure} {value:.3f}")
    if not tuned.result.finished:
        note("stopped before the end; --resume goes on")
