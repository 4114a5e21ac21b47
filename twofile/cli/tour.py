"""Bare `twofile`: what is here and what to type."""

from __future__ import annotations

import click

from twofile import __version__
from twofile.cli.console import table
from twofile.cli.models import found


def tour() -> None:
    """Print the models at hand and the first commands to try, with a name that works."""
    models = found()
    lines = [
        f"twofile {__version__}: a language model is two files, its parameters and the program that runs them.",
        "",
        "Models here:",
        table(models[:8]) if models else "  none yet",
        *([f"  and {len(models) - 8} more: twofile list"] if len(models) > 8 else []),
        "",
        "Type:",
    ]
    name = models[0][0] if models else "MODEL"
    lines.append(
        table(
            [
                (f"twofile chat {name}", "talk with it; a base model continues your text"),
                (f'twofile run {name} "Once upon a time"', "one prompt, one text"),
                (f"twofile show {name}", "what is in the file, and where it comes from"),
                ("twofile train notes.txt --out mine", "make your own (needs pip install 'twofile[train]')"),
                ("twofile pull hf:user/repo", "download a GGUF file; only hf: names use the network"),
                ("twofile doctor", "check this machine"),
                ("twofile --help", "everything else"),
            ]
        )
    )
    click.echo("\n".join(lines))
