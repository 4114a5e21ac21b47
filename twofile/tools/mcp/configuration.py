"""Which servers there are: a JSON or TOML file with `mcpServers`, as other programs have it.

`{"mcpServers": {NAME: {"command": ..., "args": [...], "env": {...}, "cwd": ...}}}` is a program that is spoken to over
its pipes, `{"url": ..., "headers": {...}}` one that is reached over HTTP; `"disabled": true` leaves a server out.
`${NAME}` in `env` and `headers` stands for a variable of this program's environment. What else a file says is not
heeded, and is listed in `ignored`: approvals above all are given here, never by a file.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from twofile.errors import ToolError

__all__ = ["Configured", "Local", "Remote", "read_servers"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_MOST = 1 << 20  # bytes of a file
_LOCAL, _REMOTE = {"command", "args", "env", "cwd"}, {"url", "headers"}


@dataclass(frozen=True)
class Local:
    """A server that is a program here. Of this program's environment it gets PATH, HOME and LANG, and `environment`."""

    name: str
    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # keys to services, often
    folder: str | None = None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remote:
    """A server that is reached over streamable HTTP."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ignored: tuple[str, ...] = ()


Configured = Local | Remote


def read_servers(path: Path | str) -> list[Configured]:
    """The servers of a file. ToolError names the file and the field that is wrong."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST + 1)
        if len(raw) > _MOST:
            raise ValueError(f"it has more than {_MOST:,} bytes")
        said = raw.decode("utf-8")
        table = tomllib.loads(said) if path.suffix == ".toml" else json.loads(said, object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ToolError(f"{path} cannot be read: {error}", 'a file such as {"mcpServers": {"NAME": {...}}}') from error
    servers = table.get("mcpServers") if isinstance(table, dict) else None
    if not isinstance(servers, dict):
        raise ToolError(f"{path}: there is no object mcpServers in it", '{"mcpServers": {"NAME": {"command": ...}}}')
    return [
        _server(path, name, one)
        for name, one in servers.items()
        if not (isinstance(one, dict) and one.get("disabled") is True)
    ]


def _server(path: Path, name: str, table: Any) -> Configured:
    def wrong(field: str, what: str, hint: str = "") -> NoReturn:
        raise ToolError(f"{path}: mcpServers.{name}{field and '.' + field} {what}", hint)

    def strings(field: str) -> dict[str, str]:
        found = table.get(field, {})
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            wrong(field, "must be an object of texts")
        for key, value in found.items():
            for name in _VARIABLE.findall(value):
                if name not in os.environ:
                    wrong(f"{field}.{key}", f"names the variable {name}, which is not set", f"export {name}=...")
        return {key: _VARIABLE.sub(lambda match: os.environ[match[1]], value) for key, value in found.items()}

    if not _NAME.fullmatch(name):
        wrong("", "has a name that cannot be used", "at most 32 letters, digits, _ and -, a letter first")
    if not isinstance(table, dict):
        wrong("", "must be an object")
    if not isinstance(table.get("disabled", False), bool):
        wrong("disabled", "must be true or false")
    if ("command" in table) == ("url" in table):
        wrong("", "must have a command, or a url, and not both")
    kind = table.get("type", table.get("transport"))
    if kind not in (None, *(("stdio",) if "command" in table else ("http", "streamable-http", "streamableHttp"))):
        wrong("type", f"cannot be {kind!r} here", "stdio with a command, streamable-http with a url")
    known = _LOCAL if "command" in table else _REMOTE
    ignored = tuple(sorted(set(table) - known - {"type", "transport", "disabled"}))
    if "url" in table:
        headers = strings("headers")
        for key, value in headers.items():
            if not _HEADER.fullmatch(key) or any(c in value for c in "\r\n\0") or not value.isascii():
                wrong(f"headers.{key}", "is no header of HTTP")
        try:
            parts = urlsplit(table["url"])
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except (ValueError, TypeError, AttributeError):
            right = False
        if not right or re.search(r"[\x00-\x20\x7f]", table["url"]):
            wrong("url", f"must be an http or https address, not {table['url']!r}")
        if parts.username is not None or parts.password is not None:
            wrong("url", "must not have a password in it", "put it into headers.Authorization")
        return Remote(name, table["url"], headers, ignored)
    arguments, folder = table.get("args", []), table.get("cwd")
    if not isinstance(table["command"], str) or not table["command"] or "\0" in table["command"]:
        wrong("command", "must be the name or path of a program")
    if not isinstance(arguments, list) or not all(isinstance(one, str) and "\0" not in one for one in arguments):
        wrong("args", "must be a list of texts")
    if folder is not None and not (isinstance(folder, str) and Path(os.path.expanduser(folder)).is_dir()):
        wrong("cwd", f"must be a folder, and {folder!r} is none")
    environment = strings("env")
    for key, value in environment.items():
        if not key or "=" in key or "\0" in key + value:
            wrong(f"env.{key}", "is no variable of an environment")
    return Local(
        name, table["command"], tuple(arguments), environment, folder and os.path.expanduser(folder), ignored
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, each of whose keys is there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"{twice!r} is there twice")
    return found
