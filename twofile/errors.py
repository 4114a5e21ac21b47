"""What can go wrong, drawn once.

Every error a person can cause or mend is a `TwofileError`: `message` says what happened and why, `hint` is the next
command to type (may be empty). The command line prints both and exits with 1. Broken promises of the code itself are
`assert`s; a wrong argument to a Python function is a `ValueError`.
"""

from __future__ import annotations

__all__ = [
    "ContextError",
    "DownloadError",
    "EngineError",
    "KernelError",
    "LabelError",
    "NotFoundError",
    "ParametersError",
    "TaskError",
    "ToolError",
    "TrainError",
    "TwofileError",
]


class TwofileError(Exception):
    """The root. `str(error)` is the message alone."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[TwofileError], tuple[str, str]]:
        return type(self), (self.message, self.hint)  # so that it survives a process boundary with its hint


class ParametersError(TwofileError):
    """A parameters file cannot be read, written or converted; names the field at fault."""


class EngineError(TwofileError):
    """The program cannot run a parameters file."""


class ContextError(EngineError):
    """A text does not fit into what is left of the context."""


class NotFoundError(TwofileError):
    """A name leads to no file."""


class TrainError(TwofileError):
    """A corpus, a tokenizer or a training run."""


class TaskError(TwofileError):
    """A task that models are measured by: its files, or what must be there to run it."""


class ToolError(TwofileError):
    """A tool lacks what it works with: a program of the system, a folder, a server."""


class KernelError(TwofileError):
    """A process, what it asks for, or the log that keeps it."""


class LabelError(TwofileError):
    """Items and labels: their file, or what is asked of it."""


class DownloadError(TwofileError):
    """A hub cannot be reached, or sent something else than it promised."""
