"""Opens damaged parameters files: each must be read, or refused with ParametersError, in little time and memory.

    python -m tests.params.fuzz 100000 7 FOLDER      cases, seed, where the files go

Bytes and integers of valid tiny files are changed, cut out, doubled; the files end early. Exits with 1 and keeps the
file when anything else happens than reading or refusing.
"""

from __future__ import annotations

import random
import resource
import sys
import time
import warnings
from pathlib import Path

from tests.tiny import tiny_parameters, tiny_spm_parameters
from twofile.errors import ParametersError
from twofile.params.parameters import Parameters

MEMORY = 3 << 30  # of addresses, most of which the libraries take at their start
SECONDS = 2.0
NUMBERS = [0, 1, 2, 7, 8, 9, 12, 13, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 60, 1 << 61, 1 << 62]
NUMBERS += [(1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1]


def sources(folder: Path) -> list[bytes]:
    small = {"dim": 32, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "n_layers": 1, "ffn_dim": 32}
    tiny_parameters("llama", "Q8_0", 1, folder / "0", **small, rope_factors=(1.0,) * 8)
    tiny_parameters("qwen2", "Q4_0", 1, folder / "1", **small)
    tiny_parameters("qwen3", "BF16", 1, folder / "2", **small)
    tiny_spm_parameters("F16", 1, folder / "3", **small)
    return [(folder / str(n)).read_bytes() for n in range(4)]


def damaged(source: bytes, dice: random.Random) -> bytes:
    data = bytearray(source)
    end = min(len(data), dice.choice([300, 2_000, 12_000, len(data)])) - 8
    kind = dice.random()
    if kind < 0.15:
        del data[dice.randrange(len(data)) :]
    elif kind < 0.55:
        for _ in range(dice.choice([1, 1, 1, 2, 4, 16])):
            at = dice.randrange(end)
            data[at] = dice.choice([0, 1, 128, 255, dice.randrange(256), data[at] ^ 1 << dice.randrange(8)])
    elif kind < 0.95:
        size, at = dice.choice([4, 8]), dice.randrange(end)
        data[at : at + size] = (dice.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    else:
        at, size = dice.randrange(end), dice.randrange(64)
        data[at : at + dice.choice([0, size])] = data[at : at + dice.choice([0, size])]
    return bytes(data)


def attempt(path: Path) -> bool:
    """Read everything there is; whether it could be read."""
    try:
        with Parameters.open(path) as parameters:
            for name in parameters.tensors:
                parameters.read(name)
            for token in range(parameters.hyper.vocab_size):
                parameters.vocabulary.token_bytes(token)
    except ParametersError:
        return False
    return True


def main(cases: int, seed: int, folder: Path) -> int:
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    dice, originals, read, slowest = random.Random(seed), sources(folder), 0, 0.0
    path = folder / "damaged.gguf"
    for case in range(cases):
        path.write_bytes(damaged(dice.choice(originals), dice))
        start = time.process_time()
        read += attempt(path)
        slowest = max(slowest, time.process_time() - start)
        if slowest > SECONDS:
            print(f"case {case} of seed {seed} took {slowest:.1f} s")
            return 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{cases} cases: {read} read, {cases - read} refused; slowest {slowest:.3f} s; at most {peak} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
