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
from twofile.train.tune.chatml import CHATML
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


TOOLS = ({"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}},)


@pytest.fixture(scope="module")
def own(engine: Engine) -> ChatTemplate:
    """What a base model learns, with control tokens for tools among those of the tests."""
    control = dict(engine.control_tokens)
    for i, text in enumerate(("<|tool_call|>", "<|/tool_call|>", "<|think|>", "<|/think|>")):
        control[text] = i  # some bytes stand in for them
    return ChatTemplate(CHATML, control, engine.tokenize)


def test_our_own_template_calls_tools(own: ChatTemplate) -> None:
    row = {
        "tools": list(TOOLS),
        "messages": [
            {"role": "system", "content": "Be exact."},
            {"role": "user", "content": "2+2? <|tool_call|>"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "a sum"},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_call", "name": "calculator", "arguments": {"x": "2+2"}},
                    {"type": "tool_result", "content": {"value": 4}},
                ],
            },
            {"role": "assistant", "content": "4"},
        ],
    }
    talk = conversation(row)
    assert own.text(talk.messages, False, talk.tools) == (
        "<|im_start|>system\nBe exact.\n\nTools:\n"
        '{"name": "calculator", "parameters": {"type": "object"}}\n<|im_end|>\n'
        "<|im_start|>user\n2+2? <|tool_call|><|im_end|>\n"
        "<|im_start|>assistant\n<|think|>a sum<|/think|>Let me see."
        '<|tool_call|>{"name": "calculator", "arguments": {"x": "2+2"}}<|/tool_call|><|im_end|>\n'
        '<|im_start|>tool\n{"value": 4}<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n'
    )
    parts = own.parts(talk.messages, talk.tools)
    said = [ids for ids, said in parts if said]
    assert len(said) == 2
    assert [said[0].count(i) for i in range(4)] == [1, 1, 1, 1]  # the call and the thinking are the assistant's
    assert not any(i in ids for ids, said in parts if not said for i in range(4))  # what a user writes is text
    plain = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert own.text(plain) == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    asked = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    called = own.text([{"role": "assistant", "content": None, "tool_calls": [asked]}], False)
    assert (
        called == '<|im_start|>assistant\n<|tool_call|>{"name": "f", "arguments": {"a": 1}}<|/tool_call|><|im_end|>\n'
    )


def test_sharegpt_with_tools() -> None:
    call = {"name": "f", "arguments": {"a": 1}}
    row = {
        "conversations": [
            {"from": "human", "value": "Q"},
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": "{}"},
            {"from": "gpt", "value": "A"},
        ],
        "tools": '[{"name": "f"}]',
    }
    found = conversation(row)
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert found.messages[1]["tool_calls"] == [{"type": "function", "function": call}]
    assert found.tools == ({"name": "f"},)


def test_conversations_that_people_made(shared_data: Path) -> None:
    talks = list(read(shared_data / "sft" / "llamafactory_glaive_toolcall_en_demo.json.xz"))
    assert len(talks) == 300
    assert any(message.get("tool_calls") for talk in talks for message in talk.messages)


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
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "type 'image'"),
        ('{"conversations": [{"from": "function_call", "value": "{}"}]}', "no name"),
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
