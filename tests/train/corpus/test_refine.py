"""Refining, end to end: what is dropped and why, doubles, the split, the card, executors, going on after a failure."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from twofile.errors import TrainError
from twofile.train.corpus import overlap
from twofile.train.corpus import sources as corpus
from twofile.train.corpus.filters import FILTERS, build, chosen
from twofile.train.corpus.refine import Machines, Settings, clear, refine
from twofile.train.corpus.sources import CARD, named
from twofile.train.corpus.words import Words

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "and",
    "dog",
    "ran",
    "to",
    "river",
    "with",
    "house",
    "green",
    "child",
    "that",
    "have",
    "walked",
    "of",
    "be",
]


def prose(seed: int, sentences: int = 12) -> str:
    random_ = random.Random(seed)
    made = (" ".join(random_.choices(WORDS, k=random_.randint(6, 12))).capitalize() for _ in range(sentences))
    return ". ".join(made) + "."


TEXTS = [prose(seed) for seed in range(60)]
DOUBLES = [text + " The end." for text in TEXTS[:8]]
REPEATED = ["\n".join(["the same line again"] * 30)] * 2
EVALUATION = [*TEXTS[20:23], prose(1000), "too short"]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(tmp_path: Path) -> Path:
    """Two files of documents, with doubles and repetitions, and an evaluation set beside their folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    texts = [*TEXTS, *REPEATED, *DOUBLES]
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[:40]))
    (folder / "b.txt").write_text("\n\n\n".join(texts[40:]))
    (tmp_path / "evaluation.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in EVALUATION))
    return folder


def settings(inputs: Path, **options: Any) -> Settings:
    names = [str(inputs / "a.jsonl"), str(inputs / "b.txt")]
    sources = named(names, split=r"\n\n\n", clean=False, licence="CC0-1.0", attribution="nobody")
    checks = named([str(inputs.parent / "evaluation.jsonl")], clean=False)
    return Settings(tuple(sources), checks=tuple(checks), held_out=0.2, **options)


def made(given: Settings, into: Path, machines: Machines | None = None) -> dict[str, Any]:
    assert refine(given, machines or Machines(tasks=2, workers=1), into, lambda _: None)
    card: dict[str, Any] = json.loads((into / CARD).read_text())
    return card


def sides(folder: Path) -> tuple[list[str], list[str]]:
    """The texts for training and the held-out ones, as training reads them."""
    sources = named([str(folder)])
    train, held_out = (
        [document.text for source in sources for document in corpus.documents(source, Path(), held_out=side)]
        for side in (False, True)
    )
    return train, held_out


def test_end_to_end(inputs: Path, tmp_path: Path) -> None:
    card = made(settings(inputs, keep_dropped=True), tmp_path / "out")
    train, held_out = sides(tmp_path / "out")
    kept = set(train) | set(held_out)
    assert len(train) + len(held_out) == len(kept) == 60  # one of each pair, and no repetition
    assert all((text in kept) != (double in kept) for text, double in zip(TEXTS, DOUBLES, strict=False))
    assert set(TEXTS[8:]) <= kept
    assert sorted(held_out) == sorted(text for text in kept if corpus.fraction(text) < 0.2)
    assert 3 < len(held_out) < 25

    repetition, dedup = card["dropped"]
    assert (repetition["filter"], repetition["documents"], repetition["reasons"]) == (
        "gopher-repetition", 2, {"dup_line_frac": 2},
    )  # fmt: skip
    assert (dedup["filter"], dedup["documents"]) == ("dedup", 8)
    total = lambda what, unit: sum(source[what][unit] for source in card["sources"])  # noqa: E731
    assert total("read", "documents") == 70
    assert total("read", "bytes") == sum(len(text.encode()) for text in [*TEXTS, *REPEATED, *DOUBLES])
    assert total("train", "bytes") == sum(len(text.encode()) for text in train)
    assert total("held_out", "documents") == len(held_out)
    dropped = sum(entry["bytes"] for entry in card["dropped"])
    assert total("read", "bytes") - dropped == total("train", "bytes") + total("held_out", "bytes")
    assert [source["licence"] for source in card["sources"]] == ["CC0-1.0"] * 2
    assert (
        card["sources"][0]["files"][0]["checksum"]
        == corpus.files(named([str(inputs / "a.jsonl")])[0], Path())[0].checksum()
    )
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out" / "texts").rglob("*.zst")}
    assert {entry["name"] for entry in card["texts"]} == written
    assert {path.name for path in (tmp_path / "out" / "dropped").iterdir()} == {"gopher-repetition", "dedup"}
    assert "gopher-repetition" in (tmp_path / "out" / "README.md").read_text()


def test_contamination_of_every_evaluation_set(inputs: Path, tmp_path: Path) -> None:
    card = made(settings(inputs), tmp_path / "out")
    found = {entry["set"]: entry for entry in card["contamination"]["sets"]}
    train, held_out = sides(tmp_path / "out")
    in_training = sum(text in train for text in TEXTS[20:23])
    assert in_training
    evaluation = found["evaluation"]
    assert (evaluation["documents"], evaluation["short"]) == (5, 1)
    assert evaluation["touched"] == evaluation["copied"] == len(evaluation["dirty"]) == in_training
    assert found["a, held out"]["documents"] + found["b, held out"]["documents"] == len(held_out)
    assert found["a, held out"]["touched"] == 0


def test_evaluation_sets_of_one_name_are_all_looked_for(inputs: Path, tmp_path: Path) -> None:
    for folder, texts in (("one", EVALUATION[:1]), ("two", EVALUATION[:2]), ("two/inner", EVALUATION[2:])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    checks = named([str(tmp_path / "one" / "test.jsonl"), str(tmp_path / "two")], clean=False)
    card = made(replace(settings(inputs), checks=tuple(checks)), tmp_path / "out")
    found = {entry["set"]: entry["documents"] for entry in card["contamination"]["sets"]}
    assert found["test"] == 1
    assert found["two: test.jsonl"] == 2
    assert found["two: inner/test.jsonl"] == 3


def test_options_that_a_refined_corpus_ignores(inputs: Path, tmp_path: Path) -> None:
    made(settings(inputs), tmp_path / "out")
    source = named([str(tmp_path / "out")])[0]
    assert source.held_out == 0.2
    assert corpus.ignored(source, Path()) == []
    assert corpus.ignored(corpus.Source(source.path, "a"), Path()) == []
    wrong = replace(source, held_out=0.001, column="body", split="x", drop={"text": "."})
    assert corpus.ignored(wrong, Path()) == ["held_out", "column", "split", "drop"]
    for side in (False, True):
        as_it_lies, asked = (list(corpus.documents(each, Path(), held_out=side)) for each in (source, wrong))
        assert as_it_lies == asked != []
    assert corpus.ignored(replace(wrong, path=str(inputs / "a.jsonl")), Path()) == []


def test_the_card_comes_with_the_sources(inputs: Path, tmp_path: Path) -> None:
    card = made(settings(inputs), tmp_path / "out")
    sources = [*named([str(tmp_path / "out")]), *named([str(inputs / "a.jsonl")])]
    assert corpus.cards(sources, Path()) == {str(tmp_path / "out"): card}


def test_the_same_texts_from_any_number_of_workers(inputs: Path, tmp_path: Path) -> None:
    made(settings(inputs), tmp_path / "one", Machines(tasks=2, workers=1))
    made(settings(inputs), tmp_path / "two", Machines(tasks=2, workers=2))
    assert sides(tmp_path / "one") == sides(tmp_path / "two")


def test_without_doubles_and_filters_nothing_is_lost(inputs: Path, tmp_path: Path) -> None:
    card = made(settings(inputs, filters=(), dedup=False), tmp_path / "out", Machines(tasks=1, workers=1))
    train, held_out = sides(tmp_path / "out")
    assert sorted(train + held_out) == sorted([*TEXTS, *REPEATED, *DOUBLES])
    assert card["dropped"] == []


def test_a_damaged_file_stops_it_and_the_same_call_goes_on(inputs: Path, tmp_path: Path) -> None:
    whole = (inputs / "b.txt").read_bytes()
    damaged = b"\xff" + whole[1:]
    (inputs / "b.txt").write_bytes(damaged)
    with pytest.raises(TrainError, match=r"b\.txt: cannot be read"):
        refine(settings(inputs), Machines(tasks=2, workers=1), tmp_path / "out", lambda _: None)
    with pytest.raises(TrainError, match="not finished"):
        named([str(tmp_path / "out")])
    log = tmp_path / "out/work/logs/reading-and-filtering"
    assert [path.name for path in (log / "completions").iterdir()] == ["00000"]
    done = (log / "completions/00000").stat().st_mtime_ns
    (inputs / "b.txt").write_bytes(whole)
    made(settings(inputs), tmp_path / "out")
    assert (log / "completions/00000").stat().st_mtime_ns == done
    made(settings(inputs), tmp_path / "at once")
    assert sides(tmp_path / "out") == sides(tmp_path / "at once")


def test_a_folder_is_not_mixed_or_overwritten(inputs: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    made(settings(inputs), into)
    with pytest.raises(TrainError, match="holds a corpus already"):
        made(settings(inputs), into)
    (into / CARD).unlink()
    with pytest.raises(TrainError, match="other sources or settings"):
        made(settings(inputs, filters=()), into)
    clear(into)
    made(settings(inputs, filters=()), into)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("x")
    with pytest.raises(TrainError, match="holds other things"):
        made(settings(inputs), tmp_path / "other")
    with pytest.raises(TrainError, match="no folder that twofile corpus made"):
        clear(tmp_path / "other")


def test_a_folder_into_itself(inputs: Path) -> None:
    given = Settings(tuple(named([str(inputs)], split=r"\n\n\n", clean=False)))
    for _ in range(2):
        made(given, inputs / "corpus")
        assert sum(map(len, sides(inputs / "corpus"))) == 60
        (inputs / "corpus" / CARD).unlink()  # as if it had been stopped at the very end
        for log in (inputs / "corpus/work/logs/card/completions").iterdir():
            log.unlink()


def test_a_source_of_no_share_is_held_out_whole(inputs: Path, tmp_path: Path) -> None:
    whole = settings(inputs)
    sources = (whole.sources[0], replace(whole.sources[1], share=0.0))
    made(replace(whole, sources=sources), tmp_path / "out")
    only_held_out = named([str(tmp_path / "out")])[1]
    assert only_held_out.share == 0
    assert list(corpus.documents(only_held_out, Path())) == []
    assert len(list(corpus.documents(only_held_out, Path(), held_out=True))) > 15


def test_more_tasks_than_files(inputs: Path, tmp_path: Path) -> None:
    made(settings(inputs), tmp_path / "out", Machines(tasks=5, workers=1))
    assert sum(map(len, sides(tmp_path / "out"))) == 60


@pytest.mark.parametrize("dedup", [False, True])
def test_nothing_left_is_said_with_its_reason(inputs: Path, tmp_path: Path, dedup: bool) -> None:
    english_only = settings(inputs, filters=("fineweb",), dedup=dedup)
    (inputs / "a.jsonl").write_text(json.dumps({"text": "\n".join(str(i) for i in range(50))}))
    (inputs / "b.txt").write_text("short")
    with pytest.raises(TrainError, match=r"nothing is left .* fineweb dropped 2"):
        refine(english_only, Machines(tasks=1, workers=1), tmp_path / "out", lambda _: None)


def test_every_filter_drops_and_keeps() -> None:
    from datatrove.data import Document

    good = "\n".join(prose(seed, 8) for seed in range(4))
    bad = {
        "gopher-repetition": "the same line again\n" * 30,
        "gopher-quality": "short",
        "c4": prose(1) + "\nlorem ipsum dolor sit.",
        "c4-loose": prose(1) + "\nlorem ipsum dolor sit.",
        "fineweb": "\n".join(f"item {i}" for i in range(100)),
    }
    assert set(bad) == set(FILTERS)
    for name in FILTERS:
        keeps, drops = (list(build(name, "en").run([Document(text, "0")])) for text in (good, bad[name]))
        assert [document.text for document in keeps] == [good], name
        assert drops == [], name


def test_gopher_quality_judges_no_language_by_anothers_rules() -> None:
    from datatrove.data import Document

    chinese = "".join(f"今天天气很好，第{i}次我们去公园散步。" for i in range(20))
    assert list(build("gopher-quality").run([Document(chinese, "0")]))
    assert not list(build("gopher-quality", "en").run([Document(chinese, "0")]))


def test_filters_by_name() -> None:
    assert chosen(["web"]) == ("gopher-repetition", "gopher-quality", "c4-loose", "fineweb")
    assert chosen(["fineweb", "fineweb", "c4"]) == ("fineweb", "c4")
    assert chosen(["none"]) == ()
    with pytest.raises(TrainError, match="no filter gofer"):
        chosen(["gofer"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a dog's life, isn’t it?", ["It's", "a", "dog's", "life", ",", "isn’t", "it", "?"]),
        ("猫は寝る。", ["猫", "は", "寝", "る", "。"]),
        ("Привет, мир 2024!", ["Привет", ",", "мир", "2024", "!"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("abc漢字def", ["abc", "漢", "字", "def"]),
        ("\"Oh...\" -- `why''?", ['"', "Oh", "...", '"', "--", "`", "why", "''", "?"]),
        (" \n", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert Words().word_tokenize(text) == words


def test_sentences() -> None:
    found = Words().sent_tokenize('He left. "Why?" she said.\nNo end\n猫は寝る。犬も。3.5 stays')
    assert found == ["He left.", '"Why?"', "she said.", "No end", "猫は寝る。", "犬も。", "3.5 stays"]
    assert Words() == Words()


def test_overlap_finds_every_common_run_and_no_other() -> None:
    words = [f"w{i}" for i in range(100)]
    evaluation = {"set": [" ".join(words[:40]), " ".join(words[60:]), "x " * 12, "y " * 13]}
    known = overlap.index(evaluation.values())
    assert len(known) == 28 + 28 + 1
    import numpy as np

    seen = np.zeros(len(known), np.bool_)
    overlap.mark("W5, w6 w7; w8 w9 w10 w11 w12 w13 w14 w15 w16 (w17) w18 other", known, seen)
    overlap.mark(" ".join(words[20:32]), known, seen)  # 12 words: no run
    assert int(seen.sum()) == 2
    found = overlap.report(evaluation, known, seen)["set"]
    assert (found.documents, found.short, found.touched, found.copied) == (4, 1, 1, 0)
    assert (found.runs, found.found) == (57, 2)
