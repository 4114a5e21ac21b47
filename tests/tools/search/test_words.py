"""Questions: what is asked for is understood, and nothing that is typed is an error, for either way to keep words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from twofile.tools.search.index import Index, Kept
from twofile.tools.search.words import Query, parse

OPERATORS = "\"*^:-+(){}[]~\\'|&!?<>=/.,;@#$%\0\n\t _"
PIECES = (
    "AND",
    "OR",
    "NOT",
    "NEAR(",
    "NEAR/2",
    "title:",
    "rank",
    "needle",
    "日本語",
    "é",
    "*",
    '"',
    '""',
    "--",
    "IN",
    "TO",
)


@pytest.fixture(params=["fts5", "tantivy"], scope="module")
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    if request.param == "tantivy":
        pytest.importorskip("tantivy")
    folder: Path = tmp_path_factory.mktemp("notes")
    (folder / "a.txt").write_text("the needle and the NOT near title AND or in 日本語 C++ x_y it's -5 a.b")
    kept: Kept = request.param
    one = Index(folder, tmp_path_factory.mktemp("kept") / "index", kept)
    one.update()
    yield one
    one.close()


@given(
    st.text(OPERATORS + "aé日", max_size=40)
    | st.text(max_size=40)
    | st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join)
    | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
)
@example('"')
@example('"___" needle')
@example('needle" OR 1=1 --')
@example("\ud800 needle")
@example('" " "\u0301"')
@example("ª º ¼ ⅷ 𝟘 \u1c5a")
@example("İstanbul ẞ ŉ")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_question_is_an_error(index: Index, query: str) -> None:
    for one in index.search(query):
        assert one.place == f"{index.name}/a.txt, line 1"


@given(st.text(OPERATORS, max_size=10), st.text(OPERATORS.replace('"', ""), max_size=10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_signs_around_a_word_change_nothing(index: Index, before: str, after: str) -> None:
    assert len(index.search(before.replace('"', "") + " needle " + after)) == 1


def test_a_long_question(index: Index) -> None:
    assert len(index.search("needle " + "word " * 100_000)) == 1
    assert len(index.search('"needle" ' * 500)) == 1
    assert len(parse(" ".join(f"w{n}" for n in range(100))).words) == 32


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Where does the giraffe live?", Query(("giraffe", "live"), ())),
        ('"Red  house" near Paris', Query(("near", "paris"), ("red house",))),
        ("the of", Query(("the", "of"), ())),
        ('"the end" of', Query((), ("the end",))),
        ('open "quote here', Query(("open", "quote", "here"), ())),
        ("東京の人口 iPhone手机", Query(("東京", "京の", "の人", "人口", "iphone", "手机"), ())),
        ("C++ snake_case -x", Query(("c", "snake", "case", "x"), ())),
        ("?!\"'", Query((), ())),
        ("twice Twice", Query(("twice",), ())),
    ],
)
def test_what_is_asked_for(said: str, meant: Query) -> None:
    assert parse(said) == meant
