"""The driver that a model asks: cited results of several sources by turns, failures told, and no question that breaks it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twofile.errors import ToolError
from twofile.kernel.driver import Context, Drivers, Outcome, run_driver
from twofile.kernel.label import Label
from twofile.tools.search.found import Found
from twofile.tools.search.index import Index
from twofile.tools.search.search import Local, Search


def ran(driver: Search, query: Any, seconds: float = 10, **more: Any) -> Outcome:
    return run_driver(driver, {"query": query, **more}, Context(1, time.monotonic() + seconds))


class Fixed:
    """A source that finds what it is told."""

    def __init__(self, name: str, found: list[Found] | Exception) -> None:
        self.name, self.needs, self.label, self._found = name, (f"net:{name}",), Label.of(f"page:{name}"), found

    def search(self, query: str, count: int, context: Context) -> list[Found]:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found[:count]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    folder = tmp_path_factory.mktemp("notes")
    (folder / "birds.md").write_text("# Birds\n\nThe heron stands in the reeds.\n\n## Owls\n\nAn owl hunts at night.\n")
    (folder / "deep").mkdir()
    (folder / "deep" / "tea.txt").write_text("Tea is steeped.\nA second line about kettles.\n")
    index = Index(folder, tmp_path_factory.mktemp("index") / "index.db")
    yield Search([Local(index)])
    index.close()


def test_results_are_numbered_and_cited(local: Search) -> None:
    Drivers([local])
    found = ran(local, "owl at night")
    assert not found.error
    assert found.text.startswith("1. ")
    assert "birds.md" in found.text
    assert "Owls" in found.text
    assert "An owl hunts at night." in found.text
    assert "tea.txt" in ran(local, "kettles").text
    assert ran(local, "zebra").text == "nothing was found"
    assert all(one.startswith("fs:read:/") for one in local.needs({"query": "x"}))
    assert local.label({"query": "x"}).readers == frozenset({"user"})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="owl heron\"'*^:(){}[]-+~&|!?,.;AND OR NOT NEAR/\\%_\x00\n\ud800é狗", max_size=40))
def test_no_question_breaks_it(local: Search, query: str) -> None:
    found = ran(local, query)
    assert not found.error or found.text == "error: a query has words"


@pytest.mark.parametrize(
    ("query", "more"), [("", {}), (3, {}), ("x" * 2000, {}), ("owl", {"count": 0}), ("owl", {"count": "2"})]
)
def test_what_is_no_question(local: Search, query: Any, more: dict[str, Any]) -> None:
    assert ran(local, query, **more).error


def test_several_take_turns_and_failures_are_told() -> None:
    one = Fixed(
        "a.example", [Found("A1", "http://a/1", "x"), Found("A2", "http://a/2", "x"), Found("S", "http://s", "x")]
    )
    other = Fixed("b.example", [Found("S", "http://s", "x"), Found("B2", "http://b/2", "x")])
    broken = Fixed("c.example", ValueError("c.example takes too long to answer"))
    search = Search([one, other, broken])
    assert list(search.needs({"query": "x"})) == ["net:a.example", "net:b.example", "net:c.example"]
    lines = [line for line in ran(search, "x", count=4).text.splitlines() if not line.startswith("   ")]
    assert lines == ["1. A1 (http://a/1)", "2. S (http://s)", "3. A2 (http://a/2)", "4. B2 (http://b/2)",
                     "[c.example takes too long to answer]"]  # fmt: skip
    found = ran(Search([broken, broken]), "x")
    assert found.error
    with pytest.raises(ToolError, match="nothing to search"):
        Search([])
