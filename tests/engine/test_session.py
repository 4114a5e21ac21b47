"""Sessions: reading on, forking, rewinding, and the edges of the context, on both backends."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from twofile.engine.engine import Engine
from twofile.errors import ContextError, EngineError

TOKENS = [5, 17, 260, 3, 99, 41, 7]


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() < 1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_token_by_token_is_all_at_once(open_engine: Callable[..., Engine], architecture: str) -> None:
    engine = open_engine(architecture)
    whole = engine.session().append(TOKENS, "all")
    session = engine.session()
    assert close(np.concatenate([session.append([token]) for token in TOKENS]), whole)
    assert (len(session), session.tokens, session.room) == (7, TOKENS, 121)
    halves = engine.session()
    assert halves.append(TOKENS[:4], "none").shape == (0, engine.vocab_size)
    assert close(halves.append(TOKENS[4:], "last"), whole[-1:])


def test_forks_go_their_own_ways(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    session = engine.session()
    session.append(TOKENS[:4], "none")
    forks = [session.fork() for _ in range(3)]
    got = [fork.append([token]) for fork, token in zip(forks, (10, 20, 30), strict=True)]
    for token, logits in zip((10, 20, 30), got, strict=True):
        assert close(logits, engine.session().append([*TOKENS[:4], token]))
    session.close()
    assert close(forks[0].append([1, 2]), engine.session().append([*TOKENS[:4], 10, 1, 2]))
    assert forks[1].tokens == [*TOKENS[:4], 20]


def test_forks_and_fresh_sessions_are_identical(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    a, b = engine.session(), engine.session()
    a.append(TOKENS[:5], "none")
    b.append(TOKENS[:5], "none")
    assert np.array_equal(a.fork().append(TOKENS[5:], "all"), b.append(TOKENS[5:], "all"))


def test_rewinding(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    session = engine.session()
    first = session.append(TOKENS, "all")
    fork = session.fork()
    for length in (6, 3, 0):
        session.rewind(length)
        assert len(session) == length
        assert close(session.append(TOKENS[length:], "all"), first[length:])
    session.rewind(2)
    session.append([1, 2, 3], "none")
    assert fork.tokens == TOKENS  # a fork is not moved, nor written over
    assert close(fork.append([9]), engine.session().append([*TOKENS, 9]))
    for length in (-1, 6):
        with pytest.raises(ValueError, match="length must be from 0 to 5"):
            session.rewind(length)


def test_keep_common(open_engine: Callable[..., Engine]) -> None:
    session = open_engine().session()
    session.append(TOKENS, "none")
    assert session.keep_common([*TOKENS, 1]) == 7
    assert session.keep_common(TOKENS) == 6  # one is left to read, for its logits
    assert session.keep_common([*TOKENS[:2], 8, 8]) == 2
    assert session.tokens == TOKENS[:2]
    assert session.keep_common([]) == 0


def test_the_context_is_filled_to_the_last_token(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    session = engine.session()
    with pytest.raises(ContextError, match=r"^129 tokens do not fit into the context of 128$"):
        session.append([1] * 129)
    assert len(session) == 0
    session.append([1] * 127, "none")
    with pytest.raises(ContextError, match=r"129 tokens .* 128 \(127 are there already, 2 would come\)"):
        session.append([1, 2])
    assert np.isfinite(session.append([1])).all()
    assert session.room == 0
    with pytest.raises(ContextError):
        session.append([1])


def test_many_forks_come_and_go(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    want = engine.session().append([*TOKENS, 9])
    root = engine.session()
    root.append(TOKENS, "none")
    for _ in range(30):
        forks = [root.fork() for _ in range(8)]
        for i, fork in enumerate(forks):
            fork.append([i], "none")
        forks[3].rewind(2)
    del forks, fork
    gc.collect()
    assert close(root.append([9]), want)


def test_threads_on_one_session_wait_for_each_other(open_engine: Callable[..., Engine]) -> None:
    session = open_engine().session()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda token: session.append([token]), range(40)))
    assert sorted(session.tokens) == list(range(40))


def test_closing(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    with engine.session() as session:
        session.append(TOKENS)
    session.close()
    for use in (lambda: session.append([1]), session.fork, lambda: session.rewind(0)):
        with pytest.raises(EngineError, match="the session is closed"):
            use()
    assert "closed" in repr(session)


def test_an_interrupt_leaves_the_session_as_it_was(
    open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python hears of it when the pass is over, and the cache holds tokens that the session does not know of."""
    engine = open_engine()
    session = engine.session()
    session.append([1, 2, 3])
    evaluate = type(engine.backend).evaluate

    def interrupted(self: object, steps: object) -> None:
        evaluate(self, steps)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(engine.backend), "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.append([4, 5])
    fresh = engine.session()
    assert np.allclose(session.append([6]), fresh.append([1, 2, 3, 6]), atol=1e-5)
