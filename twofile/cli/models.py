"""`twofile list` and `twofile pull`: the models that are here, and how another comes."""

from __future__ import annotations

import sys
import time

import click

from twofile.cli.console import Progress, note, progress, size, table

_PAUSE = 1.0  # seconds between two lines of progress


def found() -> list[tuple[str, str, str]]:
    """Every model on this machine: its name, its size, and where it comes from."""
    from twofile.params import names

    return [
        (name, size(path.stat().st_size), where)
        for where, models in (("bundled", names.bundled()), ("local", names.local()), ("pulled", names.pulled()))
        for name, path in models.items()
    ]


@click.command("list")
def list_command() -> None:
    """List the models on this machine."""
    from twofile.params.names import models_folder

    rows = found()
    if rows:
        click.echo(table(rows, indent=""))
    else:
        note("there is no model yet: twofile train, twofile import or twofile pull makes one")
    note(f"local models are in {models_folder()}")


@click.command("pull")
@click.argument("name")
def pull_command(name: str) -> None:
    """Download the parameters file NAME, hf:user/repo[:file], from a hub.

    Goes on where an interrupted download stopped, and checks the file against the hub's checksum. Of several files
    in a repository the only Q4_K_M is taken, else the only Q8_0. HF_ENDPOINT names another hub.
    """
    from twofile.params.names import models_folder
    from twofile.params.pull import HubName, pull

    with progress(name) as bar:
        path = pull(HubName.parse(name), models_folder(), bar if sys.stderr.isatty() else _told())
    click.echo(path)


def _told() -> Progress:
    """Progress for who reads stderr from a file: a line now and then."""
    last = -_PAUSE

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            click.echo(f"{done:,} of {total:,} bytes", err=True)

    return tell
