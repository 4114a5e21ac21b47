"""The API by OpenAI's own client: texts, streams, JSON, tools, log-probabilities, errors, and clients that go away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.engine.test_calls import CLOCK, WEATHER
from tests.tiny import tiny_hyper, tiny_parameters, tiny_tensors, tiny_vocabulary
from twofile.engine.engine import Engine
from twofile.engine.generate import generate
from twofile.engine.sampler import Sampling
from twofile.engine.template import ChatTemplate
from twofile.params.vocabulary import TokenType
from twofile.params.write import write
from twofile.train.tune.chatml import CHATML

ASKED: list[Any] = [{"role": "user", "content": "once upon a time"}]
CALLS = int(os.environ.get("TWOFILE_CALLS", "40"))
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
BAD = {"name": "x", "schema": {"type": 7}}
OTHER = {"type": "function", "function": {"name": "x"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One without and one with tokens for calls, both untrained."""
    folder = tmp_path_factory.mktemp("served")
    plain = tiny_vocabulary()
    marks = ("<|tool_call|>", "<|/tool_call|>")
    vocabulary = replace(
        plain, tokens=(*plain.tokens, *marks), types=(*plain.types, *[TokenType.CONTROL] * 2), chat_template=CHATML
    )
    hyper = tiny_hyper("qwen3", vocabulary, context_length=1024)
    write(folder / "caller.gguf", hyper, vocabulary, tiny_tensors(hyper, 1))
    tiny_parameters("qwen3", "F32", 1, folder / "own.gguf", context_length=1024)
    return tiny_parameters("qwen3", "F32", 1, folder / "tiny.gguf", context_length=1024), folder / "caller.gguf"


class Server:
    """`twofile serve` in a process of its own."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-m", "twofile", "serve", "--port", "0", "--threads", "1", *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            _, told = self.process.communicate(timeout=10)
            raise AssertionError(told)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.address.removesuffix("/v1") + "/health").read()
                break
            except urllib.error.HTTPError:
                break  # it wants its token
            except OSError:
                time.sleep(0.05)

    def client(self, key: str = "any") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.address, api_key=key, max_retries=0, timeout=60)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def server(models: tuple[Path, Path]) -> Iterator[Server]:
    found = Server(*map(str, models))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client()


def test_what_the_engine_says(client: openai.OpenAI, models: tuple[Path, Path]) -> None:
    with Engine(models[0]) as engine:
        ids = ChatTemplate.of(engine).render(ASKED)
        sampling = Sampling(temperature=0.7, top_p=0.9, seed=5)
        wanted = "".join(piece.text for piece in generate(engine.session(), ids, sampling, max_tokens=30))
    how: dict[str, Any] = {"model": "tiny", "messages": ASKED, "temperature": 0.7, "top_p": 0.9, "seed": 5}
    said = client.chat.completions.create(**how, max_tokens=30)
    assert said.choices[0].message.content == wanted
    assert said.choices[0].finish_reason == "length"
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (len(ids), 30)
    chunks = list(
        client.chat.completions.create(
            **how, max_completion_tokens=30, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == wanted
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 30
    assert [model.id for model in client.models.list().data] == ["tiny", "caller"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_several_answers_stops_and_bias(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="tiny", messages=ASKED, n=3, seed=1, max_tokens=20, temperature=2)
    texts = [choice.message.content or "" for choice in said.choices]
    assert len(set(texts)) == 3
    again = client.chat.completions.create(model="tiny", messages=ASKED, seed=2, max_tokens=20, temperature=2)
    assert again.choices[0].message.content == texts[1]  # the seed of the second
    stop = texts[0][5:8]
    how: dict[str, Any] = {"seed": 1, "max_tokens": 20, "temperature": 2, "stop": [stop]}
    cut = client.chat.completions.create(model="tiny", messages=ASKED, **how)
    assert cut.choices[0].message.content == texts[0][: texts[0].index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    forced = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=3, logit_bias={"65": 100})
    assert len(set(forced.choices[0].message.content or "")) == 1


def test_json(client: openai.OpenAI) -> None:
    shape = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"]}
    shape["additionalProperties"] = False
    whole = 0
    for seed in range(8):
        said = client.chat.completions.create(
            model="tiny", messages=ASKED, seed=seed, max_tokens=100,
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": shape}},
        )  # fmt: skip
        if said.choices[0].finish_reason == "stop":
            assert set(json.loads(said.choices[0].message.content or "")) == {"n"}
            whole += 1
    assert whole > 4


def test_an_untrained_model_calls_well(client: openai.OpenAI) -> None:
    """Arguments are of the schema, whatever the model; results go in as text."""
    for seed in range(CALLS):
        said = client.chat.completions.create(
            model="caller", messages=ASKED, tools=[WEATHER, CLOCK], tool_choice="required", parallel_tool_calls=False,
            seed=seed, max_tokens=600,
        )  # fmt: skip
        (call,) = said.choices[0].message.tool_calls or ()
        assert said.choices[0].finish_reason == "tool_calls"
        assert call.type == "function"
        arguments = json.loads(call.function.arguments)
        if call.function.name == "weather":
            assert arguments["place"] in ("here", "there")
            assert 1 <= arguments["days"] <= 9
        else:
            assert (call.function.name, arguments) == ("clock", {})
        result = {"role": "tool", "tool_call_id": call.id, "content": "<|im_end|><|tool_call|>"}
        messages: list[Any] = [*ASKED, said.choices[0].message.model_dump(exclude_none=True), result]
        if seed == 0:
            on = client.chat.completions.create(model="caller", messages=messages, tools=[WEATHER], max_tokens=5)
            assert on.usage is not None
            assert on.usage.prompt_tokens > 100
    named = client.chat.completions.create(
        model="caller", messages=ASKED, tools=[WEATHER, CLOCK], max_tokens=300, stream=True, parallel_tool_calls=False,
        tool_choice={"type": "function", "function": {"name": "clock"}},
    )  # fmt: skip
    calls = [call for chunk in named for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.function] == ["clock"]


def test_schemas_with_definitions(client: openai.OpenAI) -> None:
    """As pydantic makes them of nested models: references are to the root of the tool's own schema."""
    point = {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"], "additionalProperties": False}
    tools: list[Any] = []
    for name, kind in (("near", "$defs"), ("far", "definitions")):
        schema = {kind: {"P": point}, "type": "object", "properties": {"p": {"$ref": f"#/{kind}/P"}}, "required": ["p"]}
        schema["additionalProperties"] = False
        tools.append({"type": "function", "function": {"name": name, "parameters": schema}})
    for seed in range(6):
        said = client.chat.completions.create(
            model="caller", messages=ASKED, tools=tools, tool_choice="required", seed=seed, max_tokens=600,
            parallel_tool_calls=False,
        )  # fmt: skip
        (call,) = said.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert json.loads(call.function.arguments)["p"]["x"] in (1, 2)


def test_no_call_where_none_is_wanted(client: openai.OpenAI) -> None:
    for seed in range(20):
        said = client.chat.completions.create(
            model="caller", messages=ASKED, tools=[WEATHER], tool_choice="none", seed=seed, max_tokens=60, temperature=2
        )
        assert not said.choices[0].message.tool_calls


def test_what_is_null_was_not_asked(server: Server) -> None:
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 2, "stream": None, "n": None, "tool_choice": None}
    body |= {"service_tier": "auto", "logprobs": None, "stop": None}
    asked = urllib.request.Request(server.address + "/chat/completions", data=json.dumps(body).encode())
    with urllib.request.urlopen(asked) as answer:
        assert json.loads(answer.read())["choices"][0]["finish_reason"] == "length"


def test_completions_and_their_probabilities(client: openai.OpenAI, models: tuple[Path, Path]) -> None:
    text = "once upon a time the little girl"
    said = client.completions.create(model="tiny", prompt=text, echo=True, max_tokens=2, logprobs=3, temperature=0)
    with Engine(models[0]) as engine:
        ids = engine.prompt(text)
        rows = engine.session().append(ids, "all").astype(np.float64)
        logp = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        wanted = [float(row[token]) for row, token in zip(logp[:-1], ids[1:], strict=True)]
    found = said.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs is not None
    assert found.token_logprobs[0] is None
    assert found.token_logprobs[1 : len(ids)] == pytest.approx(wanted, abs=1e-4)
    assert len(found.token_logprobs) == len(ids) + 2
    assert said.choices[0].text.startswith(text)
    assert found.top_logprobs is not None
    assert max(found.top_logprobs[-1].values()) == pytest.approx(found.token_logprobs[-1])
    given = client.completions.create(model="tiny", prompt=ids, echo=True, max_tokens=0, logprobs=1)
    assert given.choices[0].logprobs is not None
    assert (given.choices[0].logprobs.token_logprobs or [])[1:] == pytest.approx(wanted, abs=1e-4)
    several = client.completions.create(model="tiny", prompt=["once", "the girl"], max_tokens=4, n=2, seed=3)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    chunks = client.completions.create(model="tiny", prompt="once", max_tokens=4, seed=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == several.choices[0].text


def test_embeddings(client: openai.OpenAI, models: tuple[Path, Path]) -> None:
    with Engine(models[0]) as engine:
        wanted = [engine.embed(engine.prompt(text)) for text in ("once upon", "the girl")]
        tokens = engine.prompt("the girl")
    packed = client.embeddings.create(model="tiny", input=["once upon", "the girl"])  # as base64, which the client asks
    plain = client.embeddings.create(model="tiny", input=[tokens], encoding_format="float")
    for one, exact in zip([*packed.data, *plain.data], [*wanted, wanted[1]], strict=True):
        np.testing.assert_allclose(one.embedding, exact, atol=1e-6)
    assert packed.usage.prompt_tokens == plain.usage.prompt_tokens + len(engine_prompt_of("once upon", models[0]))
    with pytest.raises(openai.BadRequestError, match="does not fit"):
        client.embeddings.create(model="tiny", input="the day " * 2000)
    with pytest.raises(openai.BadRequestError, match="dimensions is not supported"):
        client.embeddings.create(model="tiny", input="x", dimensions=3)


def engine_prompt_of(text: str, path: Path) -> list[int]:
    with Engine(path) as engine:
        return engine.prompt(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "other"}, "there is no model 'other'; there are: tiny, caller"),
        ({"messages": [{"role": "user", "content": "the day " * 3000}]}, "does not fit"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "role 'nobody'"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "no image_url"),
        ({"temperature": -1}, "temperature"),
        ({"frequency_penalty": 1.0}, "frequency_penalty is not supported"),
        ({"extra_body": {"magic": 1}}, "magic"),
        ({"logit_bias": {"99999": 1}}, "99999"),
        ({"response_format": {"type": "json_schema", "json_schema": BAD}}, "cannot be used"),
        ({"tools": [WEATHER]}, "knows no tools"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"model": "caller", "tools": [WEATHER], "tool_choice": {"type": "function", "function": "x"}}, "no function"),
        ({"top_logprobs": 3}, "top_logprobs wants logprobs"),
        ({"extra_body": {"chat_template_kwargs": {"tools": []}}}, "no setting of a template"),
        ({"model": "caller", "tools": [WEATHER, WEATHER]}, "two tools have the name weather"),
        ({"model": "caller", "tools": [WEATHER], "tool_choice": OTHER}, "no tool 'x'"),
    ],
)  # fmt: skip
def test_what_is_refused(client: openai.OpenAI, change: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**({"model": "tiny", "messages": ASKED, "max_tokens": 3} | change))
    assert words in caught.value.message
    assert caught.value.status_code in (400, 404)
    with pytest.raises(openai.APIStatusError) as streamed:  # before the stream begins
        client.chat.completions.create(**({"model": "tiny", "messages": ASKED, "max_tokens": 3} | change), stream=True)
    assert streamed.value.status_code == caught.value.status_code


def test_who_may_ask(server: Server, models: tuple[Path, Path]) -> None:
    address = server.address + "/models"

    def status(**headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status() == 200
    assert status(Host="evil.example") == 403
    assert status(Origin="http://evil.example") == 403
    other = Server(str(models[0]), "--token", "secret")
    try:
        assert [model.id for model in other.client("secret").models.list().data] == ["tiny"]
        with pytest.raises(openai.AuthenticationError):
            other.client("wrong").models.list()
    finally:
        other.stop()
    command = [sys.executable, "-m", "twofile", "serve", str(models[0]), "--host", "0.0.0.0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 1
    assert "there must be a token" in refused.stderr


def test_fifty_streams_of_which_half_go_away(server: Server) -> None:
    """Nothing is left of them: no session, no memory that grows, no file descriptor."""
    pid = server.process.pid
    gate = threading.Barrier(50)

    def one(number: int) -> int:
        client = server.client()
        gate.wait()
        count = 0
        with client.chat.completions.create(
            model="tiny", messages=ASKED, seed=number, max_tokens=400, stream=True, temperature=1.5
        ) as stream:
            for _ in stream:
                count += 1
                if number % 2 and count == 5:
                    break  # and the connection is closed
        client.close()
        return count

    def held() -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    def resident() -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = held()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(one, range(50)))
        after_one = resident()
        counts = list(pool.map(one, range(50)))
    assert resident() < after_one + 30e6  # the same again takes no more
    assert all(count == 5 for count in counts[1::2])
    assert sum(count > 100 for count in counts[::2]) > 10
    deadline = time.monotonic() + 20
    while held() > before + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert held() <= before + 2
    start = time.monotonic()
    server.client().chat.completions.create(model="tiny", messages=ASKED, max_tokens=5)
    assert time.monotonic() - start < 5  # nobody's text is still being written


def test_a_request_that_goes_away_is_cancelled(server: Server) -> None:
    import socket

    host, port = server.address.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": "tiny", "messages": ASKED, "max_tokens": 900, "n": 100, "temperature": 1.5}).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(0.3)
    start = time.monotonic()
    server.client().chat.completions.create(model="tiny", messages=ASKED, max_tokens=5)
    assert time.monotonic() - start < 10


def test_a_call_under_way_is_cancelled(server: Server) -> None:
    """No event comes while a call is written, and still its client's leaving ends it."""
    shape = {"type": "object", "properties": {"s": {"type": "string", "minLength": 5000}}, "required": ["s"]}
    tool: Any = {"type": "function", "function": {"name": "long", "parameters": shape}}
    with pytest.raises(openai.APITimeoutError):
        server.client().with_options(timeout=0.5).chat.completions.create(
            model="caller", messages=ASKED, tools=[tool], tool_choice="required", n=50
        )
    start = time.monotonic()
    server.client().chat.completions.create(model="caller", messages=ASKED, max_tokens=3)
    assert time.monotonic() - start < 5


def test_a_model_of_another_server(server: Server, models: tuple[Path, Path]) -> None:
    """What is asked of it goes there and comes back as it is: texts, streams, calls, errors; the own models beside."""
    front = Server(str(models[0].with_name("own.gguf")), "--remote", server.address)
    try:
        there, client = server.client(), front.client()
        assert {model.id for model in client.models.list()} == {"own", "tiny", "caller"}
        how: dict[str, Any] = {"messages": ASKED, "temperature": 0.7, "seed": 5, "max_tokens": 20}
        wanted = there.chat.completions.create(model="tiny", **how).choices[0].message.content
        for model in ("tiny", "own"):  # the same weights
            assert client.chat.completions.create(model=model, **how).choices[0].message.content == wanted
        pieces = client.chat.completions.create(model="tiny", stream=True, **how)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == wanted
        tools: Any = {"tools": [WEATHER], "tool_choice": "required"}
        called = client.chat.completions.create(model="caller", **how | {"max_tokens": 400}, **tools)
        assert called.choices[0].message.tool_calls
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "once " * 3000}])
        assert error.value.code == "context_length_exceeded"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="none", messages=ASKED)
    finally:
        front.stop()


def test_another_server_that_is_gone(models: tuple[Path, Path]) -> None:
    behind = Server(str(models[0]))
    front = Server("--remote", behind.address)
    try:
        client = front.client()
        stream = client.chat.completions.create(model="tiny", messages=ASKED, stream=True, max_tokens=900)
        next(iter(stream))
        stream.close()
        assert client.completions.create(model="tiny", prompt="once", max_tokens=2).choices[0].text
        behind.stop()
        with pytest.raises(openai.InternalServerError) as error:
            client.completions.create(model="tiny", prompt="once", max_tokens=2)
        assert error.value.status_code == 502
        assert "does not answer" in str(error.value)
        with pytest.raises(AssertionError, match="does not answer"):
            Server("--remote", behind.address)
    finally:
        front.stop()
