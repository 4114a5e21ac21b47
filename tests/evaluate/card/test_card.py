"""A report card: the lineage by checksums, paired effects, what got worse, as a page and as Markdown."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.cli.test_main import call
from tests.tiny import tiny_parameters
from twofile.evaluate.asking import Question, Reply
from twofile.evaluate.card.card import Card, Measure, Sample, make_card
from twofile.evaluate.card.lineage import lineage
from twofile.evaluate.card.page import card_page
from twofile.evaluate.card.words import markdown
from twofile.params.quantise import quantise


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Three files, each made from the one before it."""
    tiny_parameters("qwen3", "F32", 1, tmp_path / "first.gguf")
    quantise(tmp_path / "first.gguf", tmp_path / "second.gguf", "BF16")
    quantise(tmp_path / "second.gguf", tmp_path / "third.gguf", "Q4_0")
    return tmp_path


def test_lineage(family: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = lineage(family / "third.gguf", family.glob("*.gguf"), said.append)
    assert [(member.name, member.stages) for member in found] == [("first", 1), ("second", 2), ("third", 3)]
    assert not said
    (family / "second.gguf").unlink()
    assert [member.name for member in lineage(family / "third.gguf", family.glob("*.gguf"), said.append)] == ["third"]
    assert "is not here" in said[0]


def test_effects(family: Path) -> None:
    members = tuple(lineage(family / "third.gguf", family.glob("*.gguf")))
    measure = Measure("right", ((0.0,) * 40, (1.0,) * 40, (1.0,) * 20 + (0.0,) * 20))
    bits = Measure("bits", ((2.0, 3.0), (1.5, 2.4), (1.5, 2.4)), lower_is_better=True)
    card = Card(members, (measure, bits))
    verdicts = [(effect.measure, effect.after, effect.verdict) for effect in card.effects]
    assert verdicts[:2] == [("right", "second", "better"), ("right", "third", "worse")]
    assert card.effects[0].change.value == 1.0
    assert 0.85 < card.effects[0].change.low < 1.0
    assert card.effects[2].change.value == pytest.approx(0.55)
    assert verdicts[3][2] == "no difference shown"
    text = markdown(card)
    assert "- right, from second to third: -50 (" in text


class Checked(HTMLParser):
    """That tags are closed, and nothing is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name in ("src", "href") for name, _ in attrs)
        if tag not in ("meta", "input", "br", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag


def test_page(family: Path) -> None:
    members = tuple(lineage(family / "third.gguf", family.glob("*.gguf")))
    evil = "<script>alert(1)</script>|\n# no"
    question = Question(({"role": "user", "content": evil},), (), {})
    samples = (Sample("a group", question, tuple(Reply(evil) for _ in members)),)
    page = card_page(Card(members, (Measure(evil, ((0.0, 1.0),) * 3),), samples))
    assert "<script>alert" not in page
    parser = Checked()
    parser.feed(page)
    assert not parser.open
    assert "\n# no" not in markdown(Card(members, (), samples)).replace("\n> # no", "")


def test_the_command(family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.jsonl").write_text(
        '{"prompt": "once upon", "group": "letters", "want": "e"}\n{"prompt": "the girl", "want": "o"}\n'
    )
    (tmp_path / "judge.py").write_text("def has(messages, reply, row):\n    return row['want'] in reply\n")
    (tmp_path / "texts.txt").write_text("once upon a time the little girl\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(family / "first.gguf", elsewhere / "first.gguf")
    args = ["--questions", str(tmp_path / "q.jsonl"), "--judge", f"{tmp_path / 'judge.py'}:has"]
    args += ["--texts", str(tmp_path / "texts.txt"), "--longest", "8", "--beside", str(elsewhere)]
    args += ["--out", str(family / "third.html")]
    assert call("report", str(family / "third.gguf"), *args) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(family / "third.html"), str(family / "third.md")]
    text = (family / "third.md").read_text()
    assert "| measure | n | first | second | third | first to second | second to third |" in text
    assert "| bits per byte | 1 |" in text
    assert "| letters | 1 |" in text
    assert "| random weights |  |  | first |" in text
    assert call("report", str(family / "third.gguf"), "--judge", "x") == 2
    (family / "mine.md").write_text("notes")
    assert call("report", str(family / "third.gguf"), "--out", str(family / "mine.html")) == 1
    assert (family / "mine.md").read_text() == "notes"
    assert call("report", str(tmp_path / "nothing.gguf")) == 1


def test_the_same_questions_to_all(family: Path) -> None:
    members = lineage(family / "second.gguf", family.glob("*.gguf"))
    questions = [Question(({"role": "user", "content": "once"},), ({"name": "t"},), {"group": "g"})] * 2
    card = make_card(members, questions, lambda q, r: 1.0, tool=lambda n, a, r: "", longest=4, say=lambda _: None)
    assert [(measure.name, measure.n) for measure in card.measures] == [("g", 2), ("g, without tools", 2)]
    assert card.samples[0].replies[0] == card.samples[0].replies[1]  # BF16 of the same weights says the same
