"""Models as a tool: who calls gives messages, and has what the model says.

How a model is opened is the caller's: `say(model, messages)` gives the text, or its pieces as they come, so that an
answer that nobody waits for any more ends with the piece that it is at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twofile.kernel.driver import Context, Part
from twofile.kernel.label import Label

__all__ = ["Generate", "Say"]

Message = Mapping[str, str]
Say = Callable[[str, Sequence[Message]], str | Iterable[str]]
"""What a model answers to messages ({"role": ..., "content": ...})."""


class Generate:
    """The driver. `models`: the names of those that there are, the first for who names none."""

    name = "generate"
    about = "Asks a language model, and gives what it says."
    pure = False  # the same question need not have the same answer

    def __init__(self, models: Sequence[str], say: Say) -> None:
        if not models:
            raise ValueError("there must be a model")
        self.models, self._say = tuple(models), say
        message = {
            "type": "object",
            "properties": {
                "role": {"type": "string", "enum": ["system", "user", "assistant"]},
                "content": {"type": "string"},
            },
            "required": ["role", "content"],
            "additionalProperties": False,
        }
        self.schema: Mapping[str, Any] = {
            "type": "object",
            "properties": {
                "model": {"type": "string", "enum": list(self.models)},
                "messages": {"type": "array", "items": message, "minItems": 1, "maxItems": 1000},
            },
            "required": ["messages"],
            "additionalProperties": False,
        }

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        said = self._say(arguments.get("model", self.models[0]), arguments["messages"])
        return (said,) if isinstance(said, str) else said

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label()  # made of what it was given alone: the caller joins that
