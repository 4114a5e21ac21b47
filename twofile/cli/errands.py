"""`twofile errands`: tasks with tools in a small web that is served here, done by a model or by a written plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, plain, stream, table
from twofile.cli.options import engine_options, find, open_engine
from twofile.errors import KernelError

if TYPE_CHECKING:
    from twofile.kernel.process import Said
    from twofile.tools.errands.errand import Errand
    from twofile.tools.errands.run import Done, Office


@click.command("errands")
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="All fifty, and how many come out right.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the companies and the tasks.")
@click.option("--log", "path", type=click.Path(dir_okay=False, path_type=Path), help="Where its processes are kept.")
@engine_options
def errands_command(name: str | None, every: bool, seed: int, path: Path | None, how: dict[str, Any]) -> None:
    """Run an errand: search for a company's rounds of funding, read them, work out what is missing, plot, answer.

    By the model NAME, or without one by a plan that is written down: the same tools, the same web (made up, served on
    loopback), no internet. Each step is shown, and strace shows it again. --all runs fifty of one to four steps.
    """
    from twofile.params.names import models_folder
    from twofile.tools.errands.errand import errands, invest
    from twofile.tools.errands.run import Office
    from twofile.tools.errands.world import World

    model = str(find(name or "assistant"))
    where = path or models_folder().parent / "errands.db"
    world = World(seed)
    with Office.open(where, model, lambda one, _: open_engine(one, how), world) as office:
        if every:
            return _all(office, errands(world, office.site.address, seed), name)
        errand = invest(office.site.address, world.companies[0])
        note(errand.asked)
        done = office.run(errand, scripted=name is None, sampling=_greedy(), said=_show)
        for picture in done.pictures:
            note(f"picture: {picture}")
        note(f"right: {'yes' if done.right else 'no'}; twofile strace {done.process} --log {where} shows its calls")
    return None


def _greedy() -> Any:
    from twofile.engine.sampler import Sampling

    return Sampling(temperature=0.0)


def _show(said: Said) -> None:
    if said.kind == "text":
        stream(plain(said.text))
    elif said.kind == "call":
        note(f"[{said.body['name']} {json.dumps(said.body['arguments'], ensure_ascii=False)[:600]}]")
    elif said.kind == "result":
        note(f"[-> {plain(said.text[:600])}]")
    else:
        click.echo()


def _all(office: Office, errands: list[Errand], name: str | None) -> None:
    """How many come out right, by their steps."""
    from twofile.intervals import wilson

    outcomes: list[tuple[Errand, Done | None]] = []
    for number, errand in enumerate(errands, 1):
        done = None
        try:
            done = office.run(errand, scripted=name is None, sampling=_greedy())
        except KernelError as error:  # the window does not hold it
            note(f"{number}. {errand.asked[:60]}: {error.message}")
        outcomes.append((errand, done))
        if done is not None:
            calls = ", ".join(done.calls) or "no call"
            note(f"{number}. {'right' if done.right else 'wrong'}: {errand.asked[:70]} [{calls}] {done.answer[:70]!r}")
    rows: list[tuple[str, ...]] = [("steps", "right", "share, 95% interval")]
    for steps in (1, 2, 3, 4, 0):
        mine = [done for errand, done in outcomes if not steps or errand.steps == steps]
        right = sum(done is not None and done.right for done in mine)
        rows.append((str(steps or "all"), f"{right} of {len(mine)}", str(wilson(right, len(mine)))))
    note(f"by {name or 'the written plans'}:")
    click.echo(table(rows, indent=""))
