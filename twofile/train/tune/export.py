"""From a tuned model to a parameters file, or an adapter, that knows how it came to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from twofile.params.provenance import Cost, Provenance
from twofile.params.vocabulary import Vocabulary
from twofile.params.write import write
from twofile.train.history import last_with
from twofile.train.model import Transformer, operations
from twofile.train.start import Start
from twofile.train.tune.lora import adapter_of, weights
from twofile.train.tune.settings import kept

__all__ = ["export", "export_adapter"]

_ROWS = {"reward": 2, "dpo": 2}  # of a comparison


def export(
    model: Transformer,
    start: Start,
    vocabulary: Vocabulary,
    run: Path,
    target: Path,
    *,
    step: int,
    name: str = "",
    description: str = "",
    type: str = "Q8_0",
    command: str = "",
    more: Mapping[str, Any] | None = None,
) -> Provenance:
    """Write `target`, a GGUF file, with the lineage of its base and one stage more, low-rank changes added to what they
    change. `vocabulary` may be the base's with another chat template. `run`: the folder of the run, whose settings and
    data it names. `more`: metadata (a reward model's head). Weights that no parameters file has stay behind."""
    lineage = _lineage(start, run, step, command).extended(name=name, description=description)
    shapes = start.hyper.shapes()
    found = ((name, weight.cpu().numpy()) for name, weight in weights(model) if name in shapes)
    write(target, start.hyper, vocabulary, found, type=type, provenance=lineage, more=more)
    return lineage


def export_adapter(
    model: Transformer,
    start: Start,
    vocabulary: Vocabulary,
    run: Path,
    target: Path,
    *,
    step: int,
    name: str = "",
    command: str = "",
) -> None:
    """Write the low-rank changes alone, with the chat template where the base has another one."""
    lineage = _lineage(start, run, step, command).extended(name=name)
    template = vocabulary.chat_template if vocabulary.chat_template != start.vocabulary.chat_template else None
    adapter_of(model, lineage, template or "").write(target)


def _lineage(start: Start, run: Path, step: int, command: str) -> Provenance:
    table: dict[str, Any] = kept(run)
    asked = table["asked"]
    files = {key: Path(file).name for key, file in table["files"].items() if key.startswith("data ")}
    read = step * asked["batch"] * asked["context"] * _ROWS.get(asked["stage"], 1)
    logged = last_with(run, lambda line: line.get("step") == step and "seconds" in line) or {}
    cost = Cost(
        seconds=float(logged.get("seconds", 0.0)),
        tokens=int(logged.get("tokens", 0)),
        flops=read * operations(start.hyper),
        data=tuple(files.values()),
    )
    stage = f"{asked['stage']} {step} steps"
    base = replace(start.provenance, description="")  # what is said of it is not true of this
    lineage = base.then(stage, parent=start.sha256, command=command, cost=cost)
    return lineage.extended(data=[f"{name} {table['hashes'][key]}" for key, name in files.items()])
