"""`twofile train`: text in, a parameters file out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twofile.cli.console import note, size
from twofile.cli.options import force_option, output
from twofile.errors import TrainError

if TYPE_CHECKING:
    from twofile.train.pretrain import Recipe

TEXT = (".txt", ".md", ".jsonl", ".parquet", ".gz", ".xz")


@click.command("train")
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, help="A local name, or a path that ends in .gguf.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Train so long. [10, or the recipe's]")
@click.option("--steps", type=click.IntRange(1), help="Train so many steps.")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The recipe's files. [.]")
@click.option("--split", default="", help="What stands between documents in a text file, as a regular expression.")
@click.option("--type", "kind", default="Q8_0", help="The type of the matrices in OUT. [Q8_0]")
@click.option("--run", type=click.Path(file_okay=False, path_type=Path), help="Folder for logs and checkpoints.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of an earlier run.")
@force_option
def train_command(
    sources: tuple[Path, ...],
    out: str,
    minutes: float | None,
    steps: int | None,
    data: Path | None,
    split: str,
    kind: str,
    run: Path | None,
    resume: bool,
    force: bool,
) -> None:
    """Train a small model on SOURCES: one recipe (.toml), or texts (.txt, .md, .jsonl, .parquet; also .gz, .xz).

    Ctrl-C saves and stops; the same call with --resume goes on.
    """
    try:
        from twofile.train.pretrain import read_recipe
    except ModuleNotFoundError as error:
        missing = f"training needs {error.name}, which is not installed"
        raise TrainError(missing, "pip install 'twofile[train]'") from error
    from twofile.params.mixture import FILE_TYPES
    from twofile.params.names import models_folder

    if kind.upper() not in FILE_TYPES:
        raise click.UsageError(f"there is no type {kind}; the types are {', '.join(FILE_TYPES)}")
    path = output(out, force or resume)
    folder = run or models_folder().parent / "runs" / path.stem
    if (folder / "log.jsonl").exists() != resume:
        if resume:
            raise TrainError(f"there is no run to go on with in {folder}", "leave --resume out")
        raise TrainError(f"{folder} holds an earlier run", "--resume goes on with it; another --run or --out keeps it")
    if sources[0].suffix == ".toml":
        if len(sources) > 1:
            raise click.UsageError("give one recipe, or texts")
        recipe = read_recipe(sources[0], minutes=minutes, steps=steps)
    else:
        recipe = _recipe(sources, path.stem, minutes, steps, split)
    _train(recipe, data or Path(), folder, path, kind.upper())


def _recipe(texts: tuple[Path, ...], name: str, minutes: float | None, steps: int | None, split: str) -> Recipe:
    """A recipe for some texts: a model as large as they can fill, and one that a laptop trains in the time given."""
    import glob
    import shutil

    from twofile.params.hyper import Hyperparameters
    from twofile.train.corpus import Source
    from twofile.train.loop import Plan
    from twofile.train.pretrain import Recipe

    for text in texts:
        if text.suffix not in TEXT:
            raise TrainError(f"{text.name} is no text that can be read", f"give {', '.join(TEXT)} or a recipe (.toml)")
    n_bytes = sum(text.stat().st_size * (4 if text.suffix in (".gz", ".xz", ".parquet") else 1) for text in texts)
    large = n_bytes > 2_000_000
    if minutes is None and steps is None:
        minutes = 10.0
    hyper = Hyperparameters(
        architecture="qwen3",
        vocab_size=4096 if large else 512,
        context_length=512 if large else 256,
        dim=256 if large else 128,
        n_layers=6 if large else 4,
        n_heads=4,
        n_kv_heads=2,
        head_dim=64 if large else 32,
        ffn_dim=704 if large else 352,
        norm_eps=1e-6,
        tied=True,
    )
    compiled = minutes is not None and minutes >= 10 and shutil.which("g++") is not None  # compiling takes a minute
    plan = Plan(minutes=minutes, steps=steps, warmup=min(100, steps // 10) if steps else 100, compile=compiled)
    documents = len(texts) > 1 or bool(split) or texts[0].suffix not in (".txt", ".md")
    if not documents:
        note("one text is one document, so none is held out to measure on; --split cuts it into documents")
    named = [
        Source(glob.escape(str(text.resolve())), f"{i}-{text.stem}", split=split, held_out=0.02 if documents else 0.0)
        for i, text in enumerate(texts, 1)
    ]
    return Recipe(name, f"Trained on {', '.join(text.name for text in texts)}", "", hyper, plan, tuple(named))


def _train(recipe: Recipe, data: Path, run: Path, target: Path, kind: str) -> None:
    from twofile.train.export import export
    from twofile.train.pretrain import pretrain

    note(f"{size(recipe.hyper.n_parameters, '').replace(' ', '')} parameters; logs and checkpoints in {run}")
    _, _, result = pretrain(recipe, data, run, note)
    export(recipe, run, target, type=kind, command=shlex.join(["twofile", *sys.argv[1:]]))
    click.echo(target)
    for figure, value in result.validation.items():
        note(f"{figure} {value:.3f}")
    if not result.finished:
        note("stopped before the end; --resume goes on")
