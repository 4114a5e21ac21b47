"""All tools of a user: what is configured in one file, made into drivers when a process wants them.

The file is JSON, all of it optional: `folders` and `writable` (that tools may be granted), `zim` (archives), `searxng`
(an address), `brave` (a key), `images` ({"url", "key"}), `mcpServers` (as other programs have it). Guarantee: what
stands in it is the most that can be granted; each process is asked for what it does all the same. Nothing is started
that no process wants: a sandbox at the first program, an MCP server for those that name a tool of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx2

from twofile.errors import ToolError
from twofile.kernel.driver import Driver
from twofile.params.atomic import read_json, write_json

__all__ = ["BUILT_IN", "Config", "Toolbox"]

_HINT = '{"folders": ["~/notes"], "searxng": "http://127.0.0.1:8888", "mcpServers": {}}'
_FIELDS = {"folders", "writable", "zim", "searxng", "brave", "images", "mcpServers"}


@dataclass(frozen=True)
class Config:
    """What a file says. `path`: where it is, or would be."""

    path: Path
    folders: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    zim: tuple[Path, ...] = ()
    searxng: str = ""
    brave: str = field(default="", repr=False)
    images: str = ""
    images_key: str = field(default="", repr=False)
    servers: bool = False

    @classmethod
    def read(cls, path: Path) -> Config:
        """What is in a file; nothing where there is none. ToolError names the field at fault."""
        if not path.exists():
            return cls(path)
        table = read_json(path, ToolError, _HINT)
        if unknown := sorted(set(table) - _FIELDS):
            raise ToolError(f"{path}: there is no field {unknown[0]!r}", f"fields: {', '.join(sorted(_FIELDS))}")
        images = table.get("images", {})
        if not isinstance(images, dict) or not set(images) <= {"url", "key"}:
            raise ToolError(f"{path}: images must be an object of url and key", _HINT)
        folders, writable, zim = (_paths(path, table, name) for name in ("folders", "writable", "zim"))
        searxng, brave = (_text(path, table, name) for name in ("searxng", "brave"))
        url, key = (_text(path, images, name) for name in ("url", "key"))
        return cls(path, folders, writable, zim, searxng, brave, url, key, bool(table.get("mcpServers")))

    def grant(self, folder: Path, write: bool) -> None:
        """Add a folder, for reading or for writing too, to the file. ToolError where it is none."""
        real = folder.expanduser().resolve()
        if not real.is_dir():
            raise ToolError(f"{folder} is no folder")
        self._change(lambda paths: paths if str(real) in paths else [*paths, str(real)], write)

    def forget(self, folder: Path) -> None:
        """Take a folder out of the file. ToolError where it is not in it."""
        real = folder.expanduser().resolve()
        if real not in (*self.folders, *self.writable):
            raise ToolError(f"{folder} is not granted", "twofile tools lists what is")
        self._change(lambda paths: [one for one in paths if Path(one).expanduser().resolve() != real], True)

    def _change(self, how: Callable[[list[str]], list[str]], writable: bool) -> None:
        table: dict[str, Any] = read_json(self.path, ToolError, _HINT) if self.path.exists() else {}
        for name in ("folders", "writable") if writable else ("folders",):
            table[name] = how(list(table.get(name, [])))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, table)


def _paths(path: Path, table: dict[str, Any], name: str) -> tuple[Path, ...]:
    given = table.get(name, [])
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        raise ToolError(f"{path}: {name} must be a list of paths", _HINT)
    return tuple(Path(one).expanduser().resolve() for one in given)


def _text(path: Path, table: dict[str, Any], name: str) -> str:
    given = table.get(name, "")
    if not isinstance(given, str):
        raise ToolError(f"{path}: {name} must be a text", _HINT)
    return given


class Toolbox:
    """A context manager: at its end nothing that a tool started is left."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stack = ExitStack()
        self._made: dict[str, Driver] = {}
        self._servers: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was started."""
        self._made.clear()
        self._stack.close()

    def drivers(self, wanted: Iterable[str]) -> list[Driver]:
        """The drivers of these names. ToolError for one that there is not, or that lacks what it works with."""
        return [self.driver(name) for name in dict.fromkeys(wanted)]

    def driver(self, name: str) -> Driver:
        """The driver of a name, made once."""
        if name not in self._made:
            if name in BUILT_IN:
                self._made[name] = BUILT_IN[name](self)
            else:
                self._made[name] = self._of_server(name)
        return self._made[name]

    @property
    def servers(self) -> Any:
        """The MCP servers, `mcp.client.Servers`, started. ToolError where none are configured."""
        if self._servers is None:
            from twofile.tools.mcp.client import Servers
            from twofile.tools.mcp.configuration import read_servers
            from twofile.tools.mcp.pins import Pins

            if not self.config.servers:
                raise ToolError("no MCP servers are configured", f"mcpServers in {self.config.path}")
            pins = Pins(self.config.path.with_name("mcp-pins.json"))
            self._servers = self._stack.enter_context(Servers(read_servers(self.config.path), pins))
            self._servers.refresh()
        return self._servers

    def _of_server(self, name: str) -> Driver:
        known = ", ".join(BUILT_IN)
        if not self.config.servers:
            raise ToolError(f"there is no tool {name!r}", f"there are: {known}")
        servers = self.servers
        for driver in servers.drivers:
            if driver.name == name:
                found: Driver = driver
                return found
        if name in [one.definition.tool for one in servers.waiting]:
            raise ToolError(f"the tool {name} waits for your approval", "twofile tools --approve")
        said = "; ".join(f"{server}: {', '.join(why)}" for server, why in servers.problems.items())
        raise ToolError(f"no server offers the tool {name!r}{f' ({said})' if said else ''}", "twofile tools")

    def _client(self) -> httpx2.Client:
        return self._stack.enter_context(httpx2.Client(trust_env=False))


def _calculator(box: Toolbox) -> Driver:
    from twofile.tools.calculator import Calculator

    return Calculator()


def _python(box: Toolbox) -> Driver:
    from twofile.tools.python import Python

    made = Python(box.config.folders)
    box._stack.callback(made.close)
    return made


def _search(box: Toolbox) -> Driver:
    """What is here: folders and archives. What is asked of them leaves nothing."""
    from twofile.tools.search.index import Index
    from twofile.tools.search.search import Local, Search
    from twofile.tools.search.zim import Zim

    config = box.config
    sources: list[Any] = []
    for folder in config.folders:
        name = f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.db"
        index = Index(folder, config.path.with_name("indexes") / name)
        box._stack.callback(index.close)
        sources.append(Local(index))
    sources += map(Zim, config.zim)
    if not sources:
        raise ToolError("there is nothing to search", "twofile tools --grant FOLDER")
    return Search(sources)


def _web_search(box: Toolbox) -> Driver:
    """The web, apart: a question to it leaves the machine."""
    from twofile.tools.search.search import Search
    from twofile.tools.search.web import Brave, SearXNG

    config = box.config
    sources: list[Any] = []
    if config.searxng:
        sources.append(SearXNG(box._client(), config.searxng))
    if config.brave:
        sources.append(Brave(box._client(), config.brave))
    if not sources:
        raise ToolError("no engine of the web is configured", f"searxng or brave in {config.path}")
    return Search(sources, "web_search", "Looks something up on the web.")


def _browser(box: Toolbox) -> Driver:
    from twofile.tools.browser.browser import Browser

    return Browser()


def _files(kind: str) -> Callable[[Toolbox], Driver]:
    def made(box: Toolbox) -> Driver:
        from twofile.tools import files

        folders = box.config.writable if kind == "WriteFile" else box.config.folders
        if not folders:
            write = " --write" if kind == "WriteFile" else ""
            raise ToolError("no folder is granted", f"twofile tools --grant FOLDER{write}")
        found: Driver = getattr(files, kind)(folders)
        return found

    return made


def _plot(box: Toolbox) -> Driver:
    from twofile.tools.plot import Plot

    return Plot()


def _image(box: Toolbox) -> Driver:
    from twofile.tools.draw import Draw

    return Draw(box.config.images, box.config.images_key)


def _clock(box: Toolbox) -> Driver:
    from twofile.tools.clock import Clock

    return Clock()


BUILT_IN: dict[str, Callable[[Toolbox], Driver]] = {
    "calculator": _calculator, "python": _python, "search": _search, "web_search": _web_search,
    "browser": _browser,
    "read_file": _files("ReadFile"), "write_file": _files("WriteFile"), "list_files": _files("ListFiles"),
    "plot": _plot, "image": _image, "clock": _clock,
}  # fmt: skip
"""How each tool of twofile's own is made. `recall` is the kernel's."""
