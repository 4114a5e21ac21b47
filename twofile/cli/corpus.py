"""`twofile corpus`: raw texts in, a corpus folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from twofile.cli.console import note, table
from twofile.cli.options import force_option
from twofile.errors import TrainError

_PATH = click.Path(path_type=Path)


@click.command("corpus")
@click.argument("sources", nargs=-1, required=True)
@click.option("--into", required=True, type=_PATH, help="The folder to make.")
@click.option("--filters", default="gopher-repetition", help="Names with commas; web: four; none. [gopher-repetition]")
@click.option("--language", default="any", help="en: also the rules that hold for English only. [any]")
@click.option("--dedup/--no-dedup", default=True, help="Drop near-duplicates (MinHash). [yes]")
@click.option("--held-out", type=click.FloatRange(0, 1, max_open=True), default=0.01, help="Share for tests. [0.01]")
@click.option("--check", multiple=True, help="An evaluation set to look for in the training text; repeatable.")
@click.option("--check-tasks", type=_PATH, help="Also every task of twofile evaluate whose files are in this folder.")
@click.option("--column", default="text", help="Where tables have their text. [text]")
@click.option("--split", default="", help="What stands between documents in a text file, as a regular expression.")
@click.option("--drop", multiple=True, metavar="FIELD=PATTERN", help="Leave out the rows whose field matches.")
@click.option("--clean", is_flag=True, help="Mend mojibake, odd spaces and curly quotes.")
@click.option("--licence", default="", help="The licence of SOURCES, for the card.")
@click.option("--attribution", default="", help="Whom SOURCES are by, for the card.")
@click.option("--data", type=_PATH, default=".", help="Where the paths of a recipe begin. [.]")
@click.option("--keep-dropped", is_flag=True, help="Keep what the filters drop, in INTO/dropped.")
@click.option("--keep-downloads", is_flag=True, help="Keep the files of hf: sources after reading.")
@click.option("--executor", type=click.Choice(["local", "slurm", "ray"]), default="local", help="[local]")
@click.option("--tasks", type=click.IntRange(1), help="In how many parts. [one for 256 MB]")
@click.option("--workers", type=click.IntRange(1), help="How many parts at a time. [one a core; slurm, ray: all]")
@click.option("--slurm", multiple=True, metavar="KEY=VALUE", help="partition, time, and what sbatch knows.")
@click.option("--gigabytes", type=click.IntRange(1), default=2, help="Memory for a task, for slurm and ray. [2]")
@force_option
def corpus_command(
    sources: tuple[str, ...],
    into: Path,
    filters: str,
    check: tuple[str, ...],
    check_tasks: Path | None,
    data: Path,
    executor: str,
    tasks: int | None,
    workers: int | None,
    slurm: tuple[str, ...],
    gigabytes: int,
    force: bool,
    **chosen: Any,
) -> None:
    """Make the corpus folder INTO of SOURCES: filtered, without doubles, split, checked, with a card.

    SOURCES are files, folders and globs (.txt, .md, .jsonl, .csv, .parquet; also .gz, .xz, .zst), recipes (.toml), and
    hf:datasets/user/repo[:pattern]. `twofile train` takes INTO. Interrupted, the same call goes on.

    The filters: gopher-repetition, gopher-quality, c4, c4-loose, fineweb.
    """
    try:
        from twofile.train.corpus import sources as corpus
        from twofile.train.corpus.filters import chosen as chosen_filters
        from twofile.train.corpus.refine import Machines, Settings, clear, refine
    except ModuleNotFoundError as error:
        missing = f"a corpus needs {error.name}, which is not installed"
        raise TrainError(missing, "pip install 'twofile[train]'") from error

    options = {name: chosen.pop(name) for name in ("column", "split", "clean", "licence", "attribution")}
    options["drop"] = _pairs(chosen.pop("drop"), "--drop")
    tasks_as_files = [] if check_tasks is None else _tasks_as_files(check_tasks)
    settings = Settings(
        sources=tuple(corpus.named(sources, **options)),
        data=data.absolute(),
        filters=chosen_filters(name.strip() for name in filters.split(",")),
        checks=(
            *corpus.named(check, column=options["column"], split=options["split"], clean=options["clean"]),
            *(corpus.named(tasks_as_files, clean=options["clean"]) if tasks_as_files else ()),
        ),
        **chosen,
    )
    machines = Machines(executor, tasks, workers, _pairs(slurm, "--slurm"), gigabytes)
    into = into.absolute()
    if force:
        clear(into)
    if refine(settings, machines, into, note):
        _show(into)


def _tasks_as_files(folder: Path) -> list[str]:
    """The items of every task that is in a folder, as files of texts beside the models: the same call finds the same
    files again, on any machine that shares them."""
    import hashlib
    import json

    from twofile.errors import NotFoundError, TaskError
    from twofile.evaluate.tasks.table import TASKS
    from twofile.params.atomic import atomic_path
    from twofile.params.names import models_folder

    found = []
    for name, task in TASKS.items():
        try:
            items = task.load(folder, 0)
        except NotFoundError as error:
            note(f"{name} is not checked: {error.message}")
            continue
        texts = "".join(json.dumps({"text": text}) + "\n" for item in items for text in item.texts)
        digest = hashlib.sha256(texts.encode()).hexdigest()[:16]
        path = models_folder().parent / "sets" / digest / f"{name}.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_text(texts, encoding="utf-8")
        found.append(str(path))
    if not found:
        raise TaskError(f"{folder} has the files of no task", "twofile evaluate lists the tasks")
    return found


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    result = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"{option} wants KEY=VALUE, not {pair!r}")
        result[key] = value
    return result


def _show(into: Path) -> None:
    import json

    from twofile.train.corpus.sources import CARD

    card = json.loads((into / CARD).read_text(encoding="utf-8"))
    rows: list[tuple[str, ...]] = [("", "documents", "bytes")]
    for what in ("read", "train", "held_out"):
        totals = [sum(source[what][unit] for source in card["sources"]) for unit in ("documents", "bytes")]
        rows.append((what.replace("_", " "), *(f"{total:,}" for total in totals)))
    for entry in card["dropped"]:
        rows.insert(-2, (f"- {entry['filter']}", f"{entry['documents']:,}", f"{entry['bytes']:,}"))
    click.echo(table(rows))
    for entry in card["contamination"]["sets"]:
        if entry["touched"]:
            dirty = f"{entry['touched']:,} of {entry['documents']:,} documents"
            note(f"of {entry['set']}, {dirty} overlap with the training text")
        if entry["short"]:
            note(f"of {entry['set']}, {entry['short']:,} of {entry['documents']:,} are too short to tell")
    click.echo(into)
    note(f"its card: {into / 'README.md'}; try: twofile train {into} --out mine")
