"""The tools of a user: what a file says, what each lacks, and that nothing is started which nobody wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twofile.errors import ToolError
from twofile.kernel.driver import Drivers
from twofile.tools.toolbox import BUILT_IN, Config, Toolbox


def config(tmp_path: Path, **table: Any) -> Config:
    (tmp_path / "tools.json").write_text(json.dumps(table))
    return Config.read(tmp_path / "tools.json")


def test_nothing_is_configured(tmp_path: Path) -> None:
    with Toolbox(Config.read(tmp_path / "tools.json")) as box:
        made = box.drivers(["calculator", "clock", "plot", "image", "python", "browser", "calculator"])
        Drivers(made)
        assert [one.name for one in made] == ["calculator", "clock", "plot", "image", "python", "browser"]
        for name in ("search", "read_file", "write_file", "list_files"):
            with pytest.raises(ToolError) as raised:
                box.driver(name)
            assert "--grant" in raised.value.hint
        with pytest.raises(ToolError, match="no engine of the web"):
            box.driver("web_search")
        with pytest.raises(ToolError, match="no tool 'telephone'"):
            box.driver("telephone")


def test_what_is_granted_is_what_tools_have(tmp_path: Path) -> None:
    notes, other = tmp_path / "notes", tmp_path / "other"
    for folder in (notes, other):
        folder.mkdir()
    (notes / "a.txt").write_text("The heron stands in the reeds.")
    path = tmp_path / "tools.json"
    Config.read(path).grant(notes, write=False)
    Config.read(path).grant(other, write=True)
    Config.read(path).grant(other, write=True)
    found = Config.read(path)
    assert (found.folders, found.writable) == ((notes.resolve(), other.resolve()), (other.resolve(),))
    with Toolbox(found) as box:
        drivers = Drivers(box.drivers(name for name in BUILT_IN if name != "web_search"))
        assert list(drivers["search"].needs({"query": "x"})) == [f"fs:read:{notes}", f"fs:read:{other}"]
        assert list(drivers["read_file"].needs({"path": str(notes / "a.txt")})) == [f"fs:read:{notes / 'a.txt'}"]
        with pytest.raises(ValueError, match="granted"):
            drivers["write_file"].needs({"path": str(notes / "a.txt"), "text": "x"})
        assert f"fs:read:{notes}" in drivers["python"].needs({})
    found.forget(other)
    assert Config.read(path).folders == (notes.resolve(),)
    assert Config.read(path).writable == ()
    with pytest.raises(ToolError, match="not granted"):
        Config.read(path).forget(other)
    with pytest.raises(ToolError, match="no folder"):
        Config.read(path).grant(notes / "a.txt", write=False)


def test_the_web_is_asked_apart(tmp_path: Path) -> None:
    """A question about the user's own files is not sent to an engine."""
    folder = tmp_path / "notes"
    folder.mkdir()
    with Toolbox(config(tmp_path, folders=[str(folder)], searxng="https://search.example.org")) as box:
        assert list(box.driver("search").needs({"query": "x"})) == [f"fs:read:{folder}"]
        assert list(box.driver("web_search").needs({"query": "x"})) == ["net:search.example.org"]


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"folder": []}, "folder"),
        ({"folders": "x"}, "folders"),
        ({"folders": [1]}, "folders"),
        ({"brave": 3}, "brave"),
        ({"images": {"address": "x"}}, "images"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, table: dict[str, Any], field: str) -> None:
    with pytest.raises(ToolError, match=field):
        config(tmp_path, **table)


def test_a_server_is_started_for_those_who_want_its_tools(tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="mcp is not installed")
    mark = tmp_path / "started"
    servers = {"files": {"command": "touch", "args": [str(mark)]}}
    with Toolbox(config(tmp_path, mcpServers=servers)) as box:
        box.driver("calculator")
        assert not mark.exists()
        with pytest.raises(ToolError, match=r"no server offers the tool 'files\.list'"):
            box.driver("files.list")
        assert mark.exists()
