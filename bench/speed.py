"""The speed of this program, and of llama.cpp on the same files in the same minutes, beside the machine's own limits.

    make bench                                           # bundled, 15M and 110M in Q8_0 and Q4_0: some four minutes
    .venv/bin/python bench/speed.py --all                # also 1.1B, Q4_K_M and BF16: about an hour, 5 GB of files
    .venv/bin/python bench/speed.py --shape 15M --type BF16 --transformers
    .venv/bin/python bench/speed.py FILE...

What is timed is said in twofile/evaluate/speed.py, the files in shapes.py, the peers in peers.py. A ratio is ours to
theirs, round by round. Everything is written to .work/bench/RESULTS.json. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peers import LlamaCpp, Transformers
from shapes import FOLDER, SHAPES, TYPES, shape_file

from twofile.cli.bench import describe, limits
from twofile.evaluate.speed import Ours, Runner, environment, measure
from twofile.params.names import resolve

HOW = """llama.cpp is not measured: there is no llama-cpp-python. To build its best case for this processor:
  export CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_OPENMP=OFF"
  .venv/bin/pip install --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"""


def files(given: argparse.Namespace) -> list[Path]:
    """The files that the command line asks for, written where they are not there."""
    if given.names:
        return [resolve(name) for name in given.names]
    shapes = given.shape or (list(SHAPES) if given.all else ["15M", "110M"])
    types = given.type or (list(TYPES) if given.all or given.shape else ["Q8_0", "Q4_0"])
    bundled = [] if given.shape or given.type else [resolve("stories")]
    return bundled + [shape_file(shape, type) for shape in shapes for type in types]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models to measure, instead of the random ones")
    parser.add_argument("--all", action="store_true", help="every shape in every type")
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--type", action="append", choices=TYPES)
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each figure in a round, at least")
    parser.add_argument("--transformers", action="store_true", help="beside ours also transformers, in bf16")
    parser.add_argument("--json", type=Path, default=FOLDER / "RESULTS.json")
    given = parser.parse_args()

    threads = Ours(resolve("stories"), given.threads).threads
    machine = limits(threads)
    found: dict[str, Any] = {**environment(threads), "reports": []}
    print(f"{found['processor']}, {threads} threads, {given.rounds} rounds; load {os.getloadavg()[0]:.1f}")
    installed = find_spec("llama_cpp") is not None
    if not installed:
        print(HOW)
    for path in files(given):
        with ExitStack() as opened:
            runners: list[Runner] = [Ours(path, threads)]
            if installed:
                llama = opened.enter_context(closing(LlamaCpp(path, threads)))
                runners.append(llama)
                found["llama.cpp"] = llama.system()
            if given.transformers:
                runners.append(Transformers(path, threads))
            report = measure(path, runners, machine, rounds=given.rounds, seconds=given.seconds)
        del runners  # and the memory with them
        print(f"\n{describe(report, machine)}", flush=True)
        found["reports"].append(report.to_json())
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\nwritten to {given.json}")


if __name__ == "__main__":
    main()
