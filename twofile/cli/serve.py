"""`twofile serve`: models behind the API that OpenAI's clients speak."""

from __future__ import annotations

import ipaddress
import socket
import threading
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from twofile.cli.console import note
from twofile.cli.options import engine_options, find, open_engine
from twofile.cli.processes import log_option, log_path, opening
from twofile.cli.tools import config_of
from twofile.errors import TwofileError


@click.command("serve")
@click.argument("names", nargs=-1, metavar="NAME [NAME2 ...]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; beyond loopback with --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--token", envvar="TWOFILE_TOKEN", default="", help="What clients must send as their key.")
@click.option("--pages/--no-pages", "pages", default=None, help="Pages, too. [on loopback without a token]")
@click.option("--open", "browser", is_flag=True, help="Open the pages in a browser.")
@log_option
@click.option("--remote", multiple=True, metavar="URL", help="Also the models of this server (vLLM, llama-server).")
@click.option("--remote-key", envvar="TWOFILE_REMOTE_KEY", default="", help="What those servers must be sent.")
@engine_options
def serve_command(
    names: tuple[str, ...],
    host: str,
    port: int,
    token: str,
    pages: bool | None,
    browser: bool,
    path: Path | None,
    remote: tuple[str, ...],
    remote_key: str,
    how: dict[str, Any],
) -> None:
    """Serve pages to talk with models, look into them and make them, and the models NAME under /v1: chat/completions,
    completions, embeddings, models. Ctrl-C stops.

    A client needs the address and the model's name: OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any").
    """
    import uvicorn

    from twofile.serve.api.app import Served, make_app
    from twofile.serve.api.remote import Remote, remotes

    if how["adapter"] is not None and len(names) > 1:
        raise click.UsageError("--adapter is of one model: serve it alone, or merge it (twofile merge)")
    anywhere = not _is_loopback(host)
    if anywhere and not token:
        raise TwofileError(f"{host} can be reached by others, so there must be a token", "give --token SECRET")
    if pages and (anywhere or token):
        raise click.UsageError("the pages are for this machine: leave --host and --token out, or say --no-pages")
    pages = not (anywhere or token) if pages is None else pages
    if not (names or remote or pages):
        raise click.UsageError("give the names of models, or --remote")
    with ExitStack() as open_, socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise TwofileError(f"{host}:{port} cannot be used ({error.strerror})", "give another --port") from error
        port = listening.getsockname()[1]
        models: dict[str, Served | Remote] = {}

        def add(model: Served | Remote) -> None:
            if model.name in models:
                raise TwofileError(f"two models have the name {model.name}", "serve one of them, or rename one")
            models[model.name] = model

        for url in remote:
            for found in remotes(url, remote_key):
                add(found)
        kernel = None
        if pages:
            from twofile.kernel.kernel import Kernel

            kernel = open_.enter_context(
                Kernel(log_path(path), opener=lambda model, adapter: opening(model, adapter, how))
            )
        paths: list[Path] = []
        for name in names or (("assistant",) if pages and not remote else ()):
            short = name.removesuffix(".gguf").rpartition("/")[2]
            if kernel is not None:
                adapter = str(how["adapter"].resolve()) if how["adapter"] else ""
                paths.append(find(name))
                add(Served.of(short, kernel.image(str(paths[-1]), adapter)))
                continue
            served = Served.open(short, open_.enter_context(open_engine(name, how)))
            open_.callback(served.scheduler.close)
            add(served)
        app = make_app(models, port, token=token, anywhere=anywhere, host="" if anywhere else host)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if kernel is not None:
            from twofile.params.names import models_folder
            from twofile.serve.pages.desk import Desk
            from twofile.serve.pages.site import add_pages
            from twofile.tools.toolbox import Toolbox

            box = open_.enter_context(Toolbox(config_of()))
            add_pages(app, open_.enter_context(Desk(kernel, box, models_folder().parent, paths)))
        click.echo(f"{address}/v1")
        if kernel is not None:
            click.echo(f"pages: {address}/")
        note(f"models: {', '.join(models)}; Ctrl-C stops")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        if browser and kernel is not None:
            threading.Timer(0.5, webbrowser.open, [f"{address}/"]).start()
        server.run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
