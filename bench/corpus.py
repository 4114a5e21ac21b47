"""Memory of the corpus reader, and of refining, on generated text larger than it.

    python bench/corpus.py [--gigabytes 5] [--kinds txt jsonl.zst csv parquet] [--refine] [--folder /tmp]

Writes a file of each kind, reads it once in a process of its own, and prints documents, bytes, seconds and the largest
resident memory of that process. A .txt file is read as one text without any separator, which is the hardest case. With
--refine the file goes through all of `twofile corpus` (three filters, near-duplicates, checks); the memory is that of
the largest process. Exits with 1 where more than 1 GB was used.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIMIT = 10**9
FILTERS = "gopher-repetition,c4-loose,fineweb"  # of web all but the one that drops long documents

READ = """
import sys
from pathlib import Path
from twofile.train.corpus.sources import Source, documents
path = Path(sys.argv[1])
count = size = 0
for side in (False, True):
    for document in documents(Source(path.name, "bench", held_out=0.5, clean=False), path.parent, held_out=side):
        count += 1
        size += len(document.text.encode())
print(count, size)
"""


def paragraphs(size: int) -> Iterator[str]:
    """About `size` bytes of text in paragraphs of made-up words, some not of ASCII, no two alike."""
    random_ = random.Random(1)
    letters = "aaaeeeiioouubcdfghklmnprstvwzéø"
    vocabulary = ["".join(random_.choices(letters, k=random_.randint(2, 9))) for _ in range(50_000)]
    written = 0
    while written < size:
        sentences = (" ".join(random_.choices(vocabulary, k=random_.randint(5, 20))) + "." for _ in range(8))
        text = " ".join(sentences)
        written += len(text.encode()) + 2
        yield text


def write(path: Path, size: int) -> None:
    """One file of the kind that its name says."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        texts = paragraphs(size)
        with ParquetWriter(path, pa.schema({"text": pa.string()})) as table:
            while group := list(itertools.islice(texts, 10_000)):
                table.write_table(pa.table({"text": group}))
        return
    if path.suffix == ".zst":
        from twofile.train.corpus.reading import _zstd

        stream: Any = _zstd().open(path, "wt", encoding="utf-8")
    else:
        stream = path.open("w", encoding="utf-8")
    with stream:
        if path.suffix == ".csv":
            csv.writer(stream).writerows(itertools.chain([("text",)], ((text,) for text in paragraphs(size))))
            return
        for text in paragraphs(size):
            stream.write(json.dumps({"text": text}) + "\n" if ".jsonl" in path.name else text + "\n\n")


def measured(command: list[str]) -> tuple[str, float, int]:
    """What a command printed, its seconds, and the largest memory of any process below this one so far, in bytes."""
    start = time.perf_counter()
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return out, time.perf_counter() - start, peak * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--kinds", nargs="+", default=["txt", "jsonl.zst", "csv", "parquet"])
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    worst = 0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for kind in given.kinds:
            path = Path(folder) / f"text.{kind}"
            write(path, int(given.gigabytes * 10**9))
            if given.refine:
                command = ["-m", "twofile", "corpus", str(path), "--into", f"{folder}/{kind}", "--filters", FILTERS]
            else:
                command = ["-c", READ, str(path)]
            out, seconds, peak = measured([sys.executable, *command])
            size = path.stat().st_size
            print(f"{kind}: {size:,} bytes on disk, {seconds:.0f} s, at most {peak / 2**20:.0f} MiB resident\n{out}")
            sys.stdout.flush()
            path.unlink()
            worst = max(worst, peak)
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
