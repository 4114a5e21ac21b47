"""After training the bundled model: write it, where it is not there yet, measure it, let it tell stories.

    python -m twofile.train.pretrain recipes/bundled.toml --data DATA --into RUN
    python recipes/bundled.py --data DATA --run RUN [--out twofile/models/base.gguf]

Prints a Markdown table of bits per byte for each source's held-out documents, without those that share a line of 40 or
more characters with the training text, and what it writes after a few beginnings. At most 250 documents a source, of
each at most the first 8,000 characters.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from pathlib import Path

from twofile.engine.engine import Engine
from twofile.engine.generate import generate
from twofile.engine.sampler import Sampling
from twofile.evaluate.bits import bits_per_byte
from twofile.params.parameters import Parameters
from twofile.train.corpus import sources as corpus
from twofile.train.pretrain.export import export
from twofile.train.pretrain.recipe import Recipe, read_recipe

LONGEST = 8000
MOST = 250
COMMAND = "python -m twofile.train.pretrain recipes/bundled.toml"
BEGINNINGS = ("Once upon a time", "Norway is a country", "User: I would like to book a table.\nAssistant:")
ROOT = Path(__file__).resolve().parent.parent


def lines(text: str) -> set[str]:
    """The lines of a text that are long enough to be no chance repetition."""
    return {line for line in text.split("\n") if len(line) >= 40}


def held_out(recipe: Recipe, data: Path) -> dict[str, tuple[list[str], int]]:
    """For each source its held-out documents that share nothing with the training text, and how many were left out."""
    seen: set[str] = set()
    for source in recipe.sources:
        if source.share > 0:
            for document in corpus.documents(source, data):
                if corpus.copies(document, source.share):
                    seen |= lines(document.text)
    result = {}
    for source in recipe.sources:
        texts = [document.text for document in corpus.documents(source, data, held_out=True)]
        clean = [text[:LONGEST] for text in texts if not lines(text) & seen]
        result[source.name] = clean[:MOST], len(texts) - len(clean)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "bundled.toml")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "twofile" / "models" / "base.gguf")
    parser.add_argument("--command", default=COMMAND, help="how it was trained, for its provenance")
    given = parser.parse_args()
    recipe = read_recipe(given.recipe)
    head = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if not given.out.exists():
        print(export(recipe, given.run, given.out, type="Q8_0", command=given.command, commit=commit))
    with Parameters.open(given.out) as parameters:
        print(f"sha256 {parameters.sha256()}, {parameters.hyper.n_parameters} parameters")

    engine = Engine(given.out)
    print(engine)
    print("| held-out text of | bits per byte | 95% interval | documents | bytes | left out for overlap |")
    print("|---|---|---|---|---|---|")
    for name, (texts, overlapping) in held_out(recipe, given.data).items():
        if not texts:
            print(f"| {name} | | | 0 | 0 | {overlapping} |")
            continue
        found = bits_per_byte(engine, texts)
        figures = f"{found.bits_per_byte:.3f} | {found.low:.3f} to {found.high:.3f}"
        print(f"| {name} | {figures} | {found.documents} | {found.bytes} | {overlapping} |")
        sys.stdout.flush()

    for seed, beginning in itertools.product(range(1, 4), BEGINNINGS):
        pieces = generate(engine.session(), engine.prompt(beginning), Sampling(seed=seed), max_tokens=300)
        print(f"\n--- seed {seed}\n{beginning}" + "".join(piece.text for piece in pieces))


if __name__ == "__main__":
    main()
