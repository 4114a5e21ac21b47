"""`twofile doctor`: what this machine has, and whether the program runs on it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click

from twofile import __version__
from twofile.cli.console import size, table
from twofile.errors import TwofileError


@click.command("doctor")
@click.pass_context
def doctor_command(ctx: click.Context) -> None:
    """Check this machine: compiler, processor, memory, folders, and the bundled model.

    Ends with 1 where something keeps twofile from working at its speed.
    """
    checks: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        ("twofile", lambda: (True, f"{__version__}, Python {platform.python_version()} at {sys.executable}")),
        ("processor", lambda: (True, f"{_processor()}, {_cores()} cores")),
        ("memory", _memory),
        ("program", _program),
        ("models", _models_folder),
        ("training", _training),
        ("hub", _hub),
        ("bundled", _bundled),
    ]
    rows, well = [], True
    for name, check in checks:
        try:
            good, text = check()
        except TwofileError as error:
            good, text = False, error.message
        except OSError as error:
            good, text = False, str(error)
        well &= good
        rows.append((click.style("ok", fg="green") if good else click.style("!!", fg="red"), name, text))
    click.echo(table(rows, indent=""))
    if not well:
        ctx.exit(1)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        name = ""
    return f"{name or platform.processor() or 'unknown'} ({platform.machine()})"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[bool, str]:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
        return True, f"{size(total)}, {size(free)} of it free"
    except (OSError, KeyError, ValueError):
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return True, size(pages * page)


def _program() -> tuple[bool, str]:
    """Whether run.c compiles and loads, and for which instructions."""
    from twofile.engine import build, library

    built = build.build()
    if built.path is None:
        return False, f"{built.reason}: NumPy runs instead, far slower; {build.HINT}"
    kernels = library.load(built.path).kernels
    how = "compiled before" if built.cached else f"compiled in {built.seconds:.1f} s"
    return True, f"{kernels} kernels, {how} by {built.compiler} into {built.path.parent}"


def _models_folder() -> tuple[bool, str]:
    import shutil

    from twofile.params import names

    folder = names.models_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    count = len(names.local()) + len(names.pulled())
    free = size(shutil.disk_usage(existing).free)
    writable = os.access(existing, os.W_OK)
    return writable, f"{folder}: {count} here, {free} free" + ("" if writable else f"; {existing} cannot be written")


def _training() -> tuple[bool, str]:
    """Whether the extra is there; its absence keeps nothing else from working."""
    missing = [name for name in ("torch", "tokenizers", "safetensors", "pyarrow") if find_spec(name) is None]
    if missing:
        return True, f"not installed ({', '.join(missing)} missing): pip install 'twofile[train]'"
    from importlib.metadata import version

    return True, f"torch {version('torch')}"


def _hub() -> tuple[bool, str]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True, "offline (HF_HUB_OFFLINE is set): models that are here work, no other is looked for"
    return True, f"{constants.ENDPOINT} (asked only for names that begin with hf:)"


def _bundled() -> tuple[bool, str]:
    """Open each bundled model and let it say three tokens."""
    from twofile.engine.engine import Engine
    from twofile.engine.generate import generate
    from twofile.engine.sampler import Sampling
    from twofile.params import names

    if not names.bundled():
        return False, "no model is bundled with this copy"
    said = []
    for name, path in names.bundled().items():
        with Engine(path) as engine, engine.session() as session:
            pieces = generate(session, engine.prompt("Once upon a"), Sampling(temperature=0), 3)
            text = "".join(piece.text for piece in pieces)
            said.append(f"{name} ({engine.info.parameters / 1e6:.1f}M parameters) runs: Once upon a{text}")
    return True, "; ".join(said)
