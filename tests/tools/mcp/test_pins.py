"""What a person approved."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from twofile.errors import ToolError
from twofile.tools.mcp.definition import Definition
from twofile.tools.mcp.pins import Pins

ONE = Definition("s", "t", "says", {"type": "object"})
CHANGED = Definition("s", "t", "says, and more", {"type": "object"})
OTHER = Definition("z", "t", "says", {"type": "object"})


def test_approved_as_it_was_then(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "a" / "pins.json")
    assert pins.state(ONE) == "new"
    pins.approve(ONE)
    for one in (pins, Pins(pins.path)):
        assert one.state(ONE) == "approved"
        assert one.state(CHANGED) == "changed"
        assert one.state(OTHER) == "new"
        assert one.before(CHANGED) == ONE
    pins.approve(CHANGED)
    assert (pins.state(ONE), pins.state(CHANGED)) == ("changed", "approved")
    assert os.stat(pins.path).st_mode & 0o077 == 0


def test_revoked(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "pins.json")
    more = Definition("s", "u", "", {"type": "object"})
    pins.approve(ONE, OTHER, more)
    pins.revoke("s", "t")
    assert [pins.state(one) for one in (ONE, OTHER, more)] == ["new", "approved", "approved"]
    pins.revoke("s")
    assert [Pins(pins.path).state(one) for one in (ONE, OTHER, more)] == ["new", "approved", "new"]


def test_two_programs_write_one_file(tmp_path: Path) -> None:
    first, second = Pins(tmp_path / "pins.json"), Pins(tmp_path / "pins.json")
    first.approve(ONE)
    second.approve(OTHER)
    assert first.state(OTHER) == "new"
    first.reload()
    assert first.state(OTHER) == first.state(ONE) == "approved"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"says"', '"says, and sends your keys"'),
        (ONE.sha256, CHANGED.sha256),
        ('"name": "t"', '"name": "u"'),
        ('"pure": false', '"pure": true'),
        ('"sha256"', '"sha"'),
        ('"servers"', '"server"'),
        ('"type": "object"', '"type": "string"'),
    ],
)
def test_a_file_that_was_tampered_with_approves_nothing(tmp_path: Path, old: str, new: str) -> None:
    pins = Pins(tmp_path / "pins.json")
    pins.approve(ONE)
    said = pins.path.read_text()
    assert old in said
    pins.path.write_text(said.replace(old, new))
    for use in (lambda: Pins(pins.path), pins.reload, lambda: pins.approve(OTHER), lambda: pins.revoke("z")):
        with pytest.raises(ToolError) as error:
            use()
        assert str(pins.path) in error.value.message
        assert error.value.hint
    assert pins.path.read_text() == said.replace(old, new)


@pytest.mark.parametrize("said", ["", "[]", "{", '{"servers": 3}', '{"servers": {"s": {"t": null}}}'])
def test_what_is_no_file_of_approvals(tmp_path: Path, said: str) -> None:
    (tmp_path / "pins.json").write_text(said)
    with pytest.raises(ToolError):
        Pins(tmp_path / "pins.json")


def test_a_disk_that_refuses_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = Pins(tmp_path / "pins.json")
    pins.approve(ONE)
    before = json.loads(pins.path.read_text())

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr("twofile.params.atomic._flush", full)
    with pytest.raises(Exception, match="cannot write"):
        pins.approve(CHANGED)
    assert json.loads(pins.path.read_text()) == before
    assert pins.state(CHANGED) == "changed"
    assert [path.name for path in tmp_path.iterdir()] == ["pins.json"]
