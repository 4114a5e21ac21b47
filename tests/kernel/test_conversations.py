"""Conversations: titles, search, versions, forgetting, and export and import."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from twofile.errors import KernelError
from twofile.kernel.conversations import Conversations, Version
from twofile.kernel.label import Label
from twofile.kernel.log import Log
from twofile.kernel.page import view_of


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "kernel.db")


def _begun(log: Log, *said: str) -> int:
    """A process in which a user and an assistant spoke by turns."""
    event = log.begin("begin", {"model": "m", "system": "be kind", "tools": ["python"], "limit": ["py:exec"]})
    return _said(log, event.pid, *said)


def _said(log: Log, pid: int, *said: str) -> int:
    for number, words in enumerate(said):
        log.append(pid, ("user", "assistant")[number % 2], {"text": words}, log.end(pid))
    return pid


def _texts(log: Log, pid: int) -> list[str]:
    return [event.body["text"] for event in log.events(pid) if event.kind in ("user", "assistant")]


def test_the_newest_is_first_and_found_by_words(log: Log) -> None:
    first = _begun(log, "Tell me of Owls", "They fly at night: 100%.")
    second = _begun(log, "And foxes?", "Red ones.")
    kept = Conversations(log)
    assert [(one.root, one.title) for one in kept.all()] == [(second, "And foxes?"), (first, "Tell me of Owls")]
    assert [one.root for one in kept.all("owls")] == [first]
    assert [one.root for one in kept.all("100%")] == [first]
    assert [one.root for one in kept.all("%")] == [first]  # a sign as every other
    assert kept.all("badger") == []
    kept.rename(first, "Birds of the night")
    assert [one.title for one in kept.all("birds")] == ["Birds of the night"]


def test_versions_are_found_from_every_branch(log: Log) -> None:
    root = _begun(log, "one", "first reply", "two", "second reply")
    seqs = [event.seq for event in log.events(root)]
    again = log.fork(root, seqs[1]).pid  # the first reply, made again
    log.append(again, "assistant", {"text": "another first reply"}, log.end(again))
    edited = log.fork(root, seqs[2]).pid  # the second question, edited
    _said(log, edited, "two and a half", "its reply")
    kept = Conversations(log)
    assert kept.family(edited) == [root, again, edited]
    of_root = kept.versions(root)
    assert [one.seq for one in of_root[seqs[2]]] == [seqs[2], log.events(again)[-1].seq]
    assert of_root[seqs[2]][1].process == again
    edited_seq = log.events(edited)[-2].seq
    assert of_root[seqs[3]] == [Version(seqs[3], root), Version(edited_seq, edited)]
    assert kept.versions(edited)[edited_seq] == [Version(seqs[3], root), Version(edited_seq, edited)]
    assert set(kept.versions(again)) == {log.events(again)[-1].seq}


def test_what_is_forgotten_is_on_the_disk_no_more(log: Log, tmp_path: Path) -> None:
    gone, stays = _begun(log, "my secret walrus", "hush"), _begun(log, "something else", "yes")
    both, alone = log.keep(b"seen in both", "png"), log.keep(b"seen in one", "png")
    attached = log.keep(b"attached", "png")
    shown = {"text": "", "files": [{"name": "a.png", "picture": attached}]}
    log.append(gone, "user", {"text": "look", "shown": shown}, log.end(gone))
    for pid, names in ((gone, [both, alone]), (stays, [both])):
        body = {"call": "a", "name": "plot", "text": "", "images": [{"name": name, "about": ""} for name in names]}
        log.append(pid, "result", body, log.end(pid))
    kept = Conversations(log)
    branch = log.fork(gone).pid
    kept.rename(branch, "walrus title")
    with log.speaking(gone), pytest.raises(KernelError, match="speaking"):
        kept.forget(branch)
    kept.forget(branch)
    assert [one.root for one in kept.all()] == [stays]
    with pytest.raises(KernelError):
        log.events(gone)
    assert log.kept(both).exists()
    assert not log.kept(alone).exists()
    assert not log.kept(attached).exists()
    log.close()
    assert not any(b"walrus" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_exported_and_read_back(log: Log) -> None:
    root = _begun(log, "one", "first", "two", "second")
    branch = _said(log, log.fork(root, log.events(root)[2].seq).pid, "other", "its reply")
    kept = Conversations(log)
    kept.rename(root, "A talk")
    given = json.loads(json.dumps(kept.exported(branch)))
    new = kept.imported(given, "other model")
    assert _texts(log, new) == ["one", "first", "other", "its reply"]
    assert len(kept.family(new)) == 2
    assert _texts(log, kept.family(new)[0]) == ["one", "first", "two", "second"]
    assert [one.title for one in kept.all()] == ["A talk", "A talk"]
    view = view_of(log.events(new), len)
    assert (view.model, view.system, view.tools, view.limit) == ("other model", "", (), ())
    assert not any(page.label.trusted for turn in view.turns for page in turn.pages)


def _with(exported: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Its first process, with another event."""
    first = exported["processes"][0]
    return {**first, "events": [*first["events"], {**first["events"][-1], **more}]}


def _deep() -> dict[str, Any]:
    held: Any = 1
    for _ in range(200):
        held = [held]
    return {"id": "a", "name": "b", "arguments": {"x": held}}


def test_a_branch_of_nothing_said_is_read_back_so(log: Log) -> None:
    root = _begun(log, "one", "first")
    branch = _said(log, log.fork(root, log.events(root)[0].seq).pid, "other", "its reply")
    kept = Conversations(log)
    assert _texts(log, kept.imported(kept.exported(branch), "m")) == ["other", "its reply"]


def test_many_branches_are_looked_at_together(log: Log) -> None:
    root = _begun(log, *["words"] * 200)
    pid = root
    for _ in range(1200):  # each of the one before
        pid = log.fork(pid).pid
    kept = Conversations(log)
    start = time.monotonic()
    assert len(log.events(pid)) == 1401
    assert kept.versions(pid) == {}
    assert len(kept.all()) == 1
    assert time.monotonic() - start < 5


def test_messages_are_read_and_nonsense_is_refused(log: Log) -> None:
    kept = Conversations(log)
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    assert _texts(log, kept.imported(messages, "m")) == ["u", "a"]
    good = kept.exported(kept.all()[0].root)
    before = len(log.processes())
    for wrong in (
        None, 7, "text", [], [{"role": "user"}], [{"role": "user", "content": 7}], {"form": "other"},
        {**good, "processes": []}, {**good, "processes": [{}]}, {**good, "processes": None},
        {**good, "processes": good["processes"] * 600}, {**good, "processes": [_with(good, seq=float("inf"))]},
        {**good, "processes": [_with(good, kind="assistant", body={"text": "", "calls": [_deep()]})]},
        {**good, "processes": [*good["processes"], {"process": 9, "of": 77, "upto": 1, "events": []}]},
    ):  # fmt: skip
        with pytest.raises(KernelError):
            kept.imported(wrong, "m")
    assert len(log.processes()) == before


def test_what_was_imported_is_no_word_of_the_user(log: Log) -> None:
    pid = Conversations(log).imported([{"role": "user", "content": "u"}], "m")
    assert not Label.from_json(log.events(pid)[-1].body["label"]).trusted
