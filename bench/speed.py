"""Decode and prefill speed of a parameters file, and of llama.cpp on the same file in the same run.

    make bench                                # the bundled model
    .venv/bin/python bench/speed.py FILE      # another one

Rounds of the two are interleaved, so that both meet the same minutes of the machine; the figures are medians over the
rounds, with the lowest and highest beside them, and the ratio is the figure to quote. llama.cpp is measured where
llama-cpp-python is installed; for its best case build it here, for this processor and without OpenMP:

    CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_OPENMP=OFF" pip install --no-binary llama-cpp-python 'twofile[bench]'
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from twofile import Engine, resolve

Round = Callable[[], tuple[float, float]]  # seconds of the prefill, seconds of the decoding


def ours(path: Path, threads: int, prompt: list[int], steps: int) -> tuple[str, Round]:
    engine = Engine(path, threads=threads)

    def once() -> tuple[float, float]:
        with engine.session() as session:
            start = time.perf_counter()
            token = int(session.append(prompt)[0].argmax())
            middle = time.perf_counter()
            for _ in range(steps):
                token = int(session.append([token])[0].argmax())
            return middle - start, time.perf_counter() - middle

    return f"twofile ({engine.info.kernels}, {engine.info.threads} threads)", once


def theirs(path: Path, threads: int, prompt: list[int], steps: int) -> tuple[str, Round]:
    """llama.cpp by its C functions, so that none of the wrapper's Python is counted against it."""
    import llama_cpp

    llama = llama_cpp.Llama(
        str(path),
        n_ctx=len(prompt) + steps,
        n_batch=len(prompt),
        n_ubatch=len(prompt),
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    vocab = llama.n_vocab()

    def next_of(tokens: list[int]) -> int:
        context = llama._ctx.ctx  # from `llama`, which frees it when the last reference goes
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError("llama_decode failed")
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(vocab,))
        return int(logits.argmax())

    def once() -> tuple[float, float]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(llama._ctx.ctx), True)
        start = time.perf_counter()
        token = next_of(prompt)
        middle = time.perf_counter()
        for _ in range(steps):
            token = next_of([token])
        return middle - start, time.perf_counter() - middle

    return f"llama.cpp (llama-cpp-python {llama_cpp.__version__}, {threads} threads)", once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="stories")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=256, help="tokens read at once")
    parser.add_argument("--steps", type=int, default=128, help="tokens decoded one by one")
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    given = parser.parse_args()

    path = resolve(given.name)
    with Engine(path, threads=given.threads) as engine:
        threads = engine.info.threads
        n_prompt = min(given.prompt, engine.context_length // 2)
        n_steps = min(given.steps, engine.context_length - n_prompt)
        prompt = np.random.default_rng(0).integers(0, engine.vocab_size, n_prompt).tolist()
        print(f"{path.name}: {engine.info.parameters / 1e6:.2f}M parameters, {engine.info.bytes / 1e6:.2f} MB")
    runners = [ours(path, threads, prompt, n_steps)]
    try:
        runners.append(theirs(path, threads, prompt, n_steps))
    except ImportError:
        print("llama.cpp is not measured: pip install 'twofile[bench]'")
    times: list[list[tuple[float, float]]] = [[] for _ in runners]
    for number in range(given.rounds + 1):
        for (_, once), list_of in zip(runners, times, strict=True):
            seconds = once()
            if number:  # the first round warms up
                list_of.append(seconds)

    medians: list[tuple[float, float]] = []
    for (label, _), rounds in zip(runners, times, strict=True):
        print(label)
        figures = []
        for what, count, column in ((f"prefill {n_prompt}", n_prompt, 0), (f"decode {n_steps}", n_steps, 1)):
            rates = sorted(count / seconds[column] for seconds in rounds)
            figures.append(statistics.median(rates))
            spread = f"{rates[0]:,.0f} to {rates[-1]:,.0f}, {len(rates)} rounds"
            print(f"  {what:12} {figures[-1]:10,.0f} tokens/s   ({spread})")
        medians.append((figures[0], figures[1]))
    if len(medians) == 2:
        (prefill, decode), (their_prefill, their_decode) = medians
        print(f"ratio to llama.cpp: prefill {prefill / their_prefill:.2f}, decode {decode / their_decode:.2f}")


if __name__ == "__main__":
    main()
