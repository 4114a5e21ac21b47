"""Drivers that crash, hang, flood and speak no UTF-8 are contained; wrong ones are not taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from twofile.errors import KernelError
from twofile.kernel.driver import Context, Drivers, Part, image, run_driver
from twofile.kernel.label import Label


@dataclass
class Scripted:
    """A driver that does what it is told."""

    does: Any = ""
    name: str = "scripted"
    about: str = "does what it is told"
    pure: bool = True
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        found: Iterable[Part | str | bytes] = self.does(context) if callable(self.does) else self.does
        return found

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label.of("page:x")


def context(seconds: float = 5.0) -> Context:
    return Context(1, time.monotonic() + seconds)


def test_parts_and_label() -> None:
    found = run_driver(Scripted(["a", b"b\xffc", {"type": "sound", "data": "x"}]), {}, context())
    assert found.text == "ab\ufffdc[sound]"
    assert not found.error
    assert found.label == Label.of("page:x")


def test_pictures_have_words_and_room_of_their_own() -> None:
    picture = image(b"x" * 1000, "image/png", "a line that falls")
    found = run_driver(Scripted([picture, "and", picture]), {}, context(), most=100, pictures=1500)
    assert found.text.startswith("[image: a line that falls]and[a picture of 1,000 bytes, which is too large: ")
    assert found.images == [picture]
    assert found.cut


def fails(context: Context) -> Iterable[str]:
    yield "some"
    raise RuntimeError("boom")


def says_why(context: Context) -> Iterable[str]:
    raise ValueError("there is no such page")


def leaves(context: Context) -> Iterable[str]:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (fails, "someerror: the tool failed (RuntimeError: boom)"),
        (says_why, "error: there is no such page"),
        (leaves, "error: the tool failed (SystemExit: 3)"),
        ([7], "error: the tool failed"),
    ],
)
def test_failures_are_told(does: Any, words: str) -> None:
    found = run_driver(Scripted(does), {}, context())
    assert found.error
    assert words in found.text


def test_one_that_hangs() -> None:
    stopped = threading.Event()

    def hangs(context: Context) -> Iterable[str]:
        context.wait(60)
        stopped.set()
        return ()

    start = time.monotonic()
    found = run_driver(Scripted(hangs), {}, context(0.3))
    assert time.monotonic() - start < 2
    assert "took longer than" in found.text
    assert stopped.wait(2)  # it was told


def test_one_that_nobody_wants_any_more() -> None:
    found = run_driver(Scripted(lambda c: [str(c.wait(60))]), {}, context(60), poll=lambda: True)
    assert "was cancelled" in found.text


def test_a_flood() -> None:
    made = 0

    def floods(context: Context) -> Iterable[str]:
        nonlocal made
        for _ in range(100):
            made += 1
            yield "é" * (1 << 19)

    found = run_driver(Scripted(floods), {}, context(), most=1000)
    assert found.cut
    assert len(found.text.encode()) < 1100
    assert "there was more than 1,000 bytes" in found.text
    assert made <= 2
    assert run_driver(Scripted("x" * (100 << 20)), {}, context(), most=1000).cut


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a b"}, "cannot have the name"),
        ({"name": ""}, "cannot have the name"),
        ({"schema": {"type": "array"}}, "not object"),
        ({"schema": {"type": "object", "properties": {"a": {"type": 7}}}}, "cannot be used"),
        ({"schema": "text"}, "cannot be used"),
    ],
)
def test_what_is_no_driver(change: dict[str, Any], words: str) -> None:
    with pytest.raises(KernelError, match=words):
        Drivers([Scripted(**change)])


def test_names() -> None:
    drivers = Drivers([Scripted()])
    with pytest.raises(KernelError, match="already"):
        drivers.add(Scripted())
    with pytest.raises(KernelError, match="there are: scripted"):
        drivers["other"]
