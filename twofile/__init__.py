"""twofile: a language model is two files. This package makes the first and runs it with the second.

    from twofile import Engine, Sampling, generate, resolve

    engine = Engine(resolve("stories"))
    for piece in generate(engine.session(), engine.tokenize("Once upon a time"), Sampling(), max_tokens=100):
        print(piece.text, end="")

Importing the package imports nothing else: the names below load their rooms when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ below does it
    from twofile.engine.constraint import Constraint
    from twofile.engine.draft import DraftModel, PromptLookup
    from twofile.engine.engine import Engine
    from twofile.engine.generate import generate
    from twofile.engine.sampler import Sampling
    from twofile.engine.scheduler import Scheduler
    from twofile.engine.session import Session
    from twofile.errors import TwofileError
    from twofile.params.names import resolve
    from twofile.params.parameters import Parameters

_HOMES = {
    "Constraint": "twofile.engine.constraint",
    "DraftModel": "twofile.engine.draft",
    "Engine": "twofile.engine.engine",
    "Parameters": "twofile.params.parameters",
    "PromptLookup": "twofile.engine.draft",
    "Sampling": "twofile.engine.sampler",
    "Scheduler": "twofile.engine.scheduler",
    "Session": "twofile.engine.session",
    "TwofileError": "twofile.errors",
    "generate": "twofile.engine.generate",
    "resolve": "twofile.params.names",
}

__all__ = [
    "Constraint", "DraftModel", "Engine", "Parameters", "PromptLookup", "Sampling", "Scheduler", "Session",
    "TwofileError", "__version__", "generate", "resolve",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'twofile' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
