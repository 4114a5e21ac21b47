"""Calls of tools in the formats of three families: made under the grammar behind a mark, checked where none is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.tiny import tiny_hyper, tiny_tensors, tiny_vocabulary
from twofile.engine.calls import Called, Finished, Working, call_of, marks_of, turn
from twofile.engine.engine import Engine
from twofile.engine.generate import Piece
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler
from twofile.params.vocabulary import TokenType
from twofile.params.write import write

FORMATS: dict[str, tuple[str, tuple[str, ...], TokenType]] = {
    "ours": ("{{ '<|tool_call|>' }}", ("<|tool_call|>", "<|/tool_call|>"), TokenType.CONTROL),
    "qwen": ("{{ '<tool_call>\\n' }}", ("<tool_call>", "</tool_call>"), TokenType.USER_DEFINED),
    "llama3": ('{# ipython #}{{ \'{"name": "f", "parameters": {}}\' }}', (), TokenType.CONTROL),
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"enum": ["here", "there"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["place", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}},
}


@pytest.fixture(scope="module", params=FORMATS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    template, marks, kind = FORMATS[request.param]
    plain = tiny_vocabulary()
    vocabulary = replace(
        plain, tokens=(*plain.tokens, *marks), types=(*plain.types, *[kind] * len(marks)), chat_template=template
    )
    hyper = tiny_hyper("qwen3", vocabulary, context_length=512)
    path = tmp_path_factory.mktemp("calls") / f"{request.param}.gguf"
    write(path, hyper, vocabulary, tiny_tensors(hyper, 1))
    with Engine(path, threads=1) as found:
        yield found


class Script:
    """In place of a scheduler: each stream says what is scripted for it, a token a piece."""

    def __init__(self, engine: Engine, texts: Sequence[str | Sequence[int]]) -> None:
        self.engine, self.texts, self.asked = engine, list(texts), list[dict[str, Any]]()

    def submit(self, tokens: Sequence[int], **how: Any) -> Any:
        self.asked.append({"tokens": list(tokens), **how})
        said = self.texts.pop(0)
        ids = self.engine.tokenize(said) if isinstance(said, str) else list(said)
        pieces = [Piece(token, self.engine.detokenize([token])) for token in ids]
        pieces[-1] = replace(pieces[-1], finish="end")

        class Stream:
            reused = 0

            def __init__(self) -> None:
                self.left = iter(pieces)

            def __iter__(self) -> Any:
                return self.left

            def cancel(self) -> None:
                self.left = iter(())

        return Stream()


def said(engine: Engine, texts: Sequence[str | Sequence[int]], **how: Any) -> list[Any]:
    script: Any = Script(engine, texts)
    events = list(turn(script, engine, [1, 2], tools=[WEATHER, CLOCK], **how))
    return [event for event in events if not isinstance(event, Working)]


def test_an_untrained_model_writes_calls_that_fit(engine: Engine) -> None:
    kinds = set()
    with Scheduler(engine) as scheduler:
        for seed in range(12):
            events = turn(
                scheduler, engine, engine.tokenize("once upon"), tools=[WEATHER, CLOCK], choice="required",
                parallel=False, sampling=Sampling(temperature=3.0, seed=seed), max_tokens=400,
            )  # fmt: skip
            (called,) = [event for event in events if isinstance(event, Called)]
            arguments = json.loads(called.arguments)
            kinds.add(called.name)
            if called.name == "weather":
                assert arguments["place"] in ("here", "there")
                assert 1 <= arguments["days"] <= 9
            else:
                assert called.name == "clock"
    assert len(kinds) == 2


def test_a_mark_is_a_trap(engine: Engine) -> None:
    """The text before a call is said, what stands in the call is made under the grammar, and what follows is text."""
    marks = marks_of(engine)
    assert marks is not None
    if not marks.begin:
        return
    call = json.dumps({"name": "weather", "arguments": {"place": "here", "days": 3}})
    script: Any = Script(engine, [[*engine.tokenize("Let me see."), *marks.begin], call, "ok"])
    events = [event for event in turn(script, engine, [1, 2], tools=[WEATHER, CLOCK]) if not isinstance(event, Working)]
    text = "".join(event.text for event in events if isinstance(event, Piece))
    assert text == "Let me see.ok"
    assert [event for event in events if isinstance(event, Called)] == [
        Called("weather", json.dumps({"place": "here", "days": 3}))
    ]
    assert isinstance(events[-1], Finished)
    first, inside, after = script.asked
    assert first["constraint"] is None
    assert inside["constraint"] is not None
    assert inside["tokens"] == list(marks.begin[1:])
    assert after["tokens"] == list(marks.end)


@pytest.mark.parametrize(
    ("name", "arguments", "fits"),
    [
        ("weather", {"place": "here", "days": 3}, True),
        ("weather", {"days": 3, "place": "here"}, True),  # JSON knows no order
        ("weather", {"place": "here", "days": 99}, False),
        ("weather", {"place": "nowhere", "days": 3}, False),
        ("weather", {"place": "here"}, False),
        ("weather", {"place": "here", "days": 3, "more": 1}, False),
        ("clock", {}, True),
        ("other", {}, False),
    ],
)
def test_without_marks_a_reply_is_checked(engine: Engine, name: str, arguments: dict[str, Any], fits: bool) -> None:
    marks = marks_of(engine)
    assert marks is not None
    if marks.begin:
        return
    for text in (
        json.dumps({"name": name, marks.key: arguments}),
        json.dumps({"name": name, marks.key: arguments}, indent=1),
    ):
        events = said(engine, [text])
        calls = [event for event in events if isinstance(event, Called)]
        assert bool(calls) == fits
        if fits:
            assert json.loads(calls[0].arguments) == arguments
        else:  # it is a text like any other
            assert "".join(event.text for event in events if isinstance(event, Piece)) == text


def test_what_is_no_call() -> None:
    for text in ("", "hello", "[1]", '{"name": 7}', '{"name": "clock", "arguments": 7}', "[" * 100_000):
        assert call_of(text, [CLOCK]) is None
    assert call_of('{"name": "clock", "arguments": {}}', [CLOCK]) == Called("clock", "{}")
