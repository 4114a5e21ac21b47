"""`twofile train`: text in, a parameters file out; with --ladder, a law of how loss falls with size and length."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from twofile.cli.console import note
from twofile.cli.options import (
    file_type,
    force_option,
    output,
    resume_option,
    run_folder,
    run_option,
    training_libraries,
)
from twofile.errors import TrainError

if TYPE_CHECKING:
    from twofile.train.pretrain.recipe import Draft, Recipe

Function = TypeVar("Function", bound=Callable[..., Any])


class Quantity(click.ParamType[float]):
    """A number that people write as 5M, 1.5k or 2e6."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        unit = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}.get(text[-1:].lower(), 0)
        try:
            number = float(text[:-1]) * unit if unit else float(text)
        except ValueError:
            self.fail(f"{text!r} is not a number like 5M, 1.5k or 2e6", param, ctx)
        if not 0 < number < float("inf"):
            self.fail(f"{text} is not more than nothing", param, ctx)
        return number


class Quantities(Quantity):
    """Several of them, with commas between."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(super(Quantities, self).convert(part, param, ctx) for part in str(value).split(","))


_WHOLE, _SHARE = click.IntRange(1), click.FloatRange(0, 1)
_RATE = click.FloatRange(0, min_open=True)
_SIZES: list[tuple[str, Any, str]] = [
    ("--minutes", _RATE, "Train so long; the size follows. [10, where nothing else is said]"),
    ("--params", Quantity(), "So many parameters, like 5M."),
    ("--depth", _WHOLE, "So many layers, 64 wide each."),
    ("--tokens", Quantity(), "Train on so many tokens. [20 a parameter]"),
    ("--steps", _WHOLE, "Train so many steps."),
]
_NUMBERS: list[tuple[str, str, Any, str]] = [
    ("--dim", "dim", _WHOLE, "Width of the model."),
    ("--layers", "n_layers", _WHOLE, "Layers."),
    ("--heads", "n_heads", _WHOLE, "Heads of attention."),
    ("--kv-heads", "n_kv_heads", _WHOLE, "Heads of keys and values."),
    ("--head-dim", "head_dim", _WHOLE, "Width of a head."),
    ("--ffn", "ffn_dim", _WHOLE, "Width of the feed-forward part."),
    ("--vocab", "vocab_size", _WHOLE, "Tokens of the vocabulary."),
    ("--context", "context_length", _WHOLE, "Tokens that the model sees at once."),
    ("--tied/--untied", "tied", bool, "One matrix for both ends, or two."),
    ("--batch", "batch", _WHOLE, "Rows of a context a step."),
    ("--micro", "micro", _WHOLE, "Rows at a time; a batch is a multiple."),
    ("--within-documents/--across", "within_documents", bool, "Whether attention stays within a document."),
    ("--warmup", "warmup", click.IntRange(0), "Steps over which the rates rise."),
    ("--decay", "decay", _SHARE, "Share of the run over which they fall."),
    ("--matrix-rate", "matrix_rate", _RATE, "Muon's rate."),
    ("--vector-rate", "vector_rate", _RATE, "AdamW's rate: embeddings, norms."),
    ("--weight-decay", "weight_decay", click.FloatRange(0), "Weight decay of the matrices."),
    ("--bfloat16/--float32", "bfloat16", bool, "What products are computed in."),
    ("--compile/--no-compile", "compile", bool, "Use torch.compile."),
    ("--seed", "seed", click.IntRange(0), "Of the weights and the order of the text. [0]"),
    ("--track", "track", click.Choice(["wandb", "trackio"]), "Send the figures there, too."),
]


def _number_options(command: Function) -> Function:
    """Adds an option for each number of the dial, and for each that is derived, in the place of which it is taken."""
    decorated: Any = command
    for flag, name, kind, help_text in reversed(_NUMBERS):
        if kind is bool:
            decorated = click.option(flag, name, default=None, help=help_text)(decorated)
        else:
            decorated = click.option(flag, name, type=kind, help=help_text)(decorated)
    for flag, kind, help_text in reversed(_SIZES):
        decorated = click.option(flag, type=kind, help=help_text)(decorated)
    result: Function = decorated
    return result


_OPTIONS = [flag.removeprefix("--") for flag, *_ in _SIZES] + [name for _, name, *_ in _NUMBERS]


@click.command("train")
@click.argument("texts", nargs=-1)
@click.option("--out", help="What to make: a local name, or a path that ends in .gguf.")
@_number_options
@click.option("--split", default="", help="What stands between documents in a text file, as a regular expression.")
@click.option("--clean", is_flag=True, help="Make texts plain: mojibake, quotes and spaces mended, no indentation.")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The recipe's files. [.]")
@click.option("--type", "kind", help="The type of the matrices in OUT. [Q8_0]")
@run_option
@resume_option
@click.option("--dry-run", is_flag=True, help="Print every number with its law, and stop.")
@click.option("--ladder", is_flag=True, help="Train a family of sizes, fit the law of their losses, predict a larger.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="The ladder's folder.")
@click.option("--sizes", type=Quantities(), help="The ladder's parameters, like 250k,500k,1M. [as --minutes allow]")
@click.option("--ratios", type=Quantities(), help="The ladder's tokens a parameter. [5,10,20]")
@click.option("--seeds", type=click.IntRange(1), help="Runs of each size and length. [1]")
@click.option(
    "--predict",
    type=Quantities(),
    multiple=True,
    help="PARAMS,TOKENS of a run to foretell. [8 times the operations of the largest]",
)
@click.option("--verify", is_flag=True, help="Train what was foretold, and write the outcome beside it.")
@force_option
def train_command(
    texts: tuple[str, ...],
    out: str | None,
    split: str,
    clean: bool,
    data: Path | None,
    kind: str | None,
    run: Path | None,
    resume: bool,
    dry_run: bool,
    ladder: bool,
    into: Path | None,
    sizes: tuple[float, ...] | None,
    ratios: tuple[float, ...] | None,
    seeds: int | None,
    predict: tuple[tuple[float, ...], ...],
    verify: bool,
    force: bool,
    **numbers: Any,
) -> None:
    """Train a model on TEXTS: files, globs, folders (those of `twofile corpus` too), hf:datasets/..., a recipe (.toml).

    One dial (--minutes, --params or --depth) derives every other number by a law that is printed; each has an option.
    Ctrl-C saves and stops; the same call with --resume goes on.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        hint = "torchrun ... -m twofile.train.pretrain RECIPE --data FOLDER --into FOLDER --out NAME"
        raise TrainError("under torchrun, twofile train would train the same model once in every process", hint)
    with training_libraries():
        from twofile.train.pretrain.begin import begin, go_on, show
        from twofile.train.pretrain.recipe import complete
    type = file_type(kind or "Q8_0")
    given = {name: value for name in _OPTIONS if (value := numbers[name]) is not None}
    where, cut = data or Path(), {"split": split, "clean": clean}
    if ladder:
        from twofile.cli.ladder import climb

        if into is None:
            raise click.UsageError("--ladder needs --into FOLDER")
        if dry_run:
            raise click.UsageError("--dry-run is for one run; a ladder can be stopped with Ctrl-C and goes on")
        of_runs = {"--out": out, "--run": run, "--resume": resume, "--type": kind, "--force": force}
        for name, value in of_runs.items():
            if value:
                note(f"{name} is ignored: a ladder makes the runs in its folder, and goes on by itself")
        draft = _draft(texts, into.name, cut, where).with_options(given)
        return climb(draft, where, into, sizes, ratios, seeds, predict, verify, _machine)
    of_ladders = {
        "--into": into, "--sizes": sizes, "--ratios": ratios, "--seeds": seeds, "--predict": predict, "--verify": verify
    }  # fmt: skip
    for name, value in of_ladders.items():
        if value:
            raise click.UsageError(f"{name} is for --ladder")
    if dry_run:
        if resume:
            raise click.UsageError("--dry-run is for a new run: one that is resumed has its numbers")
        _, derived = complete(_draft(texts, "model", cut, where).with_options(given), where, _machine)
        return show(derived, click.echo, note)
    if out is None:
        raise click.UsageError("--out NAME says what to make")
    path = output(out, force or resume)
    folder = run_folder(run, path, resume)
    if resume:
        told = {"the texts named here": texts, "--split": split, "--clean": clean, "--data": data}
        for name, value in told.items():
            if value:
                note(f"ignored: {name}; a run that is resumed has its own texts")
        recipe, where = go_on(folder, given, note)
    else:
        draft = _draft(texts, path.stem, cut, where).with_options(given)
        recipe = begin(draft, where, folder, _machine, note)
    return _train(recipe, where, folder, path, type)


def _machine() -> Any:
    from twofile.train.pretrain.calibrate import calibrate

    note("measuring this machine for two seconds")
    return calibrate()


def _draft(texts: tuple[str, ...], name: str, cut: dict[str, Any], data: Path) -> Draft:
    """What a person named: a recipe, texts, or a recipe whose texts are others. `cut`: how texts are read."""
    import dataclasses

    from twofile.train.corpus import sources as corpus
    from twofile.train.pretrain.recipe import Draft, read_draft

    if not texts:
        raise click.UsageError("give texts, or a recipe (.toml)")
    if any(text.endswith(".toml") for text in texts[1:]):
        raise click.UsageError("a recipe stands first, and there is one")
    draft = Draft(name)
    if texts[0].endswith(".toml"):
        if not Path(texts[0]).is_file():
            raise click.UsageError(f"there is no recipe {texts[0]}")
        draft, texts = read_draft(Path(texts[0])), texts[1:]
    if draft.sources or not texts:
        if not texts:
            for flag, value in cut.items():
                if value:
                    note(f"--{flag} is ignored: the recipe says how its sources are read")
            return draft
        note("the recipe's sources give way to the texts named here")
    if data != Path():
        note("--data is ignored: texts are found from here; --data is for the files of a recipe")
    sources = corpus.named(texts, **cut)
    description = draft.description or f"Trained on {', '.join(source.name for source in sources)}"
    kept = _held_out(sources, cut["split"], data)
    return dataclasses.replace(draft, sources=tuple(corpus.named(texts, **cut, held_out=kept)), description=description)


def _held_out(sources: list[Any], split: str, data: Path) -> float:
    """The share of documents to measure on: 2%, more of little text; none of a single document."""
    from twofile.train.corpus import sources as corpus
    from twofile.train.corpus.reading import kind
    from twofile.train.pretrain.recipe import text_bytes

    files = [file for source in sources for file in corpus.files(source, data)]
    if len(files) == 1 and not split and kind(files[0].name) in (".txt", ".md", ".tokens"):
        note("one text is one document, so none is held out to measure on; --split cuts it into documents")
        return 0.0
    return min(0.1, max(0.02, 2e5 / max(1.0, text_bytes(sources, data))))


def _train(recipe: Recipe, data: Path, run: Path, target: Path, kind: str) -> None:
    from twofile.train.pretrain.export import export
    from twofile.train.pretrain.stage import pretrain

    note(f"logs and checkpoints in {run}")
    _, _, result = pretrain(recipe, data, run, note)
    export(recipe, run, target, type=kind, command=shlex.join(["twofile", *sys.argv[1:]]))
    click.echo(target)
    for figure, value in result.validation.items():
        note(f"{figure} {value:.3f}")
    if not result.finished:
        note("stopped before the end; --resume goes on")
