"""From a run folder to a parameters file: the newest checkpoint, the vocabulary, and where both come from.

The model's tensors already have their GGUF names, so this is a copy. Cost: the parameters once in float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from twofile.errors import TrainError
from twofile.params.provenance import Cost, Provenance
from twofile.params.write import write
from twofile.train import checkpoint
from twofile.train.history import last_with
from twofile.train.model import Transformer, operations
from twofile.train.pretrain.prepare import load_vocabulary
from twofile.train.pretrain.recipe import Recipe

__all__ = ["export", "trained"]


def trained(recipe: Recipe, run: Path) -> tuple[Transformer, int, int]:
    """The model of the newest checkpoint, its step, and how many tokens it has learned from.

    TrainError where there is none."""
    found = checkpoint.newest(run)
    if found is None:
        raise TrainError(f"{run} has no checkpoint", "train first")
    with torch.random.fork_rng(devices=[]):  # making a model touches torch's generator
        model = Transformer(recipe.hyper)
    found.fill({f"model.{name}": weight for name, weight in model.named_parameters()})
    return model.eval(), found.step, int(found.values["tokens"])


def export(
    recipe: Recipe, run: Path, target: Path, *, type: str = "Q8_0", command: str = "", commit: str = ""
) -> Provenance:
    """Write `target`, a GGUF file with its provenance, which is given back."""
    model, step, tokens = trained(recipe, run)
    try:
        sources = json.loads((run / "corpus.json").read_text(encoding="utf-8"))["sources"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise TrainError(f"{run}: corpus.json cannot be read ({error})") from error
    learned = {name: source["sha256"] for name, source in sources.items() if source["share"] > 0}
    logged = last_with(run, lambda line: line.get("step") == step and "seconds" in line) or {}
    seconds, flops = float(logged.get("seconds", 0.0)), tokens * operations(recipe.hyper)
    provenance = Provenance(
        name=recipe.name,
        description=recipe.description,
        license=recipe.licence,
        stages=(f"pretrain {step} steps, {tokens} tokens",),
        costs=(Cost(seconds, tokens, flops, tuple(learned)).written(),),
        data=tuple(f"{name} {sha256}" for name, sha256 in learned.items()),
        command=command,
        commit=commit,
    )
    weights = ((name, weight.detach().float().numpy()) for name, weight in model.state_dict().items())
    write(target, recipe.hyper, load_vocabulary(run), weights, type=type, provenance=provenance)
    return provenance
