"""Options that several commands have: which model on how many threads, how to choose tokens, what text to allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from twofile.cli.console import progress
from twofile.errors import TrainError, TwofileError

if TYPE_CHECKING:
    from twofile.engine.constraint import Constraint
    from twofile.engine.draft import Draft
    from twofile.engine.engine import Engine

_LARGE = 200_000_000  # bytes that are read in about a tenth of a second

Function = TypeVar("Function", bound=Callable[..., Any])


def find(name: str) -> Path:
    """The file of a model's name; a bar where it must be downloaded."""
    from twofile.params.names import resolve

    if not name.startswith("hf:"):
        return resolve(name)
    with progress(name) as report:
        return resolve(name, report)


def open_engine(name: str, how: dict[str, Any]) -> Engine:
    """The engine of a model's name, as `engine_options` say; a bar where opening takes its time."""
    from twofile.engine.engine import Engine

    path = find(name)
    with progress(f"opening {name}") if path.stat().st_size > _LARGE else nullcontext():
        return Engine(path, **how)


def output(name: str, force: bool) -> Path:
    """The file to write for a name. One that is there already is replaced only when `force` says so."""
    from twofile.params.names import target

    path = target(name)
    if path.exists() and not force:
        raise TwofileError(f"{path} is there already", "--force replaces it; another name keeps both")
    return path


def run_folder(run: Path | None, target: Path, resume: bool) -> Path:
    """Where a training run that makes `target` logs and saves. TrainError where that is not as `resume` says."""
    from twofile.params.names import models_folder

    folder = run or models_folder().parent / "runs" / target.stem
    there = (folder / "log.jsonl").exists()
    if resume and not there:
        raise TrainError(f"there is no run to go on with in {folder}", "leave --resume out")
    if there and not resume:
        raise TrainError(f"{folder} holds an earlier run", "--resume goes on with it; another --run or --out keeps it")
    return folder


def file_type(kind: str) -> str:
    """The name of a type of matrices. UsageError for one that there is not."""
    from twofile.params.mixture import FILE_TYPES

    if (name := kind.upper()) not in FILE_TYPES:
        raise click.UsageError(f"there is no type {kind}; the types are {', '.join(FILE_TYPES)}")
    return name


@contextmanager
def training_libraries() -> Iterator[None]:
    """Around the imports of what trains: a library that is not there is an error that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = f"training needs {(error.name or str(error)).split('.')[0]}, which is not installed"
        raise TrainError(missing, "pip install 'twofile[train]'") from error


run_option = click.option(
    "--run", type=click.Path(file_okay=False, path_type=Path), help="Folder for logs and checkpoints."
)
resume_option = click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of an earlier run.")
force_option = click.option("--force", is_flag=True, help="Replace what is there already.")


def engine_options(command: Function) -> Function:
    """Adds --adapter, --threads, --backend and --no-repack; the command gets as `how` what they say to `Engine`."""

    @wraps(command)
    def with_engine(*args: Any, adapter: str | None, threads: int, backend: str, no_repack: bool, **values: Any) -> Any:
        changes = None if adapter is None else find(adapter)
        how = {"adapter": changes, "threads": threads, "backend": backend, "repack": not no_repack}
        return command(*args, how=how, **values)

    decorated: Any = with_engine
    decorated = click.option(
        "--no-repack", is_flag=True, help="Leave the weights in the mapped file: less memory, far slower."
    )(decorated)
    backends = click.Choice(["auto", "c", "numpy"])
    decorated = click.option("--backend", type=backends, default="auto", help="The program, or NumPy (slow).")(
        decorated
    )
    threads = click.IntRange(0, 1024)
    decorated = click.option("--threads", type=threads, default=0, help="0: one a core.")(decorated)
    result: Function = click.option("--adapter", metavar="NAME", help="Low-rank changes (LoRA) to the model.")(
        decorated
    )
    return result


def form_options(command: Function) -> Function:
    """Adds --json-schema, --regex and --grammar, and gives the command as `constrain` what makes their constraint."""

    @wraps(command)
    def with_form(*args: Any, json_schema: str | None, regex: str | None, grammar: str | None, **values: Any) -> Any:
        given = {"json_schema": json_schema, "regex": regex, "grammar": grammar}
        forms = [(name, text) for name, text in given.items() if text is not None]
        if len(forms) > 1:
            raise click.UsageError("--json-schema, --regex and --grammar exclude one another")

        def constrain(engine: Engine) -> Constraint | None:
            if not forms:
                return None
            from twofile.engine.constraint import Constraint

            ((name, text),) = forms
            try:
                made: Constraint = getattr(Constraint, name)(engine, text)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            return made

        return command(*args, constrain=constrain, **values)

    decorated: Any = with_form
    file = _Text(exists=True, dir_okay=False)
    decorated = click.option("--grammar", type=file, metavar="FILE", help="Only text of this Lark grammar.")(decorated)
    decorated = click.option("--regex", metavar="PATTERN", help="Only text that matches this.")(decorated)
    result: Function = click.option(
        "--json-schema", type=file, metavar="FILE", help="Only JSON of this JSON Schema. {}: any JSON."
    )(decorated)
    return result


class _Text(click.Path):
    """A file's path that becomes its text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        path = str(super().convert(value, param, ctx))
        try:
            return Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{path} cannot be read: {error}", param, ctx)


draft_option = click.option(
    "--draft", metavar="lookup|MODEL", help="Faster, same text: guess from the text so far, or by a smaller model."
)


@contextmanager
def open_draft(name: str | None, engine: Engine, how: dict[str, Any]) -> Iterator[Draft | None]:
    """What --draft asks for."""
    if name is None:
        yield None
        return
    from twofile.engine.draft import DraftModel, PromptLookup

    if name == "lookup":
        yield PromptLookup()
    else:
        with open_engine(name, {**how, "adapter": None}) as smaller:
            yield DraftModel(smaller, engine)


def sampling_options(command: Function) -> Function:
    """Adds the options of `Sampling`, and gives the command one as `sampling`."""

    @wraps(command)
    def with_sampling(*args: Any, **values: Any) -> Any:
        from twofile.engine.sampler import Sampling

        chosen = {name: values.pop(name) for name in _FIELDS}
        try:
            sampling = Sampling(**{name: value for name, value in chosen.items() if value is not None})
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return command(*args, sampling=sampling, **values)

    decorated: Any = with_sampling
    for names, kind, help_text in reversed(_SAMPLING):
        decorated = click.option(*names, type=kind, help=help_text)(decorated)
    result: Function = decorated
    return result


_SAMPLING: list[tuple[tuple[str, ...], Any, str]] = [
    (("-t", "--temperature"), float, "0: always the most likely token. [0.8]"),
    (("--top-k",), int, "Only the k most likely tokens; 0: off. [0]"),
    (("--top-p",), float, "The fewest tokens with this share of the probability; 1: off. [0.95]"),
    (("--min-p",), float, "Only tokens this likely, relative to the most likely; 0: off. [0]"),
    (("--repetition",), float, "Divide the logits of tokens seen lately; 1: off. [1]"),
    (("--presence",), float, "Take this from the logits of tokens seen lately; 0: off. [0]"),
    (("--seed",), int, "The same seed gives the same text. [a new one each time]"),
]
_FIELDS = [names[-1].removeprefix("--").replace("-", "_") for names, _, _ in _SAMPLING]
