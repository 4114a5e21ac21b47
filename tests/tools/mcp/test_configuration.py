"""Which servers there are, as a file says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twofile.errors import ToolError
from twofile.tools.mcp.configuration import Local, Remote, read_servers


def written(tmp_path: Path, server: Any, name: str = "one") -> Path:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {name: server}}))
    return path


def test_both_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret")
    path = tmp_path / "mcp.json"
    servers = {
        "files": {"command": "npx", "args": ["-y", "files", "/data"], "env": {"TOKEN": "${KEY}", "A": "b"}},
        "web": {"type": "http", "url": "https://example.org/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
        "off": {"command": "x", "disabled": True},
        "more": {"command": "x", "alwaysAllow": ["rm"], "timeout": 3},
    }
    path.write_text(json.dumps({"mcpServers": servers, "theme": "dark"}))
    files, web, more = read_servers(path)
    assert files == Local("files", "npx", ("-y", "files", "/data"), {"TOKEN": "secret", "A": "b"})
    assert web == Remote("web", "https://example.org/mcp", {"Authorization": "Bearer secret"})
    assert more.ignored == ("alwaysAllow", "timeout")
    assert "secret" not in repr(files) + repr(web)


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "mcp.toml"
    path.write_text('[mcpServers.clock]\ncommand = "clock"\nargs = ["--utc"]\n')
    assert read_servers(path) == [Local("clock", "clock", ("--utc",))]


@pytest.mark.parametrize(
    ("server", "field"),
    [
        ({}, "mcpServers.one "),
        ({"command": "a", "url": "http://a"}, "mcpServers.one "),
        ("npx", "mcpServers.one "),
        ({"command": 3}, "mcpServers.one.command"),
        ({"command": ""}, "mcpServers.one.command"),
        ({"command": "a\0b"}, "mcpServers.one.command"),
        ({"command": "a", "args": "b"}, "mcpServers.one.args"),
        ({"command": "a", "args": [1]}, "mcpServers.one.args"),
        ({"command": "a", "env": {"A": 1}}, "mcpServers.one.env"),
        ({"command": "a", "env": {"A=B": "c"}}, "mcpServers.one.env.A=B"),
        ({"command": "a", "env": {"A": "${NO_SUCH_VARIABLE}"}}, "mcpServers.one.env.A"),
        ({"command": "a", "cwd": "/no/such/folder"}, "mcpServers.one.cwd"),
        ({"command": "a", "cwd": "~nobody-of-this-name/a"}, "mcpServers.one.cwd"),
        ({"command": "a", "disabled": "true"}, "mcpServers.one.disabled"),
        ({"command": "a", "type": "http"}, "mcpServers.one.type"),
        ({"url": "http://a", "type": "sse"}, "mcpServers.one.type"),
        ({"url": "file:///etc/passwd"}, "mcpServers.one.url"),
        ({"url": "http://"}, "mcpServers.one.url"),
        ({"url": "http://a:99999/"}, "mcpServers.one.url"),
        ({"url": "http://a/\nb"}, "mcpServers.one.url"),
        ({"url": 5}, "mcpServers.one.url"),
        ({"url": "http://me:secret@a/"}, "mcpServers.one.url"),
        ({"url": "http://a", "headers": {"A": "b\r\nC: d"}}, "mcpServers.one.headers.A"),
        ({"url": "http://a", "headers": {"A B": "c"}}, "mcpServers.one.headers.A B"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, server: Any, field: str) -> None:
    path = written(tmp_path, server)
    with pytest.raises(ToolError) as error:
        read_servers(path)
    assert f"{path}: {field}" in error.value.message
    assert "secret" not in error.value.message


@pytest.mark.parametrize("name", ["", "a b", "1a", "a.b", "a/b", "a" * 33, "ä"])
def test_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolError, match="name that cannot be used"):
        read_servers(written(tmp_path, {"command": "a"}, name))


@pytest.mark.parametrize(
    "said",
    [b"", b"[]", b"{", b'{"mcpServers": []}', b"{}", b"\xff", b"[" * 100_000, b" " * (1 << 21),
     b'{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}'],
)  # fmt: skip
def test_what_is_no_configuration(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "mcp.json"
    path.write_bytes(said)
    with pytest.raises(ToolError) as error:
        read_servers(path)
    assert str(path) in error.value.message
    assert error.value.hint


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be read"):
        read_servers(tmp_path / "none.json")
