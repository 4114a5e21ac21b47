"""Capabilities: patterns, lifetimes exactly, children within their parents, and ways out that are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofile.errors import KernelError
from twofile.kernel.capability import Grant, Grants, covers, leads_out, narrowed, normal
from twofile.kernel.label import Label

HOSTS = st.lists(st.sampled_from(["a", "b", "example", "org"]), min_size=1, max_size=4).map(".".join)
PATHS = st.lists(st.sampled_from(["a", "b", "..", "c d", "."]), max_size=4).map(lambda parts: "/x/" + "/".join(parts))
PATTERNS = (
    st.builds("net:{}{}".format, st.sampled_from(["", "*."]), HOSTS)
    | st.builds("fs:read:{}".format, PATHS)
    | st.builds("fs:write:{}".format, PATHS)
    | st.sampled_from(["net:*", "fs:read:*", "py:exec", "speak", "see", "mcp:s/*", "mcp:s/t", "mcp:*"])
)
PLAIN = Label()
BOTH = Label.of("page:x") | Label.of("file:/y", ["user"])


@given(PATTERNS, PATTERNS, PATTERNS)
def test_patterns_are_an_order(a: str, b: str, c: str) -> None:
    a, b, c = normal(a), normal(b), normal(c)
    assert normal(a) == a
    assert covers(a, a)
    if covers(a, b) and covers(b, c):
        assert covers(a, c)
    if covers(a, b) and covers(b, a):
        assert a == b


@given(st.lists(PATTERNS, max_size=4), st.lists(PATTERNS, max_size=4), PATTERNS)
def test_a_child_can_do_no_more_than_its_parent(parent: list[str], child: list[str], wanted: str) -> None:
    try:
        limit = narrowed(parent, child)
    except KernelError:
        return
    grants = Grants([Grant(normal(wanted), "allow", "always")])
    if grants.decide(2, limit, wanted, PLAIN) != "deny":
        assert grants.decide(1, parent, wanted, PLAIN) != "deny"


@pytest.mark.parametrize(
    ("pattern", "wanted", "is_covered"),
    [
        ("net:*", "net:a.org", True),
        ("net:*.a.org", "net:b.a.org", True),
        ("net:*.a.org", "net:a.org", False),
        ("net:*.a.org", "net:eviла.org", False),
        ("net:a.org", "net:A.org.", True),
        ("net:a.org", "net:b.a.org", False),
        ("net:*.a.org", "net:ba.org", False),
        ("fs:read:/x", "fs:read:/x/y", True),
        ("fs:read:/x", "fs:read:/xy", False),
        ("fs:read:/x", "fs:read:/x/../z", False),
        ("fs:read:/x", "fs:write:/x", False),
        ("fs:write:*", "fs:write:/etc", True),
        ("mcp:files/*", "mcp:files/read", True),
        ("mcp:files/*", "mcp:filesystem/read", False),
        ("py:exec", "py:exec", True),
        ("speak", "see", False),
    ],
)
def test_what_a_pattern_stands_for(pattern: str, wanted: str, is_covered: bool) -> None:
    assert covers(normal(pattern), normal(wanted)) == is_covered


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    assert not covers(normal(f"fs:read:{tmp_path}/in"), normal(f"fs:read:{tmp_path}/in/link"))


@pytest.mark.parametrize(
    "text", ["", "net", "net:", "fs:/x", "fs:read:", "py:exec:x", "everything", "speak:loud", "net:a\0b"]
)
def test_what_is_no_capability(text: str) -> None:
    with pytest.raises(KernelError, match="no capability"):
        normal(text)


def test_lifetimes() -> None:
    grants = Grants()
    limit = ("net:*",)
    assert grants.decide(1, limit, "net:a", PLAIN) == "ask"
    grants.add(Grant("net:a", "allow", "once", 1))
    assert grants.decide(2, limit, "net:a", PLAIN) == "ask"  # another process
    assert grants.decide(1, limit, "net:a", PLAIN, use=False) == "allow"
    assert grants.decide(1, limit, "net:a", PLAIN) == "allow"
    assert grants.decide(1, limit, "net:a", PLAIN) == "ask"  # it was once
    grants.add(Grant("net:a", "deny", "once", 1))
    assert grants.decide(1, limit, "net:a", PLAIN) == "deny"
    assert grants.decide(1, limit, "net:a", PLAIN) == "ask"
    assert not grants.rules
    grants.add(Grant("net:b", "allow", "process", 1))
    assert [grants.decide(1, limit, "net:b", PLAIN) for _ in range(3)] == ["allow"] * 3
    grants.end(1)
    assert grants.decide(1, limit, "net:b", PLAIN) == "ask"
    grants.add(Grant("net:c", "allow", "always"))
    grants.end(1)
    assert grants.decide(7, limit, "net:c", PLAIN) == "allow"
    grants.add(Grant("net:*", "deny", "process", 7))
    assert grants.decide(7, limit, "net:c", PLAIN) == "deny"  # whatever else was granted
    assert grants.decide(8, limit, "net:c", PLAIN) == "allow"
    with pytest.raises(ValueError, match="everybody"):
        grants.add(Grant("net:c", "allow", "always", 3))


@given(st.sampled_from(["net:a", "fs:write:/x", "mcp:s/t", "py:exec", "fs:read:/x", "speak"]))
def test_ways_out_are_asked_for(wanted: str) -> None:
    """While something untrusted and something private are both before the model."""
    kind = wanted.partition(":")[0]
    limit = ("net:*", "fs:write:*", "fs:read:*", "mcp:*", "py:exec", "speak")
    grants = Grants([Grant(normal(wanted), "allow", "always")])
    assert grants.decide(1, limit, wanted, BOTH) == ("ask" if leads_out(normal(wanted)) else "allow"), kind
    assert grants.decide(1, limit, wanted, Label.of("page:x")) == "allow"
    assert grants.decide(1, limit, wanted, Label.of("user", ["user"])) == "allow"
    grants.add(Grant(wanted, "allow", "once", 1))  # it was said of another use
    assert grants.decide(1, limit, wanted, BOTH) == ("ask" if leads_out(normal(wanted)) else "allow")
    grants.add(Grant(wanted, "deny", "once", 1))
    assert grants.decide(1, limit, wanted, BOTH) == "deny"
