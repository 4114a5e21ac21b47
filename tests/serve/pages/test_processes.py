"""Processes looked at: what changed is read, and the page of them, live, with what is granted and can be taken back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.kernel.test_process import Writer, play
from tests.serve.pages.conftest import Site, Watched, serious
from tests.tiny import tiny_parameters
from twofile.engine.engine import Engine
from twofile.errors import KernelError
from twofile.kernel.capability import Grant
from twofile.kernel.conversations import Conversations
from twofile.kernel.kernel import Kernel
from twofile.kernel.log import Log
from twofile.kernel.looking import Looker, kill, mapped, replayed, revoke, rules, traced
from twofile.kernel.process import Answer
from twofile.params.names import bundled
from twofile.tools.calculator import Calculator

MODEL = str(bundled()["assistant"])
SUM = ("calculator", {"expression": "6 * 7"})


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    tiny_parameters("qwen3", "F32", 1, tmp_path / "tiny.gguf", context_length=1024)
    drivers = [Calculator(), Writer(tmp_path / "file.txt")]
    with Kernel(tmp_path / "kernel.db", drivers, lambda name, _: Engine(tmp_path / f"{name}.gguf", 1)) as found:
        yield found


def append(log: Log, pid: int, kind: str, body: Mapping[str, Any]) -> None:
    log.append(pid, kind, body, log.end(pid))


# Looking.


def test_how_processes_stand(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, [["Hello!"], [SUM], ["42."]])
    looker = Looker(kernel.log)
    assert looker.look() == []
    process = kernel.spawn("tiny", tools=["calculator"])
    list(process.say("hi"))
    list(process.say("what is\n6 * 7?"))
    cut = kernel.spawn("tiny", parent=process)
    append(kernel.log, cut.pid, "user", {"text": "and then"})
    branch = kernel.log.fork(process.pid).pid
    found = {one.pid: one for one in looker.look()}
    assert {pid: (one.parent, one.model, one.state) for pid, one in found.items()} == {
        process.pid: (None, "tiny", "waiting"),
        cut.pid: (process.pid, "tiny", "interrupted"),
        branch: (process.pid, "tiny", "new"),
    }
    assert (found[1].events, found[1].written, found[1].said) == (7, 3, "42.")
    assert (found[branch].events, found[branch].written, found[branch].said) == (1, 0, "42.")
    with kernel.log.speaking(cut.pid):
        assert looker.one(cut.pid).state == "speaking"
    process.end()
    assert looker.one(process.pid).state == "ended"
    kernel.change(cut.pid, model="other")
    assert looker.one(cut.pid).model == "other"
    assert [one.pid for one in looker.look(2)] == [process.pid, cut.pid]
    with pytest.raises(KernelError, match="no process 99"):
        looker.one(99)


def test_only_what_changed_is_read(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        kernel.spawn("tiny")
    looker = Looker(kernel.log)
    asked: list[tuple[int, int]] = []
    real, outline, outlines = kernel.log.events, kernel.log.outline, list[int]()
    monkeypatch.setattr(kernel.log, "events", lambda pid, after=0: asked.append((pid, after)) or real(pid, after))
    monkeypatch.setattr(kernel.log, "outline", lambda: outlines.append(1) or outline())
    assert len(looker.look(10)) == 10
    assert len(asked) == 10
    looker.look(10)
    assert (len(asked), len(outlines)) == (10, 1)
    append(kernel.log, 20, "user", {"text": "hi"})
    assert looker.look(10)[-1].said == "hi"
    assert asked[10:] == [(20, real(20)[0].seq)]


def test_calls_and_events_in_words(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    play(
        monkeypatch,
        [[SUM], ["42."], [("write", {"line": "x"})], ["ok"], [("calculator", {"expression": "1/0"})], ["no"]],
    )
    process = kernel.spawn("tiny", tools=["calculator", "write"], limit=["fs:write:*"])
    for words in ("6 * 7?", "write", "1/0?"):
        list(process.say(words, lambda asking: Answer("allow", "process")))
    found = [one for event in kernel.log.events(process.pid) for one in traced(event)]
    kinds = ["call", "result", "call", "asked", "result", "call", "result"]
    assert [(one.kind, one.good) for one in found] == [*((kind, True) for kind in kinds[:-1]), ("result", False)]
    assert found[0].line.endswith(' calculator({"expression": "6 * 7"})')
    assert found[1].line.endswith(" s: 42")
    assert f"  ? fs:write:{tmp_path / 'file.txt'}: allow (process)" in found[3].line
    shown = [replayed(event) for event in kernel.log.events(process.pid)]
    assert shown[0].startswith('{"model": "tiny"')
    assert shown[1:4] == ["6 * 7?", " [calculator {'expression': '6 * 7'}]", "42"]


def test_pages_of_a_process(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, [["Hello!"]])
    process = kernel.spawn("tiny")
    assert mapped(process) == []
    process.pin("the key is under the mat")
    list(process.say("hi"))
    assert [(page.role, page.state) for page in mapped(process)] == [
        ("card", "pinned"),
        ("user", "in"),
        ("assistant", "in"),
    ]


def test_rules_are_revoked_and_go_with_their_process(kernel: Kernel) -> None:
    process = kernel.spawn("tiny")
    own, everybody = Grant("net:a", "allow", "process", process.pid), Grant("net:b", "deny", "always")
    kernel.grants.add(own)
    kernel.grants.add(everybody)
    Conversations(kernel.log).rename(process.pid, "a title")
    assert list(rules(kernel.log)) == [own, everybody]
    kill(kernel.log, process.pid)
    assert list(rules(kernel.log)) == [everybody]
    assert revoke(kernel.log, everybody)
    assert not revoke(kernel.log, everybody)
    assert list(rules(kernel.log)) == []


# The page.


@pytest.fixture
def beside(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel on the server's log, with a model that says what it is told."""
    with Kernel(site.home / "kernel.db", drivers=[Calculator()]) as found:
        yield found


def test_the_table_is_live(watched: Watched, beside: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, [["Good morning."], [SUM], ["<b>It is 42.</b>"]])
    page = watched.open("/processes")
    expect(page.locator("#main")).to_contain_text("No process yet")
    process = beside.spawn(MODEL, tools=["calculator"])
    list(process.say("hello"))
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=f"Process {process.pid}", exact=True))
    expect(row).to_contain_text("waiting")
    expect(row).to_contain_text("Good morning.")
    other = beside.spawn(MODEL)
    append(beside.log, other.pid, "user", {"text": "and then the power went"})
    cells = page.get_by_role("row").nth(1)
    expect(cells).to_contain_text("interrupted")
    list(process.say("what is 6 * 7?"))
    expect(row).to_contain_text("<b>It is 42.</b>")
    expect(page.get_by_role("row").nth(1)).to_contain_text("<b>It is 42.</b>")
    with beside.log.speaking(other.pid):
        expect(page.get_by_role("row").nth(2)).to_contain_text("speaking")
    assert serious(page) == []
    page.keyboard.press("Tab")
    page.get_by_role("link", name=f"Process {process.pid}", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/processes?pid={process.pid}")
    expect(page.get_by_role("heading", name=f"Process {process.pid}")).to_be_visible()


def test_one_process_its_calls_pages_and_events(
    watched: Watched, beside: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, [[SUM], ["It is 42."], [("calculator", {"expression": "1/0"})], ["It cannot be."]])
    process = beside.spawn(MODEL, tools=["calculator"])
    list(process.say("what is 6 * 7?"))
    page = watched.open(f"/processes?pid={process.pid}")
    calls = page.get_by_role("log")
    expect(calls).to_contain_text('calculator({"expression": "6 * 7"})')
    expect(calls).to_contain_text("s: 42")
    list(process.say("and 1/0? <script>alert(1)</script>"))
    expect(calls).to_contain_text("error, ")
    page.get_by_role("button", name="Show the pages").click()
    expect(page.get_by_role("region", name="Pages").get_by_role("table")).to_contain_text(
        "It cannot be.", timeout=60_000
    )
    page.get_by_role("button", name="Show all events").click()
    event = page.locator("details.event").filter(has_text="alert(1)")
    event.locator("summary").click()
    expect(event.locator("pre")).to_contain_text("<script>alert(1)</script>")
    assert serious(page) == []
    assert page.get_by_role("link", name="Open in chat").get_attribute("href") == f"/chat/{process.pid}"
    assert page.get_by_role("link", name="Look inside").get_attribute("href") == f"/inside?process={process.pid}"
    page.get_by_role("button", name="Fork").click()
    page.wait_for_url(lambda url: not url.endswith(f"pid={process.pid}"))
    branch = int(page.url.rpartition("=")[2])
    assert beside.log.events(branch)[-1].body == {"of": process.pid}


def test_killed_and_revoked(watched: Watched, beside: Kernel) -> None:
    process = beside.spawn(MODEL)
    beside.grants.add(Grant("net:a.example", "allow", "process", process.pid))
    beside.grants.add(Grant("py:exec", "deny", "always"))
    page = watched.open("/processes", dark=True)
    granted = page.get_by_role("region", name="What is granted")
    expect(granted).to_contain_text("net:a.example")
    expect(granted).to_contain_text(f"for process {process.pid}")
    granted.get_by_role("button", name="Revoke deny py:exec").click()
    expect(granted).not_to_contain_text("py:exec")
    assert [rule.pattern for rule in rules(beside.log)] == ["net:a.example"]
    assert serious(page) == []
    page = watched.open(f"/processes?pid={process.pid}", width=360, height=740)
    page.get_by_role("button", name="Kill…").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Kill…").click()
    page.get_by_role("dialog").get_by_role("button", name="Kill").click()
    expect(page.get_by_role("button", name="Kill")).to_have_count(0)
    expect(page.locator("#main")).to_contain_text("killed")
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360
    assert serious(page) == []
    assert list(rules(beside.log)) == []
    with pytest.raises(KernelError, match="is over: killed"):
        list(beside.open(process.pid).say("more"))


@pytest.mark.parametrize("pid", ["99999", "x", "-1", "0"])
def test_a_process_that_is_not(watched: Watched, pid: str) -> None:
    page = watched.open(f"/processes?pid={pid}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    if pid == "99999":
        expect(page.locator("#main")).to_contain_text("there is no process 99999")
