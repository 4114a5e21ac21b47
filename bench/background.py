"""A chat beside processes in the background: how long its first token takes, alone and with four of them.

    .venv/bin/python bench/background.py [MODEL] [--messages 40] [--processes 4]

The chat says as many messages in both halves, alike but for their numbers, each reply of 24 tokens; the processes in
the background say theirs one after another, replies of 48, without a pause. Printed are the median and the 95th
percentile of the time from a message to the first token of its reply, and how many tokens each background process wrote
meanwhile. Nothing else should run.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from twofile.engine.engine import Engine
from twofile.engine.sampler import Sampling
from twofile.kernel.kernel import Kernel
from twofile.kernel.process import Budget, Process
from twofile.params.names import resolve

WORDS = "Number {}: once upon a time there was a little girl who liked to play in the garden. She said: tell me more."


def chat(process: Process, messages: int) -> list[float]:
    """Seconds to the first token of each reply; no two processes say the same."""
    found = []
    for i in range(messages):
        start, first = time.perf_counter(), 0.0
        for _ in process.say(WORDS.format(f"{process.pid}-{i}"), sampling=Sampling(seed=i)):
            first = first or time.perf_counter() - start
        found.append(first)
    return found


def told(name: str, seconds: list[float]) -> float:
    middle, high = np.quantile(seconds, (0.5, 0.95))
    print(f"{name}: {1000 * middle:.1f} ms, 95th percentile {1000 * high:.1f} ms (n = {len(seconds)})", flush=True)
    return float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="base")
    parser.add_argument("--messages", type=int, default=40)
    parser.add_argument("--processes", type=int, default=4)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Kernel(Path(folder) / "kernel.db", (), lambda name, _: Engine(resolve(name))) as kernel,
    ):
        chat(kernel.spawn(given.model, budget=Budget(reserve=24)), 3)  # what is opened and paged in once
        alone = told("alone", chat(kernel.spawn(given.model, budget=Budget(reserve=24)), given.messages))
        over = threading.Event()
        behind = [kernel.spawn(given.model, budget=Budget(reserve=48), background=True) for _ in range(given.processes)]

        def work(process: Process) -> None:
            i = 0
            while not over.is_set():
                for _ in process.say(WORDS.format(f"{process.pid}-{i}"), sampling=Sampling(seed=i)):
                    if over.is_set():
                        break
                i += 1

        threads = [threading.Thread(target=work, args=(process,)) for process in behind]
        for thread in threads:
            thread.start()
        time.sleep(2)
        beside = told(
            f"beside {given.processes}", chat(kernel.spawn(given.model, budget=Budget(reserve=24)), given.messages)
        )
        over.set()
        for thread in threads:
            thread.join()
        written = [
            sum(
                event.body["usage"].get("written", 0)
                for event in kernel.log.events(process.pid)
                if event.kind == "assistant"
            )
            for process in behind
        ]
        print(f"95th percentile, beside to alone: {beside / alone:.2f}; tokens of the background: {written}")


if __name__ == "__main__":
    main()
