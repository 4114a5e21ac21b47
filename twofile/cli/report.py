"""`twofile report`: one page about a run, or about several beside one another."""

from __future__ import annotations

from pathlib import Path

import click

from twofile.errors import TwofileError


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN2 ...]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write. [RUN/report.html]")
def report_command(runs: tuple[str, ...], out: Path | None) -> None:
    """Write one HTML page about the training RUN: curves, samples, recipe, data, machine. Several runs are overlaid.

    RUN is a folder, or the name that `twofile train --out NAME` was given; a folder with a ladder brings its runs. The
    page needs no network and no script, and can be written while the run goes on.
    """
    from twofile.params.atomic import atomic_path
    from twofile.train.history import read
    from twofile.train.report.report import report

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out}: the page is HTML, so its name ends in .html")
    folders = [folder for run in runs for folder in _folders(run)]
    histories = [read(folder) for folder in folders]
    if out is None:
        names = "-".join(history.name for history in histories[1:])
        out = folders[0] / (f"report-with-{names[:80]}.html" if len(runs) > 1 else "report.html")
    with atomic_path(out) as temporary:
        temporary.write_text(report(histories), encoding="utf-8")
    click.echo(out)


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
