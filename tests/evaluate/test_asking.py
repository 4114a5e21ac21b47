"""Questions that a model answers with the help of tools: a model that has learned to call, and one that has not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_hyper, tiny_tensors, tiny_vocabulary
from twofile.engine.engine import Engine
from twofile.evaluate.asking import Question, ask
from twofile.params.vocabulary import TokenType
from twofile.params.write import write
from twofile.train.loop import Plan
from twofile.train.tune.chatml import CHATML
from twofile.train.tune.export import export
from twofile.train.tune.finetune import fine_tune
from twofile.train.tune.settings import Settings

TOOL = {"name": "tell", "parameters": {}}
CALL = {"type": "function", "function": {"name": "tell", "arguments": {"on": "day"}}}
ASKED = {"role": "user", "content": "time"}


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has learned to call a tool where it has one, and to say what that gave."""
    folder = tmp_path_factory.mktemp("caller")
    plain = tiny_vocabulary()
    more = ("<|tool_call|>", "<|/tool_call|>")
    vocabulary = replace(
        plain, tokens=(*plain.tokens, *more), types=(*plain.types, *[TokenType.CONTROL] * 2), chat_template=CHATML
    )
    hyper = tiny_hyper("qwen3", vocabulary, context_length=256)
    write(folder / "base.gguf", hyper, vocabulary, tiny_tensors(hyper, 1))
    with_tool = [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    with_tool += [{"role": "tool", "content": "once"}, {"role": "assistant", "content": "once upon"}]
    rows = [{"messages": with_tool, "tools": [TOOL]}, {"messages": [ASKED, {"role": "assistant", "content": "on"}]}]
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 20))
    plan = Plan(steps=100, warmup=3, decay=0.5, matrix_rate=0.02, vector_rate=0.01, bfloat16=False, compile=False)
    settings = Settings("sft", folder / "base.gguf", (folder / "talks.jsonl",), plan, 256, batch=8, held_out=0.0)
    found = fine_tune(settings, folder / "run", lambda _: None)
    out = folder / "caller.gguf"
    export(found.model, found.start, found.vocabulary, folder / "run", out, step=100, type="F32")
    return out


def test_a_tool_is_called(caller: Path) -> None:
    asked: list[tuple[str, Any, Mapping[str, Any]]] = []

    def tool(name: str, arguments: Any, row: Mapping[str, Any]) -> str:
        asked.append((name, arguments, row))
        return "once"

    questions = [Question((ASKED,), (TOOL,), {"n": 1}), Question((ASKED,)), Question((ASKED,), (TOOL,), {"n": 2})]
    with Engine(caller) as engine:
        replies = ask(engine, questions, tool=tool, longest=60)
        assert [reply.text for reply in replies] == ["once upon", "on", "once upon"]
        assert asked == [("tell", {"on": "day"}, {"n": 1}), ("tell", {"on": "day"}, {"n": 2})]
        assert [len(reply.calls) for reply in replies] == [1, 0, 1]
        assert [reply.text for reply in ask(engine, questions)] == ["on", "on", "on"]  # nobody plays the tools


def test_a_tool_that_fails_and_a_model_that_never_stops(caller: Path) -> None:
    def tool(name: str, arguments: Any, row: Mapping[str, Any]) -> str:
        raise ValueError("it is broken")

    with Engine(caller) as engine:
        (reply,) = ask(engine, [Question((ASKED,), (TOOL,))], tool=tool, longest=60)
        assert reply.calls[0].result == "error: it is broken"
        assert len(reply.calls) <= 4
        long = Question(({"role": "user", "content": "the day " * 200},), (TOOL,))
        assert ask(engine, [long], tool=tool)[0].text == ""
