"""Servers that misbehave: the host lives, says what happened, and leaves no process."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from tests.tools.mcp.help import call, gone, left, opened, script

pytest.importorskip("mcp", reason="mcp is not installed")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is left is found in /proc")


@pytest.mark.parametrize(
    ("how", "says", "seconds"),
    [
        ("crashes", "came to its end (exit code 9); its last words: segmentation fault, as it were", 5),
        ("killed", "was ended by SIGKILL", 5),
        ("hangs", "gave no answer within 0.9 s", 1),
        ("stubborn", "gave no answer within 0.9 s", 1),
        ("floods", "floods", 5),
        ("asks", "asks more and more", 5),
        ("wrong json", "sent something that is no message", 5),
        ("wrong id", "answered a request that was never made (id 4711)", 5),
        ("gigantic", "sent a message of more than 16 MiB", 10),
        ("no utf-8", "sent something that is no UTF-8", 5),
        ("endless", "sent a message of more than 16 MiB", 10),
        ("endless lines", "floods: it sent more than can be meant (it printed: yes)", 5),
        ("no result", "gave a result that is none", 5),
        ("many values", "sent a message of more than 30,000 values", 5),
        ("long id", "answered a request that was never made", 5),
        ("prints and hangs", "gave no answer within 0.9 s (it printed: panic: out of cheese)", 1),
        ("closes", "closed its output", 5),
    ],
)
def test_a_call_is_an_error_that_says_so(tmp_path: Path, how: str, says: str, seconds: float) -> None:
    server = script("bad_server.py", how)
    before = threading.active_count()
    with opened(tmp_path, server) as servers:
        assert servers.problems == {}
        start = time.monotonic()
        outcome = call(servers, "bad.work", seconds=seconds)
        assert outcome.error
        assert says in outcome.text
        assert "bad" in outcome.text
        assert time.monotonic() - start < seconds + 0.5
    assert gone(server)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("dies", "the server bad came to its end (exit code 7); its last words: cannot find my licence"),
        ("silent", "the server bad said nothing of use for 1 s"),
        ("version", "Unsupported protocol version from the server: 1999-01-01"),
        ("lies", "the server bad gave no list of its tools: I have no tools"),
        ("many wrong tools", "the server bad sent a message of more than 30,000 values"),
        ("no list", "the server bad gave a list of tools that is none: tools.0"),
    ],
)
def test_a_start_that_fails_is_said(tmp_path: Path, how: str, says: str) -> None:
    server = script("bad_server.py", how)
    with opened(tmp_path, server, start=1.0) as servers:
        assert says in servers.problems["bad"][0]
        assert servers.drivers == []
    assert gone(server)


@pytest.mark.parametrize("how", ["banner", "fragile", "slow pattern", "loud"])
def test_what_does_no_harm(tmp_path: Path, how: str) -> None:
    server = script("bad_server.py", how)
    with opened(tmp_path, server) as servers:
        outcome = call(servers, "bad.work")
        assert (outcome.error, outcome.text) == (False, "quiet" if how == "loud" else "well")
        assert len(servers.log("bad")) <= 1 << 16
    assert gone(server)


def test_much_that_is_structured(tmp_path: Path) -> None:
    with opened(tmp_path, script("bad_server.py", "much that is structured")) as servers:
        assert len(call(servers, "bad.work").text) > 200_000


def test_a_list_without_end_is_cut(tmp_path: Path) -> None:
    server = script("bad_server.py", "more and more")
    with opened(tmp_path, server) as servers:
        assert [driver.name for driver in servers.drivers] == ["bad.work"]
        assert any("more than 500 tools" in problem for problem in servers.problems["bad"])
    assert gone(server)


def test_children_are_ended_with_it(tmp_path: Path) -> None:
    server = script("bad_server.py", "leaves children")
    with opened(tmp_path, server) as servers:
        assert call(servers, "bad.work").text == "they live"
        deadline = time.monotonic() + 5
        while len(left(server)) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(left(server)) >= 5
    assert gone(server)


def test_it_is_started_again_a_few_times(tmp_path: Path) -> None:
    server = script("bad_server.py", "crashes")
    with opened(tmp_path, server) as servers:
        said = [call(servers, "bad.work").text for _ in range(6)]
        assert all("exit code 9" in one for one in said)
        assert [("not started again" in one) for one in said] == [False] * 4 + [True] * 2
        servers.restart("bad")
        assert "not started again" not in call(servers, "bad.work").text
    assert gone(server)


def test_after_a_hang_it_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofile.tools.mcp.connection._LIST", 0.5)
    server = script("bad_server.py", "hangs")
    with opened(tmp_path, server) as servers:
        first = left(server)
        assert call(servers, "bad.work", seconds=0.5).error
        assert "no answer" in call(servers, "bad.work", seconds=2).text
        assert left(server) != first
    assert gone(server)


def test_one_that_misbehaves_does_not_disturb_another(tmp_path: Path) -> None:
    bad, good = script("bad_server.py", "endless lines"), script("kind_server.py", "stdio")
    with opened(tmp_path, bad, good) as servers:
        threads = [threading.Thread(target=call, args=(servers, "bad.work")) for _ in range(2)]
        for thread in threads:
            thread.start()
        for i in range(20):
            assert call(servers, "kind.add", {"a": i, "b": 1}, seconds=3).text == str(i + 1)
        for thread in threads:
            thread.join()
    assert gone(bad)
    assert gone(good)
