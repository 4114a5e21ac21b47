"""From a recipe's texts to what a run reads: a vocabulary, packed tokens, and `corpus.json` about both.

`corpus.json` is written last and says what all was made from. A second call finds it and does nothing; where the recipe
or the texts are other ones by then, all is made anew, or, once there is a checkpoint, refused with what differs. Texts
that are gone by then are not missed. The first process does this; the others wait for it. Cost: two readings of the
texts (one more for each further copy that `share` wants), disk for 2 bytes a token, and memory for the words of at most
`LEARNED` bytes of text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from twofile.errors import TrainError, TwofileError
from twofile.params.atomic import write_json
from twofile.params.vocabulary import Vocabulary
from twofile.train import checkpoint
from twofile.train.corpus import sources as corpus
from twofile.train.pretrain import tokenizer, usage
from twofile.train.pretrain.recipe import Recipe, text_bytes
from twofile.train.pretrain.tokens import Packed, files, packing

__all__ = ["load_vocabulary", "prepare"]

LEARNED = 2e8
"""Bytes of text that a vocabulary is learned from, about; of more text, documents chosen by their hashes. English
articles and books so long took 0.6 GB and a minute."""

_MATTERS = ("path", "name", "share", "held_out", "column", "split", "drop", "clean")  # fields of Source


def prepare(recipe: Recipe, data: Path, run: Path, say: Callable[[str], None] = print) -> Vocabulary:
    """Learn the vocabulary and pack the corpus, unless the run folder has both. TrainError where it has those of other
    texts, and a checkpoint that learned from them."""
    found = _prepared(run)
    if found:
        trained = bool(checkpoint.checkpoints(run))
        changes = _changes(found, recipe, data, trained)
        if not changes:
            return load_vocabulary(run)
        if trained:
            message = f"{run} has learned from something else: {'; '.join(changes)}"
            raise TrainError(message, "train into another folder")
        say(f"preparing the text anew: {'; '.join(changes)}")
    for source in recipe.sources:
        for option in corpus.ignored(source, data):
            say(f"source {source.name}: {option} is ignored, since twofile corpus has cut and split its text already")
    say(f"learning {recipe.hyper.vocab_size} tokens")
    vocabulary = tokenizer.learn(_sample(recipe, data), recipe.hyper.vocab_size)
    _clear(run)
    (run / "valid").mkdir(parents=True)
    write_json(run / "vocabulary.json", vocabulary.to_metadata())
    say("packing")
    summary = _pack(recipe, data, run, vocabulary)
    cards = list(corpus.cards(recipe.sources, data).items())
    if cards:
        write_json(run / "card.json", cards[0][1] if len(cards) == 1 else dict(cards))
    write_json(run / "corpus.json", summary)
    train = summary["train"]
    say(f"{train['documents']:,} documents, {train['tokens']:,} tokens, {train['bytes']:,} bytes to train on")
    for line in usage.words(summary["tokenizer"]):
        say(line)
    return vocabulary


def _prepared(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / "corpus.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrainError(f"{run / 'corpus.json'} cannot be read ({error})", "train into another folder") from error
    return found


def _settings(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe the vocabulary and the tokens depend on."""
    sources = [{key: getattr(source, key) for key in _MATTERS} for source in recipe.sources]
    return {"vocab_size": recipe.hyper.vocab_size, "sources": sources}


def _changes(found: dict[str, Any], recipe: Recipe, data: Path, trained: bool) -> list[str]:
    """In words, how what was prepared differs from what is wanted now."""
    now = _settings(recipe)
    was = found.get("made_from", now)
    if was["vocab_size"] != now["vocab_size"]:
        return [f"its vocabulary has {was['vocab_size']} tokens, not {now['vocab_size']}"]
    before, after = ({source["name"]: source for source in each["sources"]} for each in (was, now))
    changes = [f"source {name} is gone" for name in before.keys() - after.keys()]
    changes += [f"source {name} is new" for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        for key in _MATTERS:
            if before[name][key] != after[name][key]:
                changes.append(f"source {name} had {key} {before[name][key]!r}, not {after[name][key]!r}")
    if not changes and list(before) != list(after):
        changes.append("its sources were in another order")
    if not changes:
        others = [source.name for source in recipe.sources if _other_text(found, source, data, trained)]
        changes = [f"the texts of source {name} were others" for name in others]
    return sorted(changes)


def _other_text(found: dict[str, Any], source: corpus.Source, data: Path, trained: bool) -> bool:
    """Whether the texts of a source have changed; False where they are not here to tell. A hub is asked before a run
    begins only: what it has by now is no matter to a run that goes on."""
    if source.path.startswith("hf:") and trained:
        return False
    with suppress(TwofileError):
        if corpus.stamp(source, data) != found.get("stamps", {}).get(source.name):
            before: str = found["sources"][source.name]["sha256"]
            return corpus.sha256(source, data) != before
    return False


def _clear(run: Path) -> None:
    """Take away what was prepared of other texts, `corpus.json` first; of what is only linked here, the link."""
    for path in (run / "corpus.json", run / "card.json", run / "vocabulary.json", *files(run / "train.npy")):
        path.unlink(missing_ok=True)
    valid = run / "valid"
    if valid.is_symlink():
        valid.unlink()
    elif valid.exists():
        shutil.rmtree(valid)


def _sample(recipe: Recipe, data: Path) -> Iterator[str]:
    """The texts to learn a vocabulary from."""
    used = [source for source in recipe.sources if source.share > 0]
    part = LEARNED / max(1.0, text_bytes(used, data))
    for source in used:
        for document in corpus.documents(source, data):
            if corpus.copies(document, source.share) and corpus.fraction(document.text, "vocabulary") < part:
                yield document.text


def _pack(recipe: Recipe, data: Path, run: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """Write `train.npy` and `valid/`; what `corpus.json` says of them.

    First all documents, then those used twice again, and so on: a copy beside its like would teach nothing but to
    copy."""
    stamps = {source.name: corpus.stamp(source, data) for source in recipe.sources}  # before anything is read
    hashes = {source.name: corpus.sha256(source, data) for source in recipe.sources}
    train, valid, fits = dict[str, Packed](), dict[str, Packed](), dict[str, Packed]()
    with packing(vocabulary, run / "train.npy") as packer:
        for source in recipe.sources:
            with packing(vocabulary, run / "valid" / f"{source.name}.npy", checked=True) as aside:
                for document, held_out in corpus.both(source, data):
                    if held_out:
                        aside.add(document.text)
                    elif corpus.copies(document, source.share):
                        packer.add(document.text)
                train[source.name] = packer.take()
                fits[source.name] = train[source.name] + aside.take()
            valid[source.name] = aside.total
        for before in range(1, math.ceil(max(source.share for source in recipe.sources))):
            for source in recipe.sources:
                for document in corpus.documents(source, data) if source.share > before else ():
                    if corpus.copies(document, source.share) > before:
                        packer.add(document.text)
                train[source.name] += packer.take()
    return {
        "train": dataclasses.asdict(packer.total),
        "sources": {
            source.name: {
                "sha256": hashes[source.name],
                "licence": source.licence,
                "share": source.share,
                "train": dataclasses.asdict(train[source.name]),
                "valid": dataclasses.asdict(valid[source.name]),
            }
            for source in recipe.sources
        },
        "tokenizer": usage.usage(vocabulary, packer.uses_V, fits),
        "made_from": _settings(recipe),
        "stamps": stamps,
    }


def load_vocabulary(run: Path) -> Vocabulary:
    """The vocabulary of a run folder."""
    try:
        return Vocabulary.from_metadata(json.loads((run / "vocabulary.json").read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise TrainError(f"{run}: no vocabulary ({error})", "train into another folder") from error
