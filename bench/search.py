"""The index of a folder, by both ways of keeping words: time, bytes, questions a second, and what of the best is found.

    python bench/search.py [--documents 20000] [--queries 200] [--texts FILE.jsonl.xz] [--folder /tmp]

Writes as many text files of about 300 words, indexes them with FTS5 and with tantivy, looks for what is new when there
is nothing, and asks questions of one to four words, each question made of words that stand in one passage. What is
found is compared with a scan of all passages that computes BM25 in the plainest way, over the stems that tantivy makes;
recall is the part of the scan's best ten that is among ten found. FTS5 has other stems (Porter's first algorithm),
tantivy rounds lengths to a byte, both count the name of the file: some difference at the tenth place is none in worth.
Texts are those of FILE, JSON lines with a "text"; where there is none, words are made, with frequencies as of Zipf.
"""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
import math
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from twofile.tools.search.index import Index, Kept
from twofile.tools.search.text import joined
from twofile.tools.search.words import parse

TEXTS = Path(__file__).parents[2] / "shared" / "data" / "pretrain" / "wikipedia_en_2015_first8k.jsonl.xz"
WORDS = 300  # of a file
BEST = 10
K1, B = 1.2, 0.75
WAYS: tuple[Kept, ...] = ("fts5", "tantivy")


def written(path: Path) -> Iterator[str]:
    """Pieces of real texts, from one after another so that few files are alike."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            words = str(json.loads(line)["text"]).split(" ")
            yield from (" ".join(words[at : at + WORDS]) for at in range(0, len(words), WORDS))


def made(draw: random.Random) -> Iterator[str]:
    """Texts of words that are none, the n-th as frequent as 1/n."""
    sounds = [a + b for a in "bcdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = list(dict.fromkeys("".join(draw.choices(sounds, k=1 + n % 4)) for n in range(60_000)))
    weights = list(itertools.accumulate(1 / (n + 1) for n in range(len(words))))
    while True:
        yield " ".join(draw.choices(words, cum_weights=weights, k=WORDS))


def write(folder: Path, texts: Iterator[str], documents: int) -> int:
    """Write the files, 100 to a folder; how many bytes."""
    size = n = 0
    for n, text in enumerate(itertools.islice(texts, documents), 1):
        above = folder / f"{n // 100:04}"
        above.mkdir(exist_ok=True)
        size += (above / f"{n:06}.txt").write_bytes(text.encode())
    if n < documents:
        raise SystemExit(f"there are texts for {n:,} documents only")
    return size


class Scan:
    """All passages of an index, and the best of them by looking at each."""

    def __init__(self, index: Index) -> None:
        rows = index.database.rows("SELECT path, place, text FROM passage JOIN file ON file.id = file")
        self.stems = stemmer()
        self.places = [(path, f"{index.name}/{os.fsdecode(path)}, {joined(place)}") for path, place, _ in rows]
        self.counts = [Counter(self.stems(text)) for _, _, text in rows]
        self.lengths = [counts.total() for counts in self.counts]
        self.files = Counter(stem for counts in self.counts for stem in counts)
        self.usual = sum(self.lengths) / len(self.lengths)
        self.texts = [joined(text) for _, _, text in rows]

    def best(self, query: str) -> list[str]:
        """The places of the best ten, no more than two of a file."""
        stems = {stem for word in parse(query).words for stem in self.stems(word)}
        rarity = {s: math.log(1 + (len(self.counts) - self.files[s] + 0.5) / (self.files[s] + 0.5)) for s in stems}
        scores = []
        for n, (counts, length) in enumerate(zip(self.counts, self.lengths, strict=True)):
            share = K1 * (1 - B + B * length / self.usual)
            score = sum(rarity[s] * counts[s] * (K1 + 1) / (counts[s] + share) for s in stems if s in counts)
            if score:
                scores.append((-score, n))
        found: list[str] = []
        seen: Counter[bytes] = Counter()
        for _, n in sorted(scores):
            path, place = self.places[n]
            seen[path] += 1
            if seen[path] <= 2:
                found.append(place)
            if len(found) == BEST:
                break
        return found


def stemmer() -> Callable[[str], list[str]]:
    """Words to their stems, as tantivy's."""
    import tantivy

    analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for one in (tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold(), tantivy.Filter.stemmer("english")):
        analyzer = analyzer.filter(one)
    return analyzer.build().analyze


def questions(texts: list[str], count: int, draw: random.Random) -> list[str]:
    """Words that stand in one passage, as somebody asks who has read it: not of the shortest."""
    found: list[str] = []
    while len(found) < count:
        words = [word for word in dict.fromkeys(draw.choice(texts).split()) if word.isalpha() and len(word) > 3]
        if len(words) >= 4:
            found.append(" ".join(draw.sample(words, draw.randint(1, 4))))
    return found


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--texts", type=Path, default=TEXTS)
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder by default")
    given = parser.parse_args()
    if given.documents < 1 or given.queries < 1:
        parser.error("a number is 1 or more")
    draw = random.Random(0)
    real = given.texts.exists()
    with tempfile.TemporaryDirectory(dir=given.folder) as work:
        folder = Path(work) / "texts"
        folder.mkdir()
        size = write(folder, written(given.texts) if real else made(draw), given.documents)
        print(f"{given.documents:,} documents, {size / 1e6:.1f} MB, {'of ' + given.texts.name if real else 'made'}")
        truth: dict[str, list[str]] = {}
        for way in WAYS:
            place = Path(work) / way
            with closing(Index(folder, place / "index.sqlite3", way)) as index:
                start = time.perf_counter()
                report = index.update()
                first = time.perf_counter() - start
                start = time.perf_counter()
                index.update()
                again = time.perf_counter() - start
                if report.files != given.documents:
                    raise SystemExit(f"of {given.documents:,} documents {report.files:,} were read: {report.unread}")
                if not truth:
                    scan = Scan(index)
                    truth = {one: scan.best(one) for one in questions(scan.texts, given.queries, draw)}
                index.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
                kept = size_of(place)
                start = time.perf_counter()
                found = {query: [one.place for one in index.search(query, BEST)] for query in truth}
                took = time.perf_counter() - start
            had = sum(len(set(best) & set(found[query])) for query, best in truth.items())
            firsts = sum(best[0] == found[query][0] for query, best in truth.items() if found[query])
            print(
                f"{way:>8}: {report.passages:,} passages in {first:.1f} s ({report.files / first:,.0f} files/s), "
                f"nothing new in {again:.2f} s, {kept / 1e6:.1f} MB ({kept / size:.2f} of the text), "
                f"{len(truth) / took:,.0f} questions/s, recall {had / sum(map(len, truth.values())):.3f}, "
                f"the first is the scan's in {firsts / len(truth):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
