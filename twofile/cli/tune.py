"""`twofile tune`: a parameters file and conversations in, a model that answers as they do out."""

from __future__ import annotations

from pathlib import Path

import click

from twofile.cli.console import note, plain
from twofile.cli.options import training_libraries
from twofile.cli.tuning import Asked, files, tuning_options


@click.command("tune")
@click.argument("name")
@click.argument("conversations", nargs=-1, required=True, type=files)
@tuning_options(batch=16, matrix_rate=0.004, vector_rate=0.001)
@click.option("--show", type=click.IntRange(1), help="Show what is learned of the first so many, and stop.")
def tune_command(asked: Asked, conversations: tuple[Path, ...], show: int | None) -> None:
    """Teach the model NAME to answer as the assistant does in CONVERSATIONS: JSON lines, plain, .gz or .xz.

    A line has messages (role and content), or is in the form of ShareGPT, Alpaca, or prompt and completion. A model
    without a chat template learns ChatML. Ctrl-C saves and stops; the same call with --resume goes on.
    """
    with training_libraries():
        from twofile.train.tune.finetune import fine_tune
        from twofile.train.tune.look import learned_of
    if show is not None:
        for parts in learned_of(asked.base, conversations, show):
            styled = (click.style(plain(text), **({"fg": "green"} if said else {"dim": True})) for text, said in parts)
            click.echo("".join(styled) + "\n")
        return
    asked.finish(fine_tune(asked.settings("sft", conversations), asked.run, note))
