"""A model small enough to be made for a test: random weights, one token a byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twofile.params.hyper import Hyperparameters
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import TokenType, Vocabulary, byte_characters
from twofile.params.write import write


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny.gguf`: qwen3 of two layers, a context of 64, a name with an escape sequence in it."""
    hyper = Hyperparameters("qwen3", 258, 64, 32, 2, 2, 1, 16, 64, 1e-6, tied=True)
    tokens = (*byte_characters(), "Ġt", "<|end|>")
    types = (*[TokenType.NORMAL] * 257, TokenType.CONTROL)
    vocabulary = Vocabulary(
        "gpt2", "gpt-2", tokens, tuple(map(int, types)), merges=("Ġ t",), bos=257, eos=257, add_bos=True
    )
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, 0.05, shape).astype(np.float32) for name, shape in hyper.shapes().items()}
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    provenance = Provenance(name="tiny\x1b[31m", license="CC0-1.0", stages=("made up",), commit="abc123")
    write(path, hyper, vocabulary, weights, provenance=provenance)
    return path
