"""A model small enough to be made for a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import tiny_hyper, tiny_tensors, tiny_vocabulary
from twofile.params.provenance import Provenance
from twofile.params.write import write


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, qwen3, with random weights, a context of 64, and an escape sequence in its name."""
    vocabulary = replace(tiny_vocabulary(), chat_template=None, add_bos=True)
    hyper = tiny_hyper("qwen3", vocabulary, context_length=64)
    provenance = Provenance(name="tiny\x1b[31m", license="CC0-1.0", stages=("made up",), commit="abc123")
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write(path, hyper, vocabulary, tiny_tensors(hyper, 1), provenance=provenance)
    return path
