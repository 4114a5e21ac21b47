"""`twofile quantise`: the same model in fewer bits."""

from __future__ import annotations

import click

from twofile.cli.console import note, progress, size
from twofile.cli.options import find, force_option, output


@click.command("quantise")
@click.argument("name")
@click.argument("kind", metavar="TYPE")
@click.option("--out", help="A path, or a local name. [NAME-TYPE]")
@force_option
def quantise_command(name: str, kind: str, out: str | None, force: bool) -> None:
    """Write the model NAME with its matrices in TYPE: F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, or Q4_K_M.

    Q8_0 is nearly without loss; Q4_K_M is about half of it and loses a little.
    """
    from twofile.params.quantise import FILE_TYPES, quantise

    kind = kind.upper()
    if kind not in FILE_TYPES:
        raise click.UsageError(f"there is no type {kind}; the types are {', '.join(FILE_TYPES)}")
    source = find(name)
    target = output(out or f"{source.stem}-{kind}", force)
    with progress(f"{source.name} to {kind}") as report:
        quantise(source, target, kind, report)
    before, after = (path.stat().st_size for path in (source, target))
    click.echo(target)
    note(f"{size(before)} became {size(after)}")
