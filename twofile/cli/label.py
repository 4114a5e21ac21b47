"""`twofile label`: a page on this machine where people choose, write and correct replies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twofile.cli.console import note
from twofile.cli.options import open_engine
from twofile.errors import LabelError

if TYPE_CHECKING:
    from twofile.serve.label.store import Item, Store

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.Path(file_okay=False, path_type=Path)


@click.command("label")
@click.argument("files", nargs=-1, type=_file)
@click.option("--into", type=click.Path(dir_okay=False, path_type=Path), help="The file of labels. [your own]")
@click.option("--instructions", type=_file, help="A text that is shown beside every item.")
@click.option("--model", help="Let this model write the replies where a file has none.")
@click.option("--longest", type=click.IntRange(1), default=256, show_default=True, help="Tokens of such a reply.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of such replies.")
@click.option("--each", type=click.IntRange(1), default=1, show_default=True, help="Labels that an item wants.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8320,
    show_default=True,
    help="0: any that is free; a page that holds unsent labels finds a server again on its own port alone.",
)
@click.option("--export", "folder", type=_folder, help="Write the labels as training data into this folder, and stop.")
@click.option("--browser/--no-browser", default=True, help="Open the page.")
def label_command(
    files: tuple[Path, ...],
    into: Path | None,
    instructions: Path | None,
    model: str | None,
    longest: int,
    seed: int,
    each: int,
    port: int,
    folder: Path | None,
    browser: bool,
) -> None:
    """Label the rows of FILES: pairs of replies to choose from, prompts to answer; JSON lines, plain, .gz or .xz.

    Without FILES: what is in the file of labels already, such as the replies that were marked with /bad in chat.
    --export writes conversations.jsonl (for twofile tune) and pairs.jsonl (for twofile prefer and reward).
    """
    from twofile.serve.label.items import agreement, export, read_items
    from twofile.serve.label.store import Store

    path = into or own_labels()
    if not files and into is None and not path.exists():
        raise LabelError("there is nothing to label yet", "twofile label FILE, or /bad after a reply in twofile chat")
    store = Store(path)
    try:
        items: Iterator[Item] = (item for file in files for item in read_items(file))
        if model is not None:
            items = answered(items, model, longest, seed)
        if added := store.add(items):
            note(f"{added} new items in {path}")
        if folder is None:
            return _serve(store, instructions, each, port, browser)
        for name, count in export(store, folder).items():
            click.echo(f"{folder / name}.jsonl: {count}")
        alpha = agreement(store)
        note("no item has the choices of two labellers" if alpha is None else f"Krippendorff's alpha {alpha:.3f}")
    finally:
        store.close()


def own_labels() -> Path:
    """Where labels are kept that no other file was named for."""
    from twofile.params.names import models_folder

    return models_folder().parent / "labels.db"


def answered(items: Iterator[Item], name: str, longest: int, seed: int) -> Iterator[Item]:
    """The same items, with two replies of a model to those that have none."""
    import dataclasses

    from twofile.engine.sampler import Sampling
    from twofile.engine.scheduler import Scheduler
    from twofile.engine.stream import Stream
    from twofile.engine.template import ChatTemplate

    def text(stream: Stream) -> str:
        return "".join(piece.text for piece in stream).strip()

    with open_engine(name, {}) as engine, Scheduler(engine) as scheduler:
        template = ChatTemplate.of(engine)
        asked: list[tuple[Item, list[Stream]]] = []
        for number, item in enumerate(items):
            prompt = template.render(item.messages, tools=item.tools or None) if not item.replies else []
            seeds = (seed + 2 * number, seed + 2 * number + 1)
            streams = [scheduler.submit(prompt, Sampling(temperature=1.0, seed=s), longest) for s in seeds if prompt]
            asked.append((item, streams))
        for item, streams in asked:
            yield dataclasses.replace(item, replies=tuple(map(text, streams))) if streams else item


def _serve(store: Store, instructions: Path | None, each: int, port: int, browser: bool) -> None:
    import webbrowser

    import uvicorn

    from twofile.serve.label.app import make_app

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise LabelError(f"port {port} cannot be used ({error.strerror})", "give another --port") from error
        port = listening.getsockname()[1]
        text = instructions.read_text("utf-8") if instructions else ""
        address = f"http://127.0.0.1:{port}/"
        config = uvicorn.Config(make_app(store, port, text, each), log_level="warning")
        click.echo(address)
        note(f"labels are kept in {store.path}; Ctrl-C stops")
        if browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listening])
