"""Which mixture of texts makes the better small base model: the ablation behind recipes/bundled.toml.

    .venv/bin/python bench/mixtures.py --data DATA [--steps 600] [--seed 1 2] [--only even ...]

DATA is laid out as recipes/bundled.toml says. Each mixture trains a model of 3M parameters for the same number of
tokens and is measured in bits per byte on the same held-out documents of every source. A family's figure is the mean of
its sources', the last one the mean of the families'. What was trained is kept in .work/mixtures, and not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

from twofile.train.pretrain.recipe import Recipe, read_recipe
from twofile.train.pretrain.stage import pretrain

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".work" / "mixtures"
FAMILIES = {
    "stories": ("tinystories_valid", "storybooks"),
    "books": ("fairytales", "classics"),
    "prose": ("wikipedia", "wikinews", "definitions", "countries"),
    "dialogue": ("dialogues",),
}
ORDER = (
    "tinystories", "storybooks", "fairytales", "classics", "wikipedia", "wikinews", "definitions", "countries",
    "dialogues",
)  # fmt: skip
MIXTURES = {  # the shares of ORDER: how often each document is used in an epoch
    "even": (3, 3, 2, 0.25, 0.25, 0.3, 0.5, 0.5, 1),
    "stories": (6, 6, 3, 0.1, 0.05, 0.1, 0.2, 0.2, 0.5),
    "prose": (1, 1, 1, 0.2, 0.5, 0.6, 0.7, 0.7, 0.5),
    "dialogue": (2, 2, 1, 0.15, 0.15, 0.2, 0.3, 0.3, 2),
}


def recipe(mixture: str, steps: int, seed: int) -> Recipe:
    """The bundled model's recipe for a smaller model, with other shares."""
    whole = read_recipe(ROOT / "recipes" / "bundled.toml")
    shares = dict(zip(ORDER, MIXTURES[mixture], strict=True))
    hyper = dataclasses.replace(whole.hyper, dim=192, n_layers=4, n_heads=3, n_kv_heads=1, ffn_dim=512)
    sources = tuple(dataclasses.replace(one, share=shares.get(one.name, 0)) for one in whole.sources)
    plan = dataclasses.replace(
        whole.plan,
        steps=steps,
        warmup=30,
        decay=0.5,
        vector_rate=0.02,
        validate_every=steps,
        save_minutes=1e9,
        dream_minutes=1e9,
    )
    return dataclasses.replace(whole, hyper=hyper, sources=sources, plan=plan, batch=16, micro=16, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=list(MIXTURES), default=list(MIXTURES))
    given = parser.parse_args()
    print(f"| mixture | seed | {' | '.join(FAMILIES)} | mean |")
    for seed in given.seed:
        for mixture in given.only:
            run = FOLDER / f"{mixture}-{seed}-{given.steps}"
            found = pretrain(recipe(mixture, given.steps, seed), given.data, run, lambda _: None)[2].validation
            bits = [statistics.mean(found[f"bpb_{name}"] for name in names) for names in FAMILIES.values()]
            row = [mixture, str(seed), *(f"{value:.3f}" for value in (*bits, statistics.mean(bits)))]
            print(f"| {' | '.join(row)} |", flush=True)
            (run / "mixture.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
