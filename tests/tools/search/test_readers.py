"""Documents of every kind: their text, their places, and what is refused."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.search.samples import docx, locked, pdf
from twofile.tools.search.passage import LONGEST, Block, passages
from twofile.tools.search.readers import KINDS, UnreadableError, kind_of, read
from twofile.tools.search.text import clean, joined, one_line, separated

MARKDOWN = """---
title: "The manual"
---
Before all.

# Setup ##
How to set up.
## Linux
Install it.
```sh
# no heading
```
Next page
---------
Under it.
# Use
Then use it.
"""

PAGE = """<html><head><title>A &amp; B</title><script>var evil</script><style>p{}</style></head><body>
<nav>menu</nav><h1>Top <i>one</i></h1><p>Hello <b>bold</b>
world<!-- comment --> tail.<p>Caf&eacute;<h2>Inner</h2><ul><li>first<li>second</ul>
<table><tr><th>k<th>v</tr><tr><td>a</td><td>1</td></tr></table>
<div hidden>secret one</div><p style="DISPLAY : none">secret two</p>after
<pre>x
  y</pre><iframe>secret three</iframe><h1>Last</h1>end</body></html>"""


def places(data: bytes, kind: str) -> list[tuple[str, str]]:
    return [(one.place, one.text) for one in read(data, kind).passages]


def test_lines_of_a_text() -> None:
    paragraph = " ".join(["word"] * 50)
    lines = [f"{paragraph}\n{paragraph}\n\n" for _ in range(4)]
    assert [place for place, _ in places("\n".join(["", *lines]).encode(), "text")] == [
        "lines 2-3", "lines 6-7", "lines 10-11", "lines 14-15",
    ]  # fmt: skip
    assert places(b"one\r\ntwo\r\n\r\nthree", "text") == [("lines 1-4", "one\ntwo\nthree")]
    assert places("é\x00ü".encode("utf-16"), "text") == [("line 1", "é ü")]
    assert places("naïve".encode("cp1252"), "text") == [("line 1", "naïve")]


def test_headings_of_markdown() -> None:
    document = read(MARKDOWN.encode(), "markdown")
    assert document.title == "The manual"
    assert [(one.place, one.text) for one in document.passages] == [
        ("line 4", "Before all."),
        ("Setup", "How to set up."),
        ("Setup > Linux", "Install it.\n```sh\n# no heading\n```"),
        ("Setup > Next page", "Under it."),
        ("Use", "Then use it."),
    ]
    assert places(b"# Only\n## headings", "markdown") == [("", "Only\nheadings")]
    assert places(b"# a\n```\n# never closed\n# b", "markdown") == [("a", "```\n# never closed\n# b")]


def test_what_a_page_shows() -> None:
    document = read(PAGE.encode(), "html")
    assert document.title == "A & B"
    found = [(one.place, one.text) for one in document.passages]
    assert found == [
        ("Top one", "Hello bold world tail.\nCafé"),
        ("Top one > Inner", "first\nsecond\nk | v\na | 1\nafter\nx\n  y"),
        ("Last", "end"),
    ]


@pytest.mark.parametrize(
    ("head", "encoding"),
    [("", "utf-8"), ('<meta charset="iso-8859-1">', "latin-1"), ("", "cp1252"), ("<meta charset=nonsense>", "utf-8"),
     ("", "utf-16"), ('<meta charset="utf-8">', "utf-8"), ('<meta charset="utf-8">', "utf-16")],
)  # fmt: skip
def test_encodings_of_a_page(head: str, encoding: str) -> None:
    page = f"<html><head>{head}<title>é</title></head><p>naïve ½</html>"
    assert places(page.encode(encoding), "html") == [("", "naïve ½")]


def test_pages_of_a_pdf() -> None:
    document = read(pdf(["First page", "exam-\nple here", "Third"], title="A report"), "pdf")
    assert document.title == "A report"
    assert [(one.place, one.text) for one in document.passages] == [
        ("page 1", "First page"), ("page 2", "example here"), ("page 3", "Third"),
    ]  # fmt: skip


def test_headings_and_tables_of_word() -> None:
    blocks = [(0, "Before"), (1, "One"), (0, "text of one"), (2, "Two"), (0, "text of two"), (1, "Three"), (0, "end")]
    document = read(docx(blocks, [["k", "v"], ["a", "1"]], "A letter"), "docx")
    assert document.title == "A letter"
    assert [(one.place, one.text) for one in document.passages] == [
        ("", "Before"), ("One", "text of one"), ("One > Two", "text of two"), ("Three", "end\nk | v\na | 1"),
    ]  # fmt: skip


def refused(data: bytes, kind: str) -> str:
    with pytest.raises(UnreadableError) as error:
        read(data, kind)
    return str(error.value)


def test_what_cannot_be_read() -> None:
    assert refused(locked(pdf(["a"])), "pdf") == "encrypted"
    assert places(locked(pdf(["open"]), ""), "pdf") == [("page 1", "open")]
    assert refused(b"\xd0\xcf\x11\xe0 old or locked", "docx") == "encrypted"
    assert refused(pdf([""]), "pdf") == "no text in it"
    assert refused(b" \n ", "text") == "no text in it"
    assert refused(b"\x7fELF\0\0", "text").startswith("damaged")
    for kind in ("pdf", "docx"):
        good = pdf(["a"]) if kind == "pdf" else docx([(0, "a")])
        for bad in (b"junk", good[:200], b"%PDF-1.7\n", b"PK\x03\x04" + b"\0" * 100):
            assert refused(bad, kind)


def test_a_zip_bomb_is_not_unpacked() -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(3):
            archive.writestr(f"word/{n}.xml", b"\0" * (100 << 20))
    assert len(held.getvalue()) < 1 << 20
    assert refused(held.getvalue(), "docx") == "unpacks to more than 200 MB"
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for n in range(6000):
            archive.writestr(f"{n}", b"")
    assert refused(held.getvalue(), "docx") == "unpacks to more than 200 MB"


def test_entities_are_not_followed(tmp_path: object) -> None:
    """Neither a billion laughs nor a file of the machine."""
    good = docx([(0, "plain")])
    for entity in ('<!ENTITY x SYSTEM "file:///etc/passwd">', '<!ENTITY y "ha"><!ENTITY x "&y;&y;&y;">'):
        held = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(held, "w") as new:
            for one in old.infolist():
                data = old.read(one)
                if one.filename == "word/document.xml":
                    data = data.replace(b"?>", b"?><!DOCTYPE d [" + entity.encode() + b"]>", 1)
                    data = data.replace(b"plain", b"plain &x;")
                new.writestr(one.filename, data)
        try:
            text = " ".join(one.text for one in read(held.getvalue(), "docx").passages)
        except UnreadableError:
            continue
        assert "root:" not in text
        assert "haha" not in text


def test_a_long_one_is_cut() -> None:
    found = read(b"word " * 3_000_000, "text")
    assert found.note == "only its beginning: it is long"
    assert sum(len(one.text) for one in found.passages) <= 10_000_000
    found = read(b"word\n\n" * 1000, "text", seconds=0)
    assert found.note == "only its beginning: slow"
    assert len(found.passages) == 1
    assert refused(b"x" * ((20 << 20) + 1), "markdown") == "larger than 20 MB"


def test_kinds() -> None:
    assert {kind_of(f"a.{end.upper()}") for end in KINDS} == set(KINDS.values())
    assert [kind_of(name) for name in ("md", ".md", "a.exe", "a", "a.md.gz", "")] == [None] * 6


@given(st.binary(max_size=2000), st.sampled_from(["text", "markdown", "html"]))
def test_any_bytes_are_a_document_or_refused(data: bytes, kind: str) -> None:
    try:
        document = read(data, kind)
    except UnreadableError:
        return
    assert document.passages
    assert all(one.text.strip() and one.place.isprintable() for one in document.passages)


@given(st.lists(st.tuples(st.text(max_size=3000), st.sampled_from(["", "a", "b"]))))
def test_passages_keep_every_word_and_no_place_is_crossed(blocks: list[tuple[str, str]]) -> None:
    found = list(passages(Block(text, place) for text, place in blocks))
    assert "".join("".join(one.text.split()) for one in found) == "".join("".join(t.split()) for t, _ in blocks)
    assert all(len(one.text) <= LONGEST + 1 for one in found)
    order = [place for text, place in blocks if text.strip()]
    assert [p for n, p in enumerate(order) if not n or p != order[n - 1]] == [
        one.place for n, one in enumerate(found) if not n or one.place != found[n - 1].place
    ]


def test_a_long_paragraph_is_cut_after_sentences_with_its_lines() -> None:
    text = "\n".join(f"This is the sentence with number {n} of all." for n in range(1, 101))
    found = list(passages([Block(text, "", (11, 110))]))
    assert 5 <= len(found) <= 8
    assert found[0].place.startswith("lines 11-")
    assert found[-1].place.endswith("-110")
    for one in found:
        first, _, last = one.place.removeprefix("lines ").partition("-")
        assert f"number {int(first) - 10} of" in one.text
        assert f"number {int(last) - 10} of" in one.text
        assert one.text.endswith("of all.")
        assert 80 <= len(one.text.split()) <= 180


@given(st.text())
def test_text_that_is_separated_comes_back(text: str) -> None:
    text = clean(text)
    assert joined(separated(text)) == text
    assert "\n" not in one_line(text)


def test_what_is_not_seen_goes() -> None:
    assert clean("a\u202eb\u200bc\x1b[0m\U000e0041d\u00ade\tf") == "abc [0mde f"
