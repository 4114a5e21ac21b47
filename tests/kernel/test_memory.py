"""Working memory: the frame always fits, what matters comes back, what stands early stays."""

from __future__ import annotations

import os
import random
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_parameters
from twofile.engine.engine import Engine
from twofile.engine.template import ChatTemplate
from twofile.errors import KernelError
from twofile.kernel.label import Label
from twofile.kernel.log import Event
from twofile.kernel.memory import Frame, Memory
from twofile.kernel.page import chunks, said, view_of
from twofile.kernel.recall import Index
from twofile.params.names import resolve

RESERVE = 100
HISTORIES = int(os.environ.get("TWOFILE_HISTORIES", "150"))
RECIPES = Path(__file__).parents[2] / "recipes"


class Talk:
    """Events as a process would write them."""

    def __init__(self, system: str = "") -> None:
        self.events: list[Event] = []
        self.add("begin", {"system": system, "tools": []})

    def add(self, kind: str, body: dict[str, Any]) -> int:
        self.events.append(Event(len(self.events) + 1, 1, kind, body, 0.0))
        return len(self.events)

    def user(self, text: str, source: str = "user") -> int:
        return self.add("user", {"text": text, "label": Label.of(source).to_json()})

    def assistant(self, text: str) -> None:
        self.add("assistant", {"text": text, "calls": []})

    def tool(self, text: str) -> None:
        call = {"id": f"c{len(self.events)}", "name": "search", "arguments": {"q": "x"}}
        self.add("assistant", {"text": "", "calls": [call]})
        self.add("result", {"call": call["id"], "name": "search", "text": text, "label": Label.of("page:x").to_json()})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = tmp_path_factory.mktemp("m") / "tiny.gguf"
    with Engine(tiny_parameters("qwen3", "F32", 1, path, context_length=4096)) as found:
        yield found


def memory(
    engine: Engine, window: int, paging: bool = True, reserve: int = RESERVE, index: Index | None = None
) -> Memory:
    template = ChatTemplate.of(engine)
    return Memory(
        lambda messages, tools: template.render(messages, tools=tools or None),
        lambda text: len(engine.tokenize(text)),
        window, reserve, index or Index(), paging=paging,
    )  # fmt: skip


def framed(engine: Engine, talk: Talk, window: int, **how: Any) -> Frame:
    """The frame now; its changes become events, as in a process."""
    made = memory(engine, window, **how)
    frame = made.frame(view_of(talk.events, made.count))
    for kind, body in frame.changes:
        talk.add(kind, body)
    assert len(frame.ids) <= window - how.get("reserve", RESERVE)
    return frame


def test_chunks(engine: Engine) -> None:
    count = lambda text: len(engine.tokenize(text))  # noqa: E731
    text = "".join(f"This is sentence {i} of the text. " for i in range(200))
    parts = chunks(text, count, 50)
    assert "".join(parts) == text
    assert all(count(part) <= 60 for part in parts)
    assert all(part.endswith(" ") for part in parts)
    for odd in ("x" * 5000, "é" * 3000, "\n" * 4000, ""):
        assert "".join(chunks(odd, count, 50)) == odd


def test_all_that_fits_is_there(engine: Engine) -> None:
    talk = Talk("Be kind.")
    talk.user("once upon")
    talk.assistant("a time")
    talk.user("the girl")
    frame = framed(engine, talk, 2048)
    assert [message["content"] for message in frame.messages] == ["Be kind.", "once upon", "a time", "the girl"]
    assert not frame.changes
    assert not frame.out
    assert frame.label == Label.of("user")


def test_results_leave_stubs_before_turns_leave(engine: Engine) -> None:
    talk = Talk()
    talk.user("once")
    talk.tool("the day was on time " * 120)
    talk.assistant("found it")
    talk.user("and now")
    frame = framed(engine, talk, 600)
    texts = [message["content"] for message in frame.messages]
    assert texts[0] == "once"
    assert "recall page 4.1" in texts[2]
    assert {name.split(".")[0] for name in frame.out} == {"4"}
    assert frame.label.trusted  # what came from elsewhere is not before the model
    again = framed(engine, talk, 600)
    assert again.messages == frame.messages  # the same, from the log alone


def test_what_was_said_before_stays_in_place(engine: Engine) -> None:
    """The beginning of the frame is the same from turn to turn, but where something was put out."""
    talk = Talk("You are a helpful assistant.")
    changed = 0
    before: list[Any] = []
    for i in range(60):
        talk.user(f"question {i}: " + "the little girl was on time and " * 3)
        frame = framed(engine, talk, 1500)
        if any(kind == "memory" for kind, _ in frame.changes):
            changed += 1
        elif before:  # all but the newest message, which had before it what was brought back
            assert frame.messages[: len(before) - 1] == before[:-1]
        before = frame.messages
        talk.assistant("the answer " * 5)
    assert changed < 15


FACTS = {
    "the cat of my aunt is called Bartholomew": (
        "what is the name of my aunt's cat",
        "how is the animal of my aunt named",
    ),
    "my brother was born in Reykjavik": ("where was my brother born", "in which town did the life of my brother begin"),
    "the code of the cellar is 7391": ("what is the code of the cellar", "which number opens the cellar"),
    "grandmother's recipe needs seven lemons": (
        "how many lemons does the recipe need",
        "grandmother bakes: how many lemons",
    ),
}


@pytest.mark.parametrize("paging", [True, False])
def test_facts_come_back(engine: Engine, paging: bool) -> None:
    talk = Talk()
    for fact in FACTS:
        talk.user(fact)
        talk.assistant("I see.")
    for i in range(100):
        talk.user(f"Now something else, number {i}: " + "once upon a time there was a little day and then " * 2)
        framed(engine, talk, 1024, paging=paging)
        talk.assistant("And then it was on time and the girl was happy. " * 2)
    found = 0
    for fact, questions in FACTS.items():
        for question in questions:
            talk.user(question)
            frame = framed(engine, talk, 1024, paging=paging)
            newest = frame.messages[-1]["content"]
            found += fact in newest
            assert paging == (fact in newest), (question, newest)
            assert newest.endswith(question)
            talk.assistant("ok")
    assert found == (2 * len(FACTS) if paging else 0)


PLANTED = (  # what a user says, what is asked in its words, and what is asked in others
    ("My sister's dog is called Biscuit.", "What is my sister's dog called?",
     "Do you remember the name of the puppy that belongs to my sister?"),
    ("I was born in the town of Marlow.", "In which town was I born?", "Which place did I come from as a baby?"),
    ("The spare key is under the blue flower pot.", "Where is the spare key?",
     "How can I get in when I have lost my key?"),
    ("My grandmother bakes plum cake on Sundays.", "What does my grandmother bake on Sundays?",
     "Which sweet thing comes out of grandma's oven at the weekend?"),
    ("Our train leaves at half past seven.", "When does our train leave?",
     "At what time must we be at the station for the train?"),
    ("I am allergic to peanuts.", "What am I allergic to?", "Which food makes me ill?"),
    ("The password of the old computer is tulip.", "What is the password of the old computer?",
     "Which word opens the old computer?"),
    ("My favourite colour is dark green.", "What is my favourite colour?", "Which colour do I like best?"),
    ("Uncle Peter drives a red truck.", "What does uncle Peter drive?", "What kind of car does my uncle have?"),
    ("The picnic is on the third of June.", "When is the picnic?", "Which day did we choose for the picnic?"),
    ("The doctor said to take two pills each morning.", "How many pills did the doctor say to take each morning?",
     "How much medicine must I have, after what the doctor told me?"),
    ("My teacher lives in the house with the yellow door.", "In which house does my teacher live?",
     "At which door must I knock to visit my teacher?"),
    ("We named the boat Seagull.", "What did we name the boat?", "What is written on the side of our little ship?"),
    ("The library closes at six on Fridays.", "When does the library close on Fridays?",
     "Until what hour can I borrow books on a Friday?"),
    ("Anna owes me twelve coins.", "How many coins does Anna owe me?", "How much money will I get back from Anna?"),
    ("The hen laid four eggs in the barn.", "How many eggs did the hen lay in the barn?",
     "What did we find in the barn this morning?"),
    ("My shoe size is thirty eight.", "What is my shoe size?", "How large must new shoes be to fit me?"),
    ("The treasure map is inside the old clock.", "Where is the treasure map?",
     "Where did I hide the map that leads to the gold?"),
    ("Our neighbour Mister Brown plays the violin.", "What does our neighbour Mister Brown play?",
     "Which instrument does the man next door make music with?"),
    ("I promised Tom to bring a kite.", "What did I promise Tom to bring?",
     "What should I not forget to take along for Tom?"),
)  # fmt: skip


def chatter(count: int) -> list[tuple[str, str]]:
    """Exchanges of the conversations that the recipes make."""
    skills = runpy.run_path(str(RECIPES / "conversations.py"))["SHARES"]
    draw, found = random.Random(5), list[tuple[str, str]]()
    while len(found) < count:
        (skill,) = draw.choices([skill for _, skill in skills], [share for share, _ in skills])
        messages = skill(draw, False).messages
        said = [message["content"] for message in messages if message["role"] in ("user", "assistant")]
        found += [(asked, told) for asked, told in zip(said[::2], said[1::2], strict=False) if asked and told]
    return found[:count]


@pytest.mark.parametrize("paging", [True, False])
def test_twenty_facts_after_two_hundred_turns(paging: bool) -> None:
    """Planted in the first turns among others, asked in the last: what holds the fact is before the model, or not at
    all where nothing is brought back."""
    with Engine(resolve("base")) as base:
        index = Index(base)
        whole = memory(base, 2048, paging, 256, index)
        talk = Talk("You are a helpful assistant.")

        def turn(asked: str, told: str) -> Frame:
            talk.user(asked)
            frame = whole.frame(view_of(talk.events, whole.count))
            assert len(frame.ids) <= 2048 - 256
            for kind, body in frame.changes:
                talk.add(kind, body)
            talk.assistant(told)
            return frame

        rest = iter(chatter(200 - 3 * len(PLANTED)))
        places: dict[str, str] = {}
        for fact, *_ in PLANTED:
            places[fact] = str(len(talk.events) + 1)
            turn(fact, "I see.")
            turn(*next(rest))
        for exchange in rest:
            turn(*exchange)
        same, other = (
            sum(places[row[0]] in turn(row[kind], "Let me think.").resident for row in PLANTED) for kind in (1, 2)
        )
    print(f"of {len(PLANTED)} facts: {same} asked in the same words, {other} in others")
    assert (same >= 0.95 * len(PLANTED) and other >= 0.8 * len(PLANTED)) if paging else same == other == 0


@pytest.mark.parametrize("window", [512, 1024, 4096])
def test_a_message_of_fifty_thousand_tokens(engine: Engine, window: int) -> None:
    talk = Talk("Be kind.")
    long = " ".join(f"word{i}" for i in range(12_000)) + " the treasure is under the oak "
    assert len(engine.tokenize(long)) > 50_000
    talk.user(long)
    frame = framed(engine, talk, window)
    assert "tokens in all" in frame.messages[-1]["content"]
    assert len(frame.out) > 100
    talk.assistant("That is long.")
    talk.user("where is the treasure")
    assert "under the oak" in framed(engine, talk, window).messages[-1]["content"]


def test_what_cannot_be_shown(engine: Engine) -> None:
    talk = Talk("word " * 2000)
    talk.user("hi")
    with pytest.raises(KernelError, match="the system's words and the tools take"):
        memory(engine, 512).frame(view_of(talk.events, lambda text: len(engine.tokenize(text))))
    with pytest.raises(KernelError, match="no room"):
        memory(engine, 120)


def test_the_window_holds_whatever_was_said(engine: Engine) -> None:
    """Histories at random: lengths, tools, windows; each frame fits, and ends with what the user said last."""
    draw = random.Random(7)
    words = ("once", "upon", "a", "time", "the", "little", "girl", "ä€", "\n", "<|im_end|>", "x" * 40)
    for _ in range(HISTORIES):
        talk = Talk("Be kind. " * draw.choice((0, 1, 5)))
        window = draw.choice((512, 700, 1024, 2048))
        reserve = draw.choice((64, 100, 200))
        for _ in range(draw.randint(1, 12)):
            last = " ".join(draw.choices(words, k=draw.choice((1, 5, 30, 300))))
            talk.user(last, draw.choice(("user", "page:x")))
            for _ in range(draw.randint(0, 3)):
                talk.tool(" ".join(draw.choices(words, k=draw.choice((1, 50, 800)))))
            frame = framed(engine, talk, window, reserve=reserve)
            if draw.random() < 0.8:
                talk.assistant(" ".join(draw.choices(words, k=draw.choice((1, 20, 100)))))
        shown = [message for message in frame.messages if message["role"] == "user"][-1]["content"]
        assert shown.endswith(last) or "tokens" in shown
        assert frame.resident.isdisjoint(frame.out)


def test_whatever_is_shown_is_in_the_label(engine: Engine) -> None:
    """Each message has a word and a source of its own: where the word is before the model, so is the source."""
    draw = random.Random(11)
    for _ in range(HISTORIES // 3):
        talk, window, number = Talk("Be kind."), draw.choice((512, 700, 1200)), 0
        for _ in range(draw.randint(1, 9)):
            number += 1
            words = f"w{number:03} " * draw.choice((1, 8, 40, 90, 400))
            if draw.random() < 0.2:
                pinned = {"text": f"w{number:03}\n", "label": Label.of(f"page:{number}").to_json()}
                talk.add("pinned", pinned)
                number += 1
                words = f"w{number:03} "
            talk.user(words, f"page:{number}")
            for _ in range(draw.choice((0, 0, 1, 2))):
                number += 1
                call = {"id": f"c{number}", "name": "search", "arguments": {}}
                talk.add("assistant", {"text": "", "calls": [call]})
                label = Label.of(f"page:{number}").to_json()
                text = f"w{number:03} " * draw.choice((1, 60, 130, 900))
                talk.add("result", {"call": call["id"], "name": "search", "text": text, "label": label})
            frame = framed(engine, talk, window)
            shown = " ".join(str(message["content"]) for message in frame.messages)
            for found in set(re.findall(r"w(\d\d\d)", shown)):
                assert f"page:{int(found)}" in frame.label.sources, (found, shown)
            if draw.random() < 0.7:
                talk.assistant("ok")


def test_pages_are_the_messages(engine: Engine) -> None:
    talk = Talk()
    text = "the day and the girl " * 200
    seq = talk.user(text)
    view = view_of(talk.events, lambda words: len(engine.tokenize(words)))
    (message,) = view.turns[0].messages
    assert said(message) == text
    assert [page.name for page in message[:2]] == [f"{seq}.1", f"{seq}.2"]
