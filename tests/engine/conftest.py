"""Both backends, so that every test of the engine runs on the program and on the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.tiny import tiny_parameters, tiny_spm_parameters
from twofile.engine import library
from twofile.engine.engine import Engine
from twofile.errors import EngineError

Open = Callable[..., Engine]


@pytest.fixture(params=["c", "numpy"])
def backend(request: pytest.FixtureRequest) -> Literal["c", "numpy"]:
    if request.param == "c":
        try:
            library.load_program()
        except EngineError as error:
            pytest.skip(error.message)
    found: Literal["c", "numpy"] = request.param
    return found


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny parameters file: make("qwen3", "F32", vocabulary="gpt2" or "llama", further hyperparameters)."""
    made: dict[str, Path] = {}

    def write(architecture: str = "qwen3", type: str = "F32", vocabulary: str = "gpt2", **changes: Any) -> Path:
        key = repr((architecture, type, vocabulary, sorted(changes.items())))
        if key not in made:
            path = tmp_path_factory.mktemp("tiny") / f"{architecture}-{type}.gguf"
            if vocabulary == "llama":
                made[key] = tiny_spm_parameters(type, 1, path, architecture=architecture, **changes)
            else:
                made[key] = tiny_parameters(architecture, type, 1, path, **changes)
        return made[key]

    return write


@pytest.fixture
def open_engine(make: Callable[..., Path], backend: Literal["c", "numpy"]) -> Iterator[Open]:
    """An engine on a tiny parameters file; the arguments are those of `make`."""
    engines: list[Engine] = []

    def open_(*args: Any, **changes: Any) -> Engine:
        engines.append(Engine(make(*args, **changes), threads=2 if backend == "c" else 0, backend=backend))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()
