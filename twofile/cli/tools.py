"""`twofile tools`: what a model can ask for here, and what it may be granted. `twofile mcp`: the same for others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, plain, table
from twofile.cli.options import engine_options, find, open_engine
from twofile.errors import TwofileError

if TYPE_CHECKING:
    from twofile.tools.toolbox import Config, Toolbox


def config_of() -> Config:
    """The user's own configuration of tools."""
    from twofile.params.names import models_folder
    from twofile.tools.toolbox import Config

    return Config.read(models_folder().parent / "tools.json")


def names_of(tools: str) -> list[str]:
    """The names of a list with commas."""
    return [name.strip() for name in tools.split(",") if name.strip()]


@click.command("tools")
@click.option("--grant", type=click.Path(path_type=Path), metavar="FOLDER", help="A folder that tools may read.")
@click.option("--write", is_flag=True, help="With --grant: and write to.")
@click.option("--forget", type=click.Path(path_type=Path), metavar="FOLDER", help="Grant a folder no longer.")
@click.option("--index", is_flag=True, help="Bring the index of the folders up to date now.")
@click.option("--approve", is_flag=True, help="Look at what MCP servers offer, and approve it.")
@click.pass_context
def tools_command(
    ctx: click.Context, grant: Path | None, write: bool, forget: Path | None, index: bool, approve: bool
) -> None:
    """List the tools, whether each works here, and what it may be granted.

    A process has those that are named: twofile chat MODEL --tools calculator,python. What it may do is asked for.
    """
    from twofile.tools.toolbox import BUILT_IN, Toolbox

    if write and grant is None:
        raise click.UsageError("--write is of --grant")
    config = config_of()
    if grant is not None:
        config.grant(grant, write)
    if forget is not None:
        config.forget(forget)
    with Toolbox(config_of()) as box:
        if index:
            return _index(box)
        if approve:
            return _approve(box)
        rows: list[tuple[str, ...]] = [("tool", "", "what it is for")]
        for name in BUILT_IN:
            works, said = _look(box, name)
            rows.append((name, works, said))
        rows.append(("recall", "ok", "Brings back what left the window; the kernel's own."))
        if box.config.servers:
            rows += [(driver.name, "ok", plain(driver.about[:80])) for driver in box.servers.drivers]
            rows += [(one.definition.tool, "waits", one.why) for one in box.servers.waiting]
        click.echo(table(rows, indent=""))
        for name, paths in (("may read", box.config.folders), ("may write", box.config.writable)):
            note(f"{name}: {', '.join(map(str, paths)) or 'nothing'}")
        if box.config.servers:
            for server, why in box.servers.problems.items():
                note(f"{server}: {plain('; '.join(why))}")
        note(f"configured in {box.config.path}")
    return None


def _look(box: Toolbox, name: str) -> tuple[str, str]:
    """Whether a tool works here, and what it is for, or what it lacks."""
    from twofile.tools.sandbox.interpreter import which

    try:
        driver = box.driver(name)
        kind = f" In a sandbox of {which()}." if name == "python" else ""
        return "ok", driver.about + kind
    except TwofileError as error:
        return "no", f"{error.message}{f'; {error.hint}' if error.hint else ''}"


def _index(box: Toolbox) -> None:
    from twofile.tools.search.search import Local

    search: Any = box.driver("search")
    for source in search.sources:
        if isinstance(source, Local):
            report = source.index.update()
            left = ", ".join(f"{count} {why}" for why, count in report.unread.items())
            new = f"{report.read:,} read, {report.removed:,} gone"
            said = f"{report.files:,} files, {report.passages:,} passages; {new}"
            note(f"{source.index.folder.path}: {said}{f'; not read: {plain(left)}' if left else ''}")


def _approve(box: Toolbox) -> None:
    """Show what waits, and ask."""
    waiting = list(box.servers.waiting)
    if not waiting:
        return note("nothing waits")
    for one in waiting:
        click.echo(f"{one.definition.tool} ({one.why})\n{plain(one.difference)}")
        if click.confirm("approve?", default=False, err=True):
            box.servers.approve(one)
    return None


@click.command("mcp")
@click.argument("names", nargs=-1, metavar="[MODEL ...]")
@click.option("--tools", default="calculator,clock", show_default=True, help="Tools that are given.")
@click.option("--allow", multiple=True, metavar="CAPABILITY", help="What their calls may do: py:exec, net:HOST, ...")
@click.option("--http", "port", type=click.IntRange(1, 65535), metavar="PORT", help="Over HTTP on loopback.")
@engine_options
def mcp_command(names: Sequence[str], tools: str, allow: Sequence[str], port: int | None, how: dict[str, Any]) -> None:
    """Give the tools, and the models MODEL, to other programs: an MCP server on standard input and output.

    What a call needs must be in --allow, for there is nobody to ask.
    """
    from contextlib import ExitStack

    from twofile.kernel.capability import covers, normal
    from twofile.tools.mcp.generate import Generate
    from twofile.tools.mcp.server import Given, serve_http, serve_stdio
    from twofile.tools.toolbox import Toolbox

    patterns = [normal(one) for one in allow]
    with Toolbox(config_of()) as box, ExitStack() as stack:
        drivers = box.drivers(names_of(tools))
        if names:
            engines = {name: stack.enter_context(open_engine(str(find(name)), how)) for name in names}
            drivers.append(Generate(names, lambda name, messages: _says(engines[name], messages)))
        given = Given(drivers, lambda wanted: any(covers(pattern, wanted) for pattern in patterns))
        if port is None:
            serve_stdio(given)
        else:
            note(f"http://127.0.0.1:{port}/mcp; Ctrl-C stops")
            serve_http(given, port)


def _says(engine: Any, messages: Any) -> Any:
    """What a model answers, piece by piece."""
    from twofile.engine.generate import generate
    from twofile.engine.template import ChatTemplate

    with engine.session() as session:
        for piece in generate(session, ChatTemplate.of(engine).render(list(messages)), max_tokens=1024):
            yield piece.text
