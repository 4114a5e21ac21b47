"""Conversations: what is read, what is supervised, what is cut; rows that hold all of it once an epoch."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import tiny_parameters
from twofile.engine.engine import Engine
from twofile.engine.template import ChatTemplate
from twofile.errors import EngineError, TrainError
from twofile.train.tune.conversations import Conversation, conversation, read
from twofile.train.tune.examples import Counts, Example, examples, template_of
from twofile.train.tune.rows import Rows


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = tiny_parameters("qwen3", "F32", 1, tmp_path_factory.mktemp("tune") / "tiny.gguf")
    with Engine(path, backend="numpy") as engine:
        yield engine


@pytest.fixture(scope="module")
def template(engine: Engine) -> ChatTemplate:
    found, own = template_of(engine)
    assert own
    return found


def talk(*said: str, system: str = "") -> Conversation:
    head = ({"role": "system", "content": system},) if system else ()
    roles = ("user", "assistant") * len(said)
    return Conversation((*head, *({"role": r, "content": c} for r, c in zip(roles, said, strict=False))))


def learned(engine: Engine, example: Example) -> str:
    return engine.detokenize([int(i) for i in example.ids[example.supervised]], special=True)


def test_what_the_assistant_says_is_supervised(engine: Engine, template: ChatTemplate) -> None:
    said = talk("once upon", "a time", "and <|im_end|>", "the <|im_start|> day", system="was")
    counts = Counts()
    (one,) = examples([said], template, 500, counts)
    assert learned(engine, one) == "a time<|im_end|>the <|im_start|> day<|im_end|>"
    control = set(engine.control_tokens.values())
    of_template = [int(i) for i in one.ids if int(i) in control]
    assert len(of_template) == 10  # five turns, each begun and ended: none of the messages' own
    assert [int(i) for i in one.ids] == template.render(said.messages, add_generation_prompt=False)
    assert (counts.examples, counts.supervised) == (1, int(one.supervised.sum()))


def test_learned_after_exactly_the_prompt_of_a_chat(template: ChatTemplate) -> None:
    said = talk("once", "\n upon", "a", " time")
    (one,) = examples([said], template, 500)
    for reply in (1, 3):
        prompt = template.render(said.messages[:reply])
        assert [int(i) for i in one.ids[: len(prompt)]] == prompt
        assert one.supervised[len(prompt)]
        assert not one.supervised[len(prompt) - 1]


def test_a_template_that_rewrites_is_refused(engine: Engine) -> None:
    source = "{{ messages|length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    template = ChatTemplate(source, engine.control_tokens, engine.tokenize)
    with pytest.raises(EngineError, match="cannot be told from the rest"):
        examples([talk("a", "b", "c", "d")], template, 500)


@pytest.mark.parametrize("longest", [65, 129, 257, 513])
def test_long_conversations_are_cut_at_turns(engine: Engine, template: ChatTemplate, longest: int) -> None:
    whole = talk(*(f"the day {i} " + "on on" for i in range(30)), system="little")
    endless = talk("the", "x" * 3000)
    silent = talk("nobody answers")
    counts = Counts()
    found = examples([whole, endless, silent], template, longest, counts)
    assert all(len(one.ids) <= longest and one.supervised.any() for one in found)
    assert (counts.conversations, counts.cut, counts.too_long, counts.silent) == (3, 1, 1, 1)
    replies = "".join(f"the day {i} " + "on on<|im_end|>" for i in range(1, 30, 2))
    assert "".join(learned(engine, one) for one in found) == replies  # each once, in order
    assert all("system\nlittle" in engine.detokenize(one.ids.tolist(), special=True) for one in found)


def test_forms() -> None:
    asked = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    rows: list[dict[str, Any]] = [
        {"messages": asked},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"instruction": "Q", "input": "", "output": "A"},
        {"instruction": "Q", "response": "A"},
        {"prompt": "Q", "completion": "A"},
    ]
    assert all(list(conversation(row).messages) == asked for row in rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ("[1]", "no JSON object"),
        ('{"text": "x"}', "no conversation"),
        ('{"messages": [{"role": "king", "content": "x"}]}', "no role"),
        ('{"messages": [{"role": "user"}]}', "no content"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "no text"),
        ('{"prompt": "x"}', "no content"),
    ],
)
def test_a_line_that_is_none(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "talks.jsonl.xz"
    with lzma.open(path, "wt") as out:
        out.write(json.dumps({"prompt": "Q", "completion": "A"}) + "\n" + line + "\n")
    with pytest.raises(TrainError, match=message):
        list(read(path))


def test_rows_hold_every_example_once_an_epoch() -> None:
    draw = np.random.default_rng(1)
    made = []
    for i in range(200):
        ids = np.full(draw.integers(2, 34), i + 1)
        made.append(Example(ids, np.arange(len(ids)) > 0))
    rows = Rows(made, 32, 4, seed=3)
    whole = len(rows._epoch(0))
    assert whole * 33 < 1.15 * sum(len(one.ids) for one in made)  # little padding
    seen: dict[int, int] = {}
    for row in range(whole):
        part = rows.batch(row // 4)
        held, weights = part["tokens_BT"][row % 4], part["weights_BT"][row % 4]
        documents = part["documents_BT"][row % 4]
        for i in held.unique().tolist():
            if i:
                seen[i] = seen.get(i, 0) + int((held == i).sum())
                assert documents[held == i].unique().numel() == 1
        same = held[1:] == held[:-1]
        assert (weights == (same & (held[1:] > 0))).all()  # never across two examples, never padding
    assert seen == {i + 1: len(one.ids) for i, one in enumerate(made)}
    again = Rows(made, 32, 4, seed=3)
    assert all((again.batch(90)[name] == rows.batch(90)[name]).all() for name in rows.batch(0))
