"""Labels: a join forgets no source and adds no reader, whatever is joined in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twofile.kernel.label import Label, join

SOURCES = st.frozensets(st.sampled_from(["user", "system", "tool:search", "page:x", "file:/a"]))
READERS = st.none() | st.frozensets(st.sampled_from(["user", "net:a", "net:b"]))
LABELS = st.builds(Label, SOURCES, READERS)


@given(LABELS, LABELS, LABELS)
def test_a_join_is_the_least_that_both_may_flow_to(a: Label, b: Label, c: Label) -> None:
    joined = a | b
    assert a.may_flow_to(joined)
    assert b.may_flow_to(joined)
    if a.may_flow_to(c) and b.may_flow_to(c):
        assert joined.may_flow_to(c)
    assert joined == b | a
    assert (a | b) | c == a | (b | c)
    assert a | a == a
    assert a | Label() == a


@given(st.lists(LABELS))
def test_what_is_made_of_many(labels: list[Label]) -> None:
    whole = join(labels)
    assert whole.trusted == all(label.trusted for label in labels)
    assert whole.private == any(label.private for label in labels)
    assert Label.from_json(whole.to_json()) == whole


def test_trust() -> None:
    assert Label.of("user").trusted
    assert not Label.of("page:https://a").trusted
    assert not (Label.of("user") | Label.of("tool:search")).trusted
    assert Label.of("file:/secret", ["user"]).private
