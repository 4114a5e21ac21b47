"""`twofile make`: a recipe of several steps, each a command, from data to a finished model and its report.

A recipe is TOML: a list of `[[step]]`, each with what it `makes` (one file, or several) and either `twofile`, a command
line of this program, or `python`, one of a Python program. Both are run in the folder INTO. `{data}` stands for the
folder of the data, `{here}` for that of the recipe, and what the table `[given]` names for what it says. Guarantee: a
step is done again only where what it makes is not there, where its line is another one than it was, or where a step
before it was done again; one that trains goes on where it was stopped.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import click

from twofile.cli.console import note
from twofile.errors import TwofileError

_DONE = "steps.json"
_TRAINS = ("train", "tune", "reward", "prefer", "reinforce")


@click.command("make")
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The folder of the data.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where all of it goes.")
@click.option("--set", "changes", metavar="NAME=VALUE", multiple=True, help="In place of what the recipe gives.")
@click.option("--dry-run", is_flag=True, help="Only show the commands.")
def make_command(recipe: Path, data: Path | None, into: Path, changes: tuple[str, ...], dry_run: bool) -> None:
    """Follow a RECIPE of several steps, from data to a finished model. The same call goes on where one was stopped.

    recipes/assistant.toml makes an assistant that uses tools: twofile make recipes/assistant.toml --data DATA --into
    FOLDER
    """
    from twofile.params.atomic import read_json, write_json

    entries, given = _read(recipe)
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or name not in given:
            raise click.UsageError(f"--set {change}: {recipe} gives {', '.join(given) or 'nothing'}")
        given[name] = value
    places = given | {"here": str(recipe.resolve().parent)} | ({"data": str(data.resolve())} if data else {})
    steps = [_step(recipe, number, entry, places) for number, entry in enumerate(entries, 1)]
    into = into.resolve()
    done: dict[str, Any] = (
        read_json(into / _DONE, TwofileError, "name another folder") if (into / _DONE).exists() else {}
    )
    again = False
    for number, (line, makes) in enumerate(steps, 1):
        key = shlex.join(line)
        there = all((into / name).exists() for name in makes)
        begun = done.get(makes[0], {}).get("begun") == key and not again
        if there and not again and done.get(makes[0], {}).get("line") == key:
            note(f"step {number} of {len(steps)}: {', '.join(makes)} is there")
            continue
        note(f"step {number} of {len(steps)}: {key}")
        again = True
        if dry_run:
            continue
        into.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        done = {name: known for name, known in done.items() if name in [made[0] for _, made in steps[: number - 1]]}
        done[makes[0]] = {"begun": key}  # what comes after has to be made again
        write_json(into / _DONE, done)
        if status := _run(_argv(line, into, makes, begun), into):
            raise TwofileError(f"step {number} ended with status {status}: {key}", "the same call goes on")
        if not _finished(line, into, makes):
            raise TwofileError(f"step {number} was stopped before its end: {key}", "the same call goes on")
        if missing := [name for name in makes if not (into / name).exists()]:
            raise TwofileError(f"step {number} did not make {missing[0]}: {key}", f"mend the step in {recipe}")
        done[makes[0]] = {"line": key, "seconds": round(time.monotonic() - start, 1)}
        write_json(into / _DONE, done)


def _read(recipe: Path) -> tuple[list[Any], dict[str, str]]:
    """The steps of a recipe, and what it gives."""
    try:
        found = tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TwofileError(f"{recipe} cannot be read: {error}", "a recipe is TOML with a list of [[step]]") from error
    steps = found.get("step")
    if not isinstance(steps, list) or not steps:
        raise TwofileError(f"{recipe} has no [[step]]", "twofile train takes the recipes of a single training")
    given = found.get("given", {})
    if not isinstance(given, dict):
        raise TwofileError(f"{recipe}: given is no table")
    return steps, {name: str(value) for name, value in given.items()}


def _step(recipe: Path, number: int, entry: Any, places: dict[str, str]) -> tuple[list[str], list[str]]:
    """The line of a step, "twofile" or "python" first, and what it makes."""
    kinds = [kind for kind in ("twofile", "python") if isinstance(entry, dict) and kind in entry]
    makes = entry.get("makes") if isinstance(entry, dict) else None
    makes = [makes] if isinstance(makes, str) else makes if isinstance(makes, list) else []
    if len(kinds) != 1 or not isinstance(entry[kinds[0]], str) or not makes or entry.keys() - {*kinds, "makes"}:
        raise TwofileError(f"{recipe}: step {number} must have `makes`, and `twofile` or `python` with a line")
    words = []
    try:
        split = shlex.split(entry[kinds[0]])
    except ValueError as error:
        raise TwofileError(f"{recipe}: step {number} has a line that is cut off: {error}") from error
    for word in split:
        try:
            words.append(word.format(**places))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            hint = "give --data" if "{data}" in word and "data" not in places else f"mend the step in {recipe}"
            raise TwofileError(f"{recipe}: step {number}: {word} names no place that is known", hint) from error
    return [kinds[0], *words], list(map(str, makes))


def _argv(line: list[str], into: Path, makes: list[str], begun: bool) -> list[str]:
    """The line as a process's arguments: what trains logs in a folder of its own, and goes on from there."""
    kind, *words = line
    if kind == "python":
        return [sys.executable, *words]
    more: list[str] = []
    if words and words[0] in _TRAINS and "--run" not in words:
        run = into / "runs" / Path(makes[0]).stem
        if run.exists() and not (begun and (run / "log.jsonl").exists()):
            _away(run)
        more = ["--run", str(run), *(["--resume"] if run.exists() else []), "--force"]
    return [sys.executable, "-m", "twofile", *words, *more]


def _run(argv: list[str], into: Path) -> int:
    """Run a process to its end. Ctrl-C reaches it too, and it is waited for: what trains saves first."""
    with subprocess.Popen(argv, cwd=into) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # a second one ends this, and then the process
            raise


def _finished(line: list[str], into: Path, makes: list[str]) -> bool:
    """Whether what trains came to its end: stopped, it writes what it has and leaves in peace."""
    from twofile.train.history import last_with

    log = into / "runs" / Path(makes[0]).stem
    if line[0] != "twofile" or line[1] not in _TRAINS or not (log / "log.jsonl").exists():
        return True
    found = last_with(log, lambda entry: "step" in entry and entry.get("event") is None)
    return found is not None and bool(found.get("finished"))


def _away(run: Path) -> None:
    """Keep an earlier run of another line under another name."""
    number = 1
    while run.with_name(f"{run.name}.old{number}").exists():
        number += 1
    run.rename(run.with_name(f"{run.name}.old{number}"))
