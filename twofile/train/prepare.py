"""From a recipe's texts to what a run reads: a vocabulary, packed tokens, and `corpus.json` about both.

Each is made once: a second call finds what is there. The first process does this; the others wait for it. Cost: a few
passes over the texts, and disk for 2 bytes a token.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twofile.errors import TrainError
from twofile.params.atomic import atomic_path
from twofile.params.vocabulary import Vocabulary
from twofile.train import corpus, tokenizer, tokens
from twofile.train.recipe import Recipe

__all__ = ["load_vocabulary", "prepare"]


def _train_texts(sources: list[corpus.Source], data: Path) -> Iterator[str]:
    """All documents, then those used twice again, and so on: a copy beside its like would teach nothing but to copy."""
    for before in range(max(math.ceil(source.share) for source in sources)):
        for source in sources:
            for document in corpus.documents(source, data):
                if corpus.copies(document, source.share) > before:
                    yield document.text


def _once(source: corpus.Source, data: Path) -> Iterator[str]:
    for document in corpus.documents(source, data):
        if corpus.copies(document, source.share):
            yield document.text


def prepare(recipe: Recipe, data: Path, run: Path, say: Callable[[str], None] = print) -> Vocabulary:
    """Learn the vocabulary and pack the corpus, unless the run folder has both. `corpus.json` is written last."""
    (run / "valid").mkdir(parents=True, exist_ok=True)
    if (run / "corpus.json").exists():
        return load_vocabulary(run)
    used = [source for source in recipe.sources if source.share > 0]
    say(f"learning {recipe.hyper.vocab_size} tokens")
    vocabulary = tokenizer.learn((text for s in used for text in _once(s, data)), recipe.hyper.vocab_size)
    held_out = (document.text for s in recipe.sources for document in corpus.documents(s, data, held_out=True))
    tokenizer.check(vocabulary, held_out)
    _write_json(run / "vocabulary.json", vocabulary.to_metadata())
    say("packing")
    packed = tokens.pack(_train_texts(used, data), vocabulary, run / "train.npy")
    summary: dict[str, Any] = {"train": dataclasses.asdict(packed), "sources": {}}
    for source in recipe.sources:
        held_out = (document.text for document in corpus.documents(source, data, held_out=True))
        valid = tokens.pack(held_out, vocabulary, run / "valid" / f"{source.name}.npy")
        summary["sources"][source.name] = {
            "sha256": corpus.sha256(source, data),
            "licence": source.licence,
            "share": source.share,
            "train_documents": sum(1 for _ in _once(source, data)) if source.share else 0,
            "valid": dataclasses.asdict(valid),
        }
    _write_json(run / "corpus.json", summary)
    say(json.dumps(summary))
    return vocabulary


def _write_json(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def load_vocabulary(run: Path) -> Vocabulary:
    """The vocabulary of a run folder."""
    try:
        return Vocabulary.from_metadata(json.loads((run / "vocabulary.json").read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise TrainError(f"{run}: no vocabulary ({error})", "train into another folder") from error
