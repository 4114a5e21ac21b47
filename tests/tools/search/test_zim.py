"""An archive, written here: with an index of its texts, with one of its titles, and with what may be wrong in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libzim")

from libzim.writer import Creator, Hint, Item, StringProvider

from twofile.errors import ToolError
from twofile.kernel.driver import Context, run_driver
from twofile.kernel.label import EVERYBODY, Label
from twofile.tools.search.search import Search
from twofile.tools.search.zim import Zim

WHALE = """<html><head><title>Whale</title><style>whale {}</style></head><body><h1>Whale</h1>
<p>Whales are mammals of the open ocean.</p><h2>Feeding</h2><p>The blue whale eats krill.</p>
<script>document.write("krill krill krill plankton")</script></body></html>"""
BREAD = "<html><body><h1>Bread</h1><p>Bread is baked from dough. Some whales of industry sell it.</p></body></html>"
BOMB = "<html><body>" + "<div>" * 200_000 + "krill" + "</body></html>"


class Article(Item):
    def __init__(self, path: str, title: str, content: str, mime: str = "text/html") -> None:
        super().__init__()
        self.path, self.title, self.content, self.mime = path, title, content, mime

    def get_path(self) -> str:
        return self.path

    def get_title(self) -> str:
        return self.title

    def get_mimetype(self) -> str:
        return self.mime

    def get_contentprovider(self) -> Any:
        return StringProvider(self.content)

    def get_hints(self) -> dict[Any, Any]:
        return {Hint.FRONT_ARTICLE: True}


def archive(path: Path, articles: Sequence[Article], indexed: bool = True) -> Path:
    with Creator(path).config_indexing(indexed, "eng") as creator:
        creator.set_mainpath(articles[0].path)
        for one in articles:
            creator.add_item(one)
        creator.add_redirection("Cetacean", "Cetacean whale", articles[0].path, {Hint.FRONT_ARTICLE: True})
        for name, value in {"Title": "t", "Language": "eng", "Creator": "c", "Publisher": "p", "Name": "n"}.items():
            creator.add_metadata(name, value)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    articles = [
        Article("Whale", "Whale", WHALE),
        Article("Bread", "Bread", BREAD),
        Article("note", "Krill note", "krill krill krill", "text/plain"),
        Article("odd\nname", "Odd\nname", "<html><body><p>an anchovy</p></body></html>"),
        *(Article(f"Fish_{n}", f"Fish {n}", f"<html><body><p>herring number {n}</p></body></html>") for n in range(30)),
    ]
    return archive(tmp_path_factory.mktemp("zim") / "ocean.zim", articles)


@pytest.fixture(scope="module")
def titles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has no index of its texts."""
    return archive(
        tmp_path_factory.mktemp("zim") / "titles.zim",
        [Article("Whale", "Whale", WHALE), Article("Bread", "Bread", BREAD)],
        False,
    )


def context(seconds: float = 20.0) -> Context:
    return Context(1, time.monotonic() + seconds)


def places(source: Zim, query: str, count: int = 5) -> list[str]:
    return [one.place for one in source.search(query, count, context())]


def test_the_passage_that_answers_is_cited(whole: Path) -> None:
    first, *_ = Zim(whole).search("what do blue whales eat? krill", 5, context())
    assert (first.title, first.place) == ("Whale", "ocean.zim/Whale, Whale > Feeding")
    assert first.text == "The blue whale eats krill."
    assert Zim(whole).search("ocean mammals", 1, context())[0].place == "ocean.zim/Whale, Whale"


def test_what_is_no_page_is_left_out(whole: Path) -> None:
    assert places(Zim(whole), "krill") == ["ocean.zim/Whale, Whale > Feeding"]
    assert not any("plankton" in one.text for one in Zim(whole).search("plankton", 5, context()))
    assert places(Zim(whole), "anchovy") == ['"ocean.zim/odd\\nname"']
    assert Zim(whole).search("anchovy", 5, context())[0].title == "Odd name"


def test_a_phrase_must_be_there(whole: Path) -> None:
    assert places(Zim(whole), '"blue whale"') == ["ocean.zim/Whale, Whale > Feeding"]
    assert places(Zim(whole), '"whale blue"') == []
    assert places(Zim(whole), '"whales of industry"') == ["ocean.zim/Bread, Bread"]


def test_no_more_than_was_asked_for(whole: Path) -> None:
    assert len(places(Zim(whole), "herring", 3)) == 3
    assert len(set(places(Zim(whole), "herring", 20))) == 20
    assert places(Zim(whole), "rhinoceros") == places(Zim(whole), "?!") == []


def test_titles_where_there_is_no_index_of_texts(titles: Path) -> None:
    assert places(Zim(titles), "whale")[0].startswith("titles.zim/Whale, Whale")
    assert places(Zim(titles), "rhinoceros") == []


@pytest.mark.parametrize(
    "query", ["NOT krill", "krill AND", "((krill", "title:krill", "krill*", "-krill", '"', "\0 krill", "krill NEAR/"]
)
def test_no_sign_is_an_operator(whole: Path, query: str) -> None:
    found = places(Zim(whole), query)
    assert "ocean.zim/Whale, Whale > Feeding" in found or "krill" not in query


def test_what_it_needs_and_whose_it_is(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zim").symlink_to(whole)
    one = Zim(tmp_path / "link.zim")
    assert one.needs == (f"fs:read:{whole}",)
    assert one.label == Label.of(f"file:{whole}", EVERYBODY)
    outcome = run_driver(Search([one]), {"query": "krill"}, context())
    assert outcome.text == "1. Whale (ocean.zim/Whale, Whale > Feeding)\n   The blue whale eats krill."


def test_a_call_ends_in_its_time(whole: Path) -> None:
    assert Zim(whole).search("herring", 20, Context(1, time.monotonic() - 1)) == []
    cancelled = context()
    cancelled.cancelled.set()
    assert Zim(whole).search("herring", 20, cancelled) == []


def test_a_page_that_is_an_attack_hides_no_other(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zim", [Article("Bomb", "Krill", BOMB), Article("Whale", "Whale", WHALE)])
    start = time.monotonic()
    assert "a.zim/Whale, Whale > Feeding" in places(Zim(path), "krill")
    assert time.monotonic() - start < 15


def test_what_is_no_archive(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "text.zim").write_text("this is none " * 50)
    (tmp_path / "empty.zim").touch()
    (tmp_path / "folder.zim").mkdir()
    (tmp_path / "cut.zim").write_bytes(whole.read_bytes()[:2000])
    for name in ("none.zim", "text.zim", "empty.zim", "folder.zim", "cut.zim"):
        with pytest.raises(ToolError, match="no ZIM archive"):
            Zim(tmp_path / name)


def test_damage_is_an_error_or_nothing(tmp_path: Path, whole: Path) -> None:
    """A byte that is wrong anywhere in the contents: what is found is found, or a ValueError, never another error."""
    data = whole.read_bytes()
    for n in range(12):
        at = 200 + n * (len(data) - 300) // 12
        (tmp_path / "bad.zim").write_bytes(data[:at] + bytes(b ^ 0xFF for b in data[at : at + 40]) + data[at + 40 :])
        try:
            found = Zim(tmp_path / "bad.zim").search("krill whale", 5, context())
        except (ToolError, ValueError):
            continue
        assert all(one.place.startswith("bad.zim/") for one in found)
