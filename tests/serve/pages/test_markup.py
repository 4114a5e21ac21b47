"""Text of models as HTML: the hostile does nothing, the long does not take long, the ordinary reads well."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import lxml.html
import pytest
from pygments.lexers import get_lexer_by_name

from tests.serve.pages.hostile import HOSTILE, SEEN
from twofile.serve.pages import markup
from twofile.serve.pages.markup import Blocks, html_of, think_parts

_ALLOWED = (
    "p br hr h1 h2 h3 h4 h5 h6 em strong s code pre blockquote ul ol li table thead tbody tr th td div span figure "
    "figcaption button math mrow mi mo mn mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover "
    "mtable mtr mtd mstyle mpadded mphantom menclose"
)
_TAGS = frozenset(_ALLOWED.split())
_NEVER = {"href", "src", "srcset", "style", "action", "formaction", "srcdoc", "data", "id", "name", "ping", "poster"}
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
_NAMED = """Text before.

- one

  ```py
  a = 1

  b = 2
  ```

- two

After.

```sh
echo 1

echo 2
```

$$
x

y
$$

1. a
2. b

> quote

end"""


def _checked(html: str) -> lxml.html.HtmlElement:
    assert _UNSEEN.search(html) is None
    page = lxml.html.fragment_fromstring(html, create_parent="main")
    for element in page.iterdescendants():
        assert isinstance(element.tag, str), "no comments, no instructions"
        assert element.tag in _TAGS
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert "xlink" not in name
            assert name not in _NEVER
            assert "url(" not in value
            if name == "data-target":
                assert re.match("https?://|mailto:", value, re.IGNORECASE)
            if name == "class":
                assert re.fullmatch("[a-z- ]+", value)
        if element.tag == "button":
            assert element.attrib["type"] == "button"
            assert next(element.iterdescendants("button"), None) is None
    return page


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_does_nothing(text: str) -> None:
    assert SEEN in _checked(html_of(text)).text_content()
    blocks = Blocks()
    _checked("".join(blocks.feed(text[at : at + 7]) for at in range(0, len(text), 7)) + "<p></p>")


def test_pieces_of_hostile_text_do_nothing() -> None:
    chance = random.Random(7)
    for _ in range(150):
        parts = chance.sample(HOSTILE[:-1], 3)
        text = "".join(part[: chance.randrange(1, 60)] for part in parts)
        _checked(html_of(text) or "<p></p>")


def test_html_is_shown_as_text() -> None:
    assert "<script>alert(1)</script>" in _checked(html_of("<script>alert(1)</script>")).text_content()


@pytest.mark.parametrize("target", ["https://a.example/b?c=d&e", "HTTP://a.example", "mailto:a@b.example"])
def test_a_link_is_a_button_that_says_where_it_leads(target: str) -> None:
    (button,) = _checked(html_of(f"[*words*]({target} 'title')")).iter("button")
    assert button.attrib["data-target"].lower() == button.attrib["title"].lower() == target.lower()
    assert (button.attrib["class"], button.text_content()) == ("link", "words")


@pytest.mark.parametrize("target", ["javascript:a", "data:a", "/a", "#a", "//a", "ftp://a", "https:a", "https:///a"])
def test_other_targets_are_words(target: str) -> None:
    page = _checked(html_of(f"[words]({target}) [ref][r]\n\n[r]: {target}"))
    assert page.text_content().strip() == f"words ({target}) ref ({target})"
    assert not list(page.iter("button"))


def test_pictures_are_words() -> None:
    page = _checked(html_of("![a *b*](https://a.example/c.png) ![d](data:x) ![e](mailto:e@f)"))
    shown = "[picture: a b] https://a.example/c.png [picture: d] not shown [picture: e] not shown"
    assert page.text_content().strip() == shown
    assert [button.attrib["data-target"] for button in page.iter("button")] == ["https://a.example/c.png"]


def test_what_is_not_seen_is_shown_by_its_number() -> None:
    assert html_of("a\u202eb") == '<p>a<span class="unseen">U+202E</span>b</p>\n'
    assert "U+0000 × 3" in html_of("\x00\x00\x00")
    for char in "\x1b\x9f\xad\u061c\u200b\u200e\u2028\u2060\u2066\ufeff\U000e0041\ud800":
        for text in (f"a{char}b", f"`a{char}b`", f"```py\n'a{char}b'\n```", f"|a{char}b|\n|-|", f"![a{char}b](x)"):
            assert f'<span class="unseen">U+{ord(char):04X}</span>' in html_of(text)
    assert "\u202e" not in html_of("[a](https://a.example/\u202e)")


@pytest.mark.parametrize(
    "text", ["👩\u200d👩\u200d👧", "می\u200cخواهم", "क्\u200dष", "❤\ufe0f", "1\ufe0f\u20e3", "a\tb", "é ü ß 漢"]
)
def test_scripts_and_emoji_are_left_as_they_are(text: str) -> None:
    assert html_of(text) == f"<p>{text}</p>\n"


@pytest.mark.parametrize("text", ["a\u200cb", "a\u200db", "👩\u200dx", "a\ufe0f", "a\U000e0101", "👩\u200d\u200d👧"])
def test_joiners_elsewhere_are_shown(text: str) -> None:
    assert "unseen" in html_of(text)


def test_code_is_coloured_by_classes() -> None:
    page = _checked(html_of('```Python title="x"\ndef f():\n    return "<b>"  # 1\n```'))
    (figure,) = page.iter("figure")
    assert figure.attrib["class"] == "code"
    assert [span.text for span in figure.find("figcaption").iter("span")] == ["Python"]
    assert figure.find("figcaption/button").attrib["data-copy"] == ""
    assert figure.find("pre").attrib["tabindex"] == "0"
    assert figure.find("pre/code").text_content() == 'def f():\n    return "<b>"  # 1\n'
    kinds = {span.attrib["class"]: span.text_content() for span in figure.find("pre/code").iter("span")}
    assert kinds == {"k": "return", "nf": "f", "s": '"<b>"', "c": "# 1"}


@pytest.mark.parametrize("info", ["", "unheard-of", "<b>", "text"])
def test_code_of_no_language_is_plain(info: str) -> None:
    page = _checked(html_of(f"```{info}\ndef f(): 1\n```\n"))
    assert page.find("figure/pre/code").text_content() == "def f(): 1\n"
    assert page.find("figure/pre/code/span") is None
    assert page.find("figure/figcaption/span").text == (info or "text")


def test_long_code_is_plain() -> None:
    for code in ("x = 1\n" * 20_000, "x = 1;" * 100 + "\n"):
        page = _checked(html_of(f"```py\n{code}```"))
        assert page.find("figure/pre/code").text == code


def test_every_language_has_a_lexer() -> None:
    for language in markup._LANGUAGES:
        assert get_lexer_by_name(language)
        code = "<a b='c'>d</a> {e: 1} # f\n\n"
        assert _checked(html_of(f"```{language}\n{code}```")).find("figure/pre/code").text_content() == code


def test_tables() -> None:
    page = _checked(html_of("|a|b|c|\n|:-|:-:|-:|\n|1|**2**|"))
    (around,) = page.iter("div")
    assert dict(around.attrib) == {"class": "table", "tabindex": "0", "role": "region", "aria-label": "table"}
    assert [cell.attrib["class"] for cell in page.iter("th")] == ["to-left", "to-center", "to-right"]
    assert [cell.text_content() for cell in page.iter("td")] == ["1", "2", ""]


def test_a_huge_table_is_its_source() -> None:
    rows = "|1|2|\n" * 999
    assert len(list(_checked(html_of(f"|a|b|\n|-|-|\n{rows}")).iter("td", "th"))) == 2_000
    page = _checked(html_of(f"before\n\n|a|b|\n|-|-|\n{rows}|1|2|\n\n*after*"))
    assert page.find("table") is None
    assert page.find("pre").text.startswith("|a|b|\n|-|-|\n|1|")
    assert page.find("pre").attrib["class"] == "plain"
    assert page.find("p/em").text == "after"
    assert len(list(_checked(html_of("|a|b|\n|-|-|\n|1|2|\n\n" * 6_000)).iter("td", "th"))) < 20_010


@pytest.mark.parametrize(
    "text",
    [
        r"$\frac{1}{2}$",
        r"\(\frac{1}{2}\)",
        "a $$\\frac{1}{2}$$ b",
        "$$\n\\frac{1}{2}\n$$",
        "a\n\\[\n\\frac{1}\n{2}\n\\]\nb",
    ],
)
def test_mathematics(text: str) -> None:
    page = _checked(html_of(text))
    (fraction,) = page.iter("mfrac")
    assert fraction.text_content() == "12"
    assert next(page.iter("math")).attrib["display"] == ("inline" if text[:2] in ("$\\", "\\(") else "block")


@pytest.mark.parametrize("text", ["it costs $5 and $10", "a $ b $ c", r"\$a\$", "$", "$$", "\\(", "100$ or 200$"])
def test_what_is_no_mathematics(text: str) -> None:
    assert next(_checked(html_of(text)).iter("math", "code"), None) is None


@pytest.mark.parametrize("formula", [r"\frac", "x" * 2_001, "{" * 500, r"\newcommand{\a}{b}\a", r"\unicode{x202e}"])
def test_a_formula_that_cannot_be_read_is_its_source(formula: str) -> None:
    page = _checked(html_of(f"so ${formula}$."))
    assert page.find("p/code").attrib["class"] == "math"
    assert page.text_content().strip() == f"so {formula}."


def test_what_is_too_much_is_shown_as_it_is() -> None:
    for text in (
        "*a*" * 70_000,
        "> " * 40 + "a",
        "\n".join("  " * n + "- a" for n in range(40)),
        "**a *b " * 40 + "c* d**" * 40,
    ):
        page = _checked(html_of(text))
        assert [(child.tag, dict(child.attrib)) for child in page] == [("pre", {"class": "plain", "tabindex": "0"})]
        assert page.text_content() == text
    assert "<blockquote>" in html_of("> " * 30 + "a")


_UNITS = [
    "[",
    "*",
    "_",
    "`",
    ">",
    "$",
    "![",
    "[a](",
    "<a",
    "*_",
    "**_",
    "\\(",
    "$a$ ",
    "$$a\n",
    "[`",
    "> - ",
    "- ",
    "|a\n",
]
_UNITS += ["[a]: b\n", "\x00\x01", "```\n"]


@pytest.mark.parametrize("unit", _UNITS)
def test_no_text_takes_long(unit: str) -> None:
    began = time.thread_time()
    html_of(unit * (100_000 // len(unit)))
    assert time.thread_time() - began < 3


def test_nesting_does_not_take_long() -> None:
    texts = [
        "\n".join("  " * n + "- a" for n in range(400)),
        "[" * 50_000 + "](a)" * 12_000,
        "*a " * 30_000 + "a* " * 30_000,
    ]
    texts.append(("|a" * 40 + "\n" + "|-" * 40 + "\n" + "|\n" * 40 + "\n") * 300)
    for text in texts:
        began = time.thread_time()
        html_of(text)
        assert time.thread_time() - began < 3


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_settled_blocks_and_the_tail_are_the_whole(step: int) -> None:
    chance = random.Random(step)
    lines = [*_NAMED.split("\n"), "x" * 700, "  y", "    z", "```", "$$", "- ```", "~~~", ""]
    texts = [_NAMED, *HOSTILE[:40], *("\n".join(chance.choices(lines, k=40)) for _ in range(100))]
    for text in texts:
        blocks, settled = Blocks(), ""
        for at in range(0, len(text), step):
            settled += "".join(part for _, part in blocks.pieces(text[at : at + step]))
            assert len(blocks.tail) <= 10_000
        assert settled + blocks.tail == text


def test_blocks_are_whole_at_blank_lines_and_fences_are_not_cut() -> None:
    blocks = Blocks()
    assert blocks.feed("one\ntwo\n") == ""
    assert blocks.feed("\nthree") == html_of("one\ntwo")
    assert blocks.tail == "three"
    whole = Blocks().pieces(_NAMED + "\n\n")
    begins = [part.strip().split("\n")[0] for _, part in whole]
    assert begins == ["Text before.", "- one", "After.", "```sh", "$$", "1. a", "> quote", "end"]
    assert {kind for kind, _ in whole} == {"", "list"}
    for step in (1, 5):
        pieces = Blocks()
        again = [one for at in range(0, len(_NAMED), step) for one in pieces.pieces(_NAMED[at : at + step])]
        assert again == whole[: len(again)]


def test_a_long_fence_is_settled_in_pieces() -> None:
    blocks, code = Blocks(), "line of code\n" * 1_000
    html = blocks.feed(f"before\n```py\n{code}```\n*after*\n\n")
    page = _checked(html)
    assert blocks.tail == ""
    assert {child.tag for child in page} == {"p", "pre"}
    assert "".join(child.text for child in page.iter("pre")) == f"```py\n{code}```\n"
    assert page.find("p/em").text == "after"


def test_a_long_line_is_settled() -> None:
    blocks = Blocks()
    html = "".join(blocks.feed("word ") for _ in range(10_000))
    assert len(blocks.tail) <= 8_000
    assert html.count("word") > 8_000


def test_a_long_list_stays_one() -> None:
    item = "- item\n\n    more of it\n\n"
    blocks = Blocks()
    html = "".join(blocks.feed(item) for _ in range(300))
    assert html.count("more of it") > 200
    assert html.count("<figure") < 5


def test_the_cost_of_a_token_does_not_grow() -> None:
    text = "Some *words* of a reply, with `code`.\nAnd more.\n\n" * 4_000
    blocks = Blocks()
    began = time.thread_time()
    for at in range(0, len(text), 40):
        blocks.feed(text[at : at + 40])
    assert time.thread_time() - began < 8
    began = time.thread_time()
    blocks = Blocks()
    for _ in range(50_000):
        blocks.feed("word")
    assert time.thread_time() - began < 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a", [(False, "a")]),
        ("<think>a</think>b", [(True, "a"), (False, "b")]),
        ("<think>\na", [(True, "\na")]),
        ("a<think>b</think>c<think>d", [(False, "a"), (True, "b"), (False, "c"), (True, "d")]),
        ("<think>\n\n</think>\n\nb", [(False, "\n\nb")]),
        ("a</think>b", [(False, "a</think>b")]),
    ],
)
def test_thinking(text: str, parts: list[tuple[bool, str]]) -> None:
    assert think_parts(text) == parts


def _light(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_can_be_read() -> None:
    sheet = Path(markup.__file__).with_name("assets").joinpath("code.css").read_text()
    for part, back in (sheet.split("}")[0], "#f6f7f9"), (sheet.split("}")[1], "#14181f"):
        colours = dict(re.findall(r"--code-(\w+): (#\w{6})", part))
        assert colours.pop("back") == back
        for colour in colours.values():
            low, high = sorted((_light(colour), _light(back)))
            assert (high + 0.05) / (low + 0.05) >= 4.5
    assert markup._KINDS <= set(re.findall(r"\.([a-z]+)", sheet))
