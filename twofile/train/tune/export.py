"""From a tuned model to a parameters file that knows how it came to be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from twofile.params.provenance import Provenance
from twofile.params.vocabulary import Vocabulary
from twofile.params.write import write
from twofile.train.start import Start
from twofile.train.tune.settings import kept

__all__ = ["export"]


def export(
    model: nn.Module,
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
    """Write `target`, a GGUF file, with the lineage of its base and one stage more. `vocabulary` may be the base's with
    another chat template. `run`: the folder of the run, whose settings and data it names. `more`: metadata (a reward
    model's head). Weights that no parameters file has stay behind."""
    table: dict[str, Any] = kept(run)
    stage = f"{table['asked']['stage']} {step} steps"
    lineage = start.provenance.then(stage, parent=start.sha256, command=command)
    data = [
        f"{Path(file).name} {table['hashes'][key]}" for key, file in table["files"].items() if key.startswith("data ")
    ]
    lineage = lineage.extended(name=name, description=description, data=data)
    shapes = start.hyper.shapes()
    weights = ((k, weight.detach().float().cpu().numpy()) for k, weight in model.state_dict().items() if k in shapes)
    write(target, start.hyper, vocabulary, weights, type=type, provenance=lineage, more=more)
    return lineage
