"""`twofile merge`: a model with an adapter's changes in it."""

from __future__ import annotations

import shlex
import sys

import click

from twofile.cli.console import note, progress, size
from twofile.cli.options import file_type, find, force_option, output


@click.command("merge")
@click.argument("name")
@click.argument("adapter")
@click.option("--out", required=True, help="What to make: a name, or a path that ends in .gguf.")
@click.option("--type", "kind", help="The type of the matrices in OUT. [as in NAME]")
@force_option
def merge_command(name: str, adapter: str, out: str, kind: str | None, force: bool) -> None:
    """Write the model NAME with the low-rank changes of ADAPTER (`twofile tune --lora`) in it.

    In a small type some of a small change is lost; --adapter, which runs both, loses nothing.
    """
    from twofile.params.adapter import merge

    type = file_type(kind) if kind else ""
    base, changes, target = find(name), find(adapter), output(out, force)
    command = shlex.join(["twofile", *sys.argv[1:]])
    with progress(f"{base.name} with {changes.name}") as report:
        merge(base, changes, target, type=type, name=target.stem, command=command, progress=report)
    click.echo(target)
    note(size(target.stat().st_size))
