"""Processes of the kernel, which `chat` begins: `ps`, `top`, `context`, `maps`, `strace`, `kill`, `fork`, `replay`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, plain, table
from twofile.cli.options import open_engine
from twofile.errors import KernelError

if TYPE_CHECKING:
    from twofile.engine.engine import Engine
    from twofile.kernel.kernel import Kernel
    from twofile.kernel.log import Log
    from twofile.kernel.looking import Looker

_pid = click.argument("pid", type=click.IntRange(1))
log_option = click.option(
    "--log", "path", type=click.Path(dir_okay=False, path_type=Path), help="The log of processes. [your own]"
)
window_option = click.option("--window", type=click.IntRange(64), help="Tokens before the model. [all that it can see]")


def log_path(path: Path | None) -> Path:
    """The log that is meant."""
    from twofile.params.names import models_folder

    return path or models_folder().parent / "kernel.db"


@contextmanager
def _log(path: Path | None) -> Iterator[Log]:
    """A log that is there, to look at."""
    from twofile.kernel.log import Log

    where = log_path(path)
    if not where.exists():
        raise KernelError("there are no processes yet", "twofile chat MODEL begins one")
    log = Log(where)
    if log.only_read:
        note(f"{where}: {log.only_read}")
    try:
        yield log
    finally:
        log.close()


def opening(model: str, adapter: str, how: Mapping[str, Any] | None = None) -> Engine:
    """The engine of a process."""
    return open_engine(model, {**(how or {}), "adapter": Path(adapter) if adapter else None})


@contextmanager
def kernel_of(
    path: Path | None,
    opener: Callable[[str, str], Engine] = opening,
    *,
    pid: int | None = None,
    tools: Sequence[str] = (),
) -> Iterator[Kernel]:
    """The kernel, with the tools that a new process is to have, or those that process `pid` has."""
    from twofile.cli.tools import config_of
    from twofile.kernel.kernel import RECALL, Kernel
    from twofile.tools.toolbox import Toolbox

    with Toolbox(config_of()) as box, Kernel(log_path(path), opener=opener) as kernel:
        if kernel.log.only_read:
            note(f"{kernel.log.path}: {kernel.log.only_read}")
        wanted = tools if pid is None else kernel.beginning(pid).get("tools", ())
        for driver in box.drivers(name for name in wanted if name != RECALL):
            kernel.drivers.add(driver)
        yield kernel


@click.command("ps")
@log_option
def ps_command(path: Path | None) -> None:
    """List the processes: their models, how far they have come, what they said last."""
    from twofile.kernel.looking import Looker

    with _log(path) as log:
        click.echo(_listing(Looker(log)))


@click.command("top")
@log_option
@click.option("--seconds", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Between two looks.")
@click.option("--once", is_flag=True, help="Look once.")
def top_command(path: Path | None, seconds: float, once: bool) -> None:
    """Watch the processes, those that did something last first. Ctrl-C leaves."""
    from twofile.kernel.looking import Looker

    with _log(path) as log:
        looker = Looker(log)
        while True:
            if not once:
                click.clear()
            click.echo(_listing(looker, by_time=True))
            if once:
                return
            try:
                time.sleep(seconds)
            except KeyboardInterrupt:
                return


def _listing(looker: Looker, by_time: bool = False) -> str:
    found = looker.look()
    if by_time:
        found.sort(key=lambda one: -one.at)
    rows = [
        (str(one.pid), str(one.parent or ""), one.model, one.state, str(one.events), str(one.written), _ago(one.at),
         plain(one.said)) for one in found
    ]  # fmt: skip
    head = ("pid", "parent", "model", "state", "events", "written", "last", "said last")
    return table([head, *rows], indent="")


def _ago(at: float) -> str:
    from twofile.html.figures import short_span

    return f"{short_span(max(0.0, time.time() - at))} ago"


@click.command("context")
@_pid
@log_option
@window_option
def context_command(pid: int, path: Path | None, window: int | None) -> None:
    """Show what is before the model of process PID: the exact text, and the tokens of each part."""
    with kernel_of(path, pid=pid) as kernel:
        process = kernel.open(pid, window=window)
        frame = process.frame()
        engine = process.image.engine
        rows = [("part", "name", "tokens"), *((one.kind, one.name, str(one.size)) for one in frame.segments)]
        click.echo(table(rows, indent=""))
        room = process.memory.window
        note(f"{len(frame.ids)} tokens of {room}, {process.reserve} of them kept for the reply")
        click.echo(plain(engine.detokenize(frame.ids, special=True)))


@click.command("maps")
@_pid
@log_option
@window_option
def maps_command(pid: int, path: Path | None, window: int | None) -> None:
    """Show the pages of process PID: which are before the model, how large they are, where they come from."""
    from twofile.kernel.looking import mapped

    with kernel_of(path, pid=pid) as kernel:
        rows: list[tuple[str, ...]] = [("page", "role", "tokens", "state", "brought back", "from", "begins")]
        for page in mapped(kernel.open(pid, window=window)):
            used = "" if page.used is None else _ago(page.used)
            rows.append((page.name, page.role, str(page.size), page.state, used, page.sources, plain(page.begins)))
        click.echo(table(rows, indent=""))


@click.command("strace")
@_pid
@log_option
@click.option("--follow", "-f", is_flag=True, help="Go on as calls are made. Ctrl-C leaves.")
def strace_command(pid: int, path: Path | None, follow: bool) -> None:
    """Show the calls of process PID: arguments, results, seconds, and what was asked and granted."""
    from twofile.kernel.looking import traced

    with _log(path) as log:
        seen = 0
        while True:
            for event in log.events(pid, after=seen):
                seen = event.seq
                for one in traced(event) if event.pid == pid else ():
                    click.echo(plain(one.line))
            if not follow:
                return
            try:
                time.sleep(0.5)
            except KeyboardInterrupt:
                return


@click.command("kill")
@_pid
@log_option
def kill_command(pid: int, path: Path | None) -> None:
    """End process PID: nothing more is said in it. What was said stays, and can be forked."""
    from twofile.kernel.looking import kill

    with _log(path) as log:
        kill(log, pid)
        click.echo(f"process {pid} is killed")


@click.command("fork")
@_pid
@log_option
@click.option("--upto", type=click.IntRange(1), help="The last event that it has; replay shows their numbers.")
def fork_command(pid: int, path: Path | None, upto: int | None) -> None:
    """Make a branch of process PID, which goes its own way from here, or from an earlier event."""
    with _log(path) as log:
        event = log.fork(pid, upto)
        click.echo(event.pid)
        note(f"twofile chat --process {event.pid} goes on with it")


@click.command("replay")
@_pid
@log_option
@click.option("--json", "as_json", is_flag=True, help="Every event as a line of JSON.")
def replay_command(pid: int, path: Path | None, as_json: bool) -> None:
    """Show process PID from its beginning, event by event, with their numbers; --json exports it."""
    from twofile.kernel.looking import replayed

    with _log(path) as log:
        for event in log.events(pid):
            if as_json:
                click.echo(json.dumps(vars(event), ensure_ascii=False))
                continue
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
            click.echo(plain(f"{event.seq:>6} {at} {event.kind}: {replayed(event)}"))
