"""Passing metrics on to an experiment tracker, where the person asks for one: wandb or trackio.

Nothing is sent anywhere unless it is asked for by name. The metrics are in `log.jsonl` in any case, so a tracker that
fails in the middle of a run is said, once, and left; one that cannot begin is a TrainError before the first step. Both
packages are configured by their own environment (WANDB_MODE, WANDB_PROJECT, TRACKIO_SPACE_ID, ...), which is honoured.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twofile.errors import TrainError

__all__ = ["TRACKERS", "Tracker", "check"]

TRACKERS = ("wandb", "trackio")
_PROJECT = "twofile"


def check(kind: str) -> None:
    """TrainError for a tracker that is not known or not installed: to be asked before a long preparation begins."""
    if kind not in TRACKERS:
        raise TrainError(f"there is no tracker {kind!r}", f"--track {' or --track '.join(TRACKERS)}")
    try:
        importlib.import_module(kind)
    except ModuleNotFoundError as error:
        missing = f"--track {kind} needs the package {error.name}, which is not installed"
        raise TrainError(missing, f"pip install {kind}") from error


class Tracker:
    """One run at one tracker. The run's folder names it; a resumed run goes on under the same name."""

    def __init__(self, kind: str, run: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
        check(kind)
        self._kind, self._say = kind, say
        name = run.resolve().name
        try:
            self._module = importlib.import_module(kind)
            project = os.environ.get(f"{kind.upper()}_PROJECT") or _PROJECT
            how = {"project": project, "name": name, "config": dict(config), "resume": "allow"}
            if kind == "wandb":
                self._run = self._module.init(**how, id=f"{project}-{name}", dir=str(run))
                self._module.define_metric("*", step_metric="step")  # its own counter cannot go back after a resume
            else:
                self._run = self._module.init(**how)
        except Exception as error:  # packages of others raise what they like
            hint = "leave --track out, or see what the package says about logging in"
            raise TrainError(f"{kind} cannot begin: {error}", hint) from error
        self._on = True
        if kind == "wandb" and os.environ.get("WANDB_MODE") == "disabled":
            say("--track wandb is ignored: WANDB_MODE=disabled is set")

    def log(self, values: Mapping[str, float | int | str], step: int) -> None:
        """Pass the metrics of a step on."""
        if self._kind == "wandb":
            self._try(self._module.log, {**values, "step": step})
        else:
            self._try(self._module.log, dict(values), step=step)

    def close(self) -> None:
        self._try(self._module.finish)

    def _try(self, call: Callable[..., Any], *args: Any, **how: Any) -> None:
        if not self._on:
            return
        try:
            call(*args, **how)
        except Exception as error:  # packages of others raise what they like
            self._on = False
            self._say(f"{self._kind} failed and is left ({error}); training goes on, and log.jsonl has everything")
