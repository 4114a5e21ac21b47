"""What the last layer says of a text, and caches that are put away and brought back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from twofile.engine.engine import Engine
from twofile.engine.session import Session
from twofile.errors import ContextError, EngineError

Make = Callable[..., Path]
TOKENS = [int(token) for token in np.random.default_rng(3).integers(0, 256, 90)]


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
def test_the_program_says_what_the_reference_says(make: Make, family: str) -> None:
    with Engine(make(family), backend="numpy") as exact, Engine(make(family), backend="c", threads=2) as engine:
        for n in (1, 7, 90):
            found = engine.embed(TOKENS[:n])
            assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
            np.testing.assert_allclose(found, exact.embed(TOKENS[:n]), atol=1e-5)
        np.testing.assert_array_equal(engine.embed(TOKENS), engine.embed(TOKENS))
        assert engine.backend.held() == 0


def test_what_cannot_be_embedded(make: Make, backend: Literal["c", "numpy"]) -> None:
    with Engine(make(), backend=backend) as engine:
        with pytest.raises(ValueError, match="no tokens"):
            engine.embed([])
        with pytest.raises(ValueError, match="outside"):
            engine.embed([10**6])
        with pytest.raises(ContextError):
            engine.embed([1] * 1000)


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0"])
def test_the_vectors_of_tokens(make: Make, kind: str) -> None:
    path = make("qwen3", kind)
    with Engine(path, backend="numpy") as exact, Engine(path, backend="c") as engine:
        np.testing.assert_array_equal(engine.rows(TOKENS), exact.rows(TOKENS))
        assert engine.rows(TOKENS).shape == (90, engine.info.dim)
        assert engine.rows([]).shape == (0, engine.info.dim)
        with pytest.raises(ValueError, match="outside"):
            engine.rows([1, -1])


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0"])
@pytest.mark.parametrize("n", [1, 16, 33, 90])
def test_put_away_and_brought_back(make: Make, backend: Literal["c", "numpy"], kind: str, n: int) -> None:
    """It goes on to the same bits, also in another engine of the same file."""
    path = make("qwen3", kind)
    with Engine(path, backend=backend) as engine, Engine(path, backend=backend) as second:
        session = engine.session()
        session.append(TOKENS[:n], "none")
        data = session.save()
        wanted = session.append(TOKENS[5:15], "all")
        for one in (engine, second):
            back = Session.restored(one.backend, TOKENS[:n], data)
            assert back.tokens == TOKENS[:n]
            np.testing.assert_array_equal(back.append(TOKENS[5:15], "all"), wanted)
        with pytest.raises(EngineError, match="not of this model"):
            Session.restored(engine.backend, [*TOKENS, *TOKENS][: n + 20], data)
        with pytest.raises(EngineError, match="not of this model"):
            Session.restored(engine.backend, TOKENS[:n], data[:-1])
    other = make("qwen3", kind, n_layers=3)
    with Engine(other, backend=backend) as another, pytest.raises(EngineError, match="not of this model"):
        Session.restored(another.backend, TOKENS[:n], data)
