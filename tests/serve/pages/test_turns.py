"""Turns under way: seen by who comes late, asked and answered, stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import pytest

from twofile.errors import KernelError
from twofile.kernel.label import Label
from twofile.kernel.process import Answer, Asking, Said
from twofile.serve.pages.turns import Live, Turns

Approve = Callable[[Asking], Answer]


class _Process:
    """As much of a process as a turn needs."""

    def __init__(self) -> None:
        self.pid, self.stopped = 1, threading.Event()
        self.log = SimpleNamespace(events=lambda pid: [SimpleNamespace(seq=7)])

    def stop(self) -> None:
        self.stopped.set()


def _asking(number: int) -> Asking:
    return Asking(1, f"tool{number}", {}, "py:exec", Label.of("user"))


def _waits(live: Live, asking: Asking) -> None:
    changed = threading.Event()
    leave = live.listen(changed.set)
    while live.asking is not asking:
        changed.wait(0.05)
    leave()


def test_who_comes_late_sees_all_of_it() -> None:
    def how(approve: Approve) -> Generator[Said, None, None]:
        yield Said("text", "one ")
        yield Said("text", "two")
        yield Said("call", body={"id": "a"})
        yield Said("result", "three", {"call": "a"})
        yield Said("text", "four")

    live = Turns().begin(_Process(), how)  # type: ignore[arg-type]
    assert live.wait(10)
    assert [(part.kind, part.text, part.ended) for part in live.parts] == [
        ("text", "one two", True), ("call", "", True), ("result", "three", True), ("text", "four", True),
    ]  # fmt: skip
    assert (live.since, live.error) == (7, "")


def test_an_answer_is_to_the_question_that_was_seen() -> None:
    first, second = _asking(1), _asking(2)
    given: list[Answer] = []

    def how(approve: Approve) -> Generator[Said, None, None]:
        given.extend(approve(one) for one in (first, second))
        yield Said("done")

    live = Turns().begin(_Process(), how)  # type: ignore[arg-type]
    _waits(live, first)
    always = Answer("allow", "always")
    live.answer(first, always)
    live.answer(first, always)  # a double click
    _waits(live, second)
    live.answer(first, always)
    assert not live.wait(0.2)
    live.answer(second, Answer("deny"))
    assert live.wait(10)
    assert given == [always, Answer("deny")]


@pytest.mark.parametrize("early", [True, False])
def test_stopped_it_asks_no_more(early: bool) -> None:
    process, go = _Process(), threading.Event()
    given: list[Answer] = []

    def how(approve: Approve) -> Generator[Said, None, None]:
        go.wait()
        given.append(approve(_asking(1)))
        yield Said("done")

    live = Turns().begin(process, how)  # type: ignore[arg-type]
    if early:
        live.stop()
        go.set()
    else:
        go.set()
        while live.asking is None:
            live.wait(0.01)
        live.stop()
    assert live.wait(10)
    assert given == [Answer("deny")]
    assert process.stopped.is_set()


def test_one_turn_of_a_process_and_errors_in_words() -> None:
    turns, go, process = Turns(), threading.Event(), _Process()

    def how(approve: Approve) -> Generator[Said, None, None]:
        go.wait()
        raise KernelError("it is over", "fork it")
        yield Said("done")

    def broken(approve: Any) -> Generator[Said, None, None]:
        raise RuntimeError("bad")
        yield Said("done")

    live = turns.begin(process, how)  # type: ignore[arg-type]
    with pytest.raises(KernelError, match="speaking"):
        turns.begin(process, how)  # type: ignore[arg-type]
    assert turns.speaking(1) is live
    go.set()
    assert live.wait(10)
    assert (live.error, turns.speaking(1), turns.of(1)) == ("it is over. fork it", None, live)
    again = turns.begin(process, broken)  # type: ignore[arg-type]
    assert again.wait(10)
    assert again.error == "the turn failed: RuntimeError: bad"
    turns.forget([1])
    assert turns.of(1) is None
