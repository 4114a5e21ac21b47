"""Engines: opening, text, batches, threads and closing, on both backends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twofile.engine.engine import Engine
from twofile.errors import ContextError, EngineError, NotFoundError, ParametersError
from twofile.params.parameters import Parameters

TOKENS = [5, 17, 260, 3, 99, 41, 7]


def test_info_is_that_of_the_file(open_engine: Callable[..., Engine], make: Callable[..., Path], backend: str) -> None:
    info = open_engine("qwen2", tied=True).info
    with Parameters.open(make("qwen2", tied=True)) as file:
        h, v = file.hyper, file.vocabulary
    assert (info.architecture, info.name) == ("qwen2", "tiny qwen2")
    assert (info.vocab, info.context, info.dim, info.layers) == (h.vocab_size, h.context_length, h.dim, h.n_layers)
    assert (info.heads, info.kv_heads, info.head_dim, info.ffn) == (h.n_heads, h.n_kv_heads, h.head_dim, h.ffn_dim)
    assert (info.bos, info.eos, info.eot, info.unk, info.pad) == (v.bos, v.eos, v.eot, -1, v.pad)
    assert (info.add_bos, info.add_eos) == (v.add_bos, v.add_eos)
    assert info.parameters == h.n_parameters
    assert info.bytes == make("qwen2", tied=True).stat().st_size
    assert (info.kernels == "numpy") == (backend == "numpy")


@pytest.mark.parametrize("vocabulary", ["gpt2", "llama"])
def test_text(open_engine: Callable[..., Engine], vocabulary: str) -> None:
    engine = open_engine("llama", vocabulary=vocabulary)
    for text in ("Once upon a time", "", " the  girl\n", "naïve 你好 🙂", "a\0b", "<|im_end|></s>"):
        ids = engine.tokenize(text)
        assert engine.detokenize(ids) == text
        assert not set(ids) & set(engine.control_tokens.values())
    assert engine.detokenize_bytes(engine.tokenize(b"\xff\xfe")).lstrip() == b"\xff\xfe"
    assert engine.detokenize(engine.tokenize("\ud800")) == "?"
    with pytest.raises(ValueError, match="outside the vocabulary"):
        engine.detokenize([engine.vocab_size])


def test_control_tokens(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    end = engine.info.eos
    assert engine.control_tokens == {"<|endoftext|>": end, "<|im_start|>": end + 1, "<|im_end|>": end + 2}
    assert engine.tokenize("<|im_end|>", special=True) == [end + 2]
    assert engine.detokenize([end + 2]) == ""
    assert engine.detokenize([end + 2], special=True) == "<|im_end|>"
    assert [engine.ends(token) for token in (0, end, end + 1, end + 2)] == [False, True, False, True]


def test_a_prompt_begins_as_the_file_asks(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine("llama", vocabulary="llama")
    assert engine.prompt("the") == [engine.info.bos, *engine.tokenize("the")]
    engine = open_engine()
    assert engine.prompt("the") == engine.tokenize("the")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_batch_is_its_parts(open_engine: Callable[..., Engine], architecture: str) -> None:
    engine = open_engine(architecture)
    parts = [TOKENS, TOKENS[:1], TOKENS[2:5]]
    single = [engine.session().append(part, "all") for part in parts]
    sessions = [engine.session() for _ in parts]
    batch = engine.evaluate([(s, p, "all") for s, p in zip(sessions, parts, strict=True)])
    assert batch.dtype == np.float32
    assert batch.shape == (sum(map(len, parts)), engine.vocab_size)
    assert np.abs(batch - np.concatenate(single)).max() < 1e-4
    wants = engine.evaluate([(sessions[0], [1, 2], "last"), (sessions[1], [3], "none"), (sessions[2], [4, 5], "all")])
    assert len(wants) == 3
    assert [len(s) for s in sessions] == [9, 2, 5]
    assert engine.evaluate([]).shape == (0, engine.vocab_size)


def test_a_batch_that_fails_changes_nothing(open_engine: Callable[..., Engine]) -> None:
    engine, other = open_engine(), open_engine("qwen2")
    a, b = engine.session(), engine.session()
    want = a.fork().append(TOKENS)
    with pytest.raises(ContextError, match=r"^129 tokens do not fit into the context of 128$"):
        engine.evaluate([(a, TOKENS, "last"), (b, [1] * 129, "last")])
    bad: list[list[Any]] = [
        [(a, TOKENS, "last"), (b, [], "last")],
        [(a, TOKENS, "last"), (b, [-1], "last")],
        [(a, TOKENS, "last"), (b, [engine.vocab_size], "last")],
        [(a, TOKENS, "last"), (b, [[1]], "last")],
        [(a, TOKENS, "last"), (b, [1], "some")],
        [(a, TOKENS, "last"), (a, [1], "last")],
        [(a, TOKENS, "last"), (other.session(), [1], "last")],
    ]
    for steps in bad:
        with pytest.raises(ValueError):  # noqa: PT011 - what matters is that the sessions stay as they were
            engine.evaluate(steps)
    assert (len(a), len(b)) == (0, 0)
    assert np.array_equal(a.append(TOKENS), want)


def test_many_threads(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    want = engine.session().append(TOKENS, "all")

    def work(_: int) -> float:
        session = engine.session()
        got = [session.append([token])[0] for token in TOKENS]
        assert engine.detokenize(engine.tokenize("upon a time")) == "upon a time"
        return float(np.abs(np.array(got) - want).max())

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(40))) < 1e-4


def test_closing(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    session = engine.session()
    want = session.fork().append(TOKENS)
    engine.close()
    engine.close()
    assert np.array_equal(session.append(TOKENS), want)  # a session keeps what it needs
    for use in (lambda: engine.tokenize("a"), engine.session, lambda: engine.info, lambda: engine.evaluate([])):
        with pytest.raises(EngineError, match="the engine is closed"):
            use()
    assert "closed" in repr(engine)


def test_closing_while_others_work(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    started, failures = threading.Barrier(5), []

    def work() -> None:
        started.wait()
        try:
            for _ in range(1000):
                engine.session().append(TOKENS)
                engine.tokenize("once upon a time")
        except EngineError as error:
            failures.append(error.message)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    engine.close()
    for thread in threads:
        thread.join()
    assert failures == ["the engine is closed"] * 4


def test_files_that_are_none(tmp_path: Path, backend: Any) -> None:
    with pytest.raises(NotFoundError, match="there is no parameters file"):
        Engine(tmp_path / "missing.gguf", backend=backend)
    for content in (b"", b"GGUF", b"not a parameters file" * 100, b"GGUF\3\0\0\0" + b"\xff" * 100):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        with pytest.raises(ParametersError):
            Engine(path, backend=backend)


def test_settings_are_checked(make: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="backend must be"):
        Engine(make(), backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads must be"):
        Engine(make(), threads=-1)


def test_without_a_compiler(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWOFILE_CC", "no-such-compiler")
    with Engine(make()) as engine:
        assert engine.info.kernels == "numpy"
    said = capsys.readouterr().err
    assert said.startswith("twofile: the program cannot be compiled: no C compiler was found")
    assert said.count("\n") == 1
    with pytest.raises(EngineError, match="no-such-compiler") as caught:
        Engine(make(), backend="c")
    assert "install a C compiler" in caught.value.hint


@pytest.mark.parametrize("vocabulary", ["gpt2", "llama"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_the_program_agrees_with_the_reference(
    open_engine: Callable[..., Engine], make: Callable[..., Path], backend: str, architecture: str, vocabulary: str
) -> None:
    if backend == "numpy":
        pytest.skip("the reference is what it is compared with")
    ours = open_engine(architecture, vocabulary=vocabulary)
    with Engine(make(architecture, vocabulary=vocabulary), backend="numpy") as reference:
        ids = reference.prompt("Once upon a time there was a little girl, and she liked it: naïve 你好")
        assert ours.prompt("Once upon a time there was a little girl, and she liked it: naïve 你好") == ids
        assert np.abs(ours.session().append(ids, "all") - reference.session().append(ids, "all")).max() < 1e-3
        assert [ours.ends(i) for i in range(ours.vocab_size)] == [reference.ends(i) for i in range(ours.vocab_size)]
        assert ours.control_tokens == reference.control_tokens


def test_threads_sleep_between_requests(make: Callable[..., Path]) -> None:
    import time

    with Engine(make("llama"), threads=2) as engine:
        engine.session().append(TOKENS)
        time.sleep(0.3)
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.01
