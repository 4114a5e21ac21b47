"""`twofile report`: one page about a run, or about several beside one another; or about a model and its lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from twofile.errors import TwofileError

_path = click.Path(dir_okay=False, path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_place = click.Path(exists=True, path_type=Path)
_whole = click.IntRange(1)


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN2 ...] | MODEL")
@click.option("--out", type=_path, help="The file to write. [RUN/report.html; MODEL.html]")
@click.option("--card", is_flag=True, help="The card of a model, also where there is a run of that name.")
@click.option("--questions", type=_file, help="Card: JSON lines of conversations to answer; `group` names a measure.")
@click.option("--judge", help="Card: a reward model, or FILE.py:FUNCTION of your own, which says how good a reply is.")
@click.option("--tools", help="Card: FILE.py:FUNCTION that plays the tools: its name, arguments, the row; a text out.")
@click.option("--texts", type=_file, help="Card: held-out documents, for bits per byte.")
@click.option("--beside", type=_place, multiple=True, help="Card: where files lie that the model was made from.")
@click.option("--limit", type=_whole, help="Card: at most so many questions of a group, and texts.")
@click.option("--longest", type=_whole, default=200, show_default=True, help="Card: tokens of a turn.")
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="Card: of the replies.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Card: of the replies.")
def report_command(runs: tuple[str, ...], out: Path | None, card: bool, **about: Any) -> None:
    """Write one HTML page about the training RUN, or about MODEL.

    RUN is a folder, or the name that `twofile train --out NAME` was given: curves, samples, recipe, data, machine.
    Several runs are overlaid, a folder with a ladder brings its runs, and the page can be written while a run goes on.

    MODEL is a parameters file: its report card, with the lineage, what each stage took, and where questions or texts
    are given, what each made better or worse. The same is written in Markdown. Pages need no network.
    """
    from twofile.params.atomic import atomic_path
    from twofile.train.history import read
    from twofile.train.report.report import report

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out}: the page is HTML, so its name ends in .html")
    if len(runs) == 1 and (card or _is_model(runs[0])):
        from twofile.cli.card import write_card

        return write_card(runs[0], out, **about)
    context = click.get_current_context()
    given = [name for name in ("card", *about) if context.get_parameter_source(name) != ParameterSource.DEFAULT]
    if given:
        raise click.UsageError(f"--{given[0]} is for the card of one MODEL")
    folders = [folder for run in runs for folder in _folders(run)]
    histories = [read(folder) for folder in folders]
    if out is None:
        names = "-".join(history.name for history in histories[1:])
        out = folders[0] / (f"report-with-{names[:80]}.html" if len(runs) > 1 else "report.html")
    with atomic_path(out) as temporary:
        temporary.write_text(report(histories), encoding="utf-8")
    click.echo(out)
    return None


def _is_model(name: str) -> bool:
    """Whether a name means a parameters file, and no run."""
    from twofile.params.names import bundled, local, models_folder

    if Path(name).expanduser().is_dir() or (models_folder().parent / "runs" / name).is_dir():
        return False
    return name.endswith(".gguf") or name.startswith("hf:") or name in local() or name in bundled()


def _folders(name: str) -> list[Path]:
    """The folder that a name means, and with a ladder those of its runs."""
    from twofile.params.names import models_folder

    folder = Path(name).expanduser()
    local = models_folder().parent / "runs" / name
    if not folder.is_dir() and local.is_dir():
        folder = local
    if not folder.is_dir():
        known = sorted(path.parent.name for path in local.parent.glob("*/log.jsonl"))
        hint = (
            f"runs here: {', '.join(known)}" if known else "give the folder that `twofile train` names when it begins"
        )
        raise TwofileError(f"there is no run {name!r}", hint)
    within = sorted(path.parent for path in folder.glob("*/log.jsonl")) if (folder / "ladder.json").is_file() else []
    return [folder, *within]
