"""A parameters file that gives the same bits again: the program with chosen kernels, and a fingerprint of what it does.

For one compiled program the engine promises the bits of a token's logits: alone or in a batch, in any chunks, at any
number of threads. Another program may round otherwise: with other vector instructions, from another compiler, with
another mathematics library (the program takes `pow` for the frequencies of rotary positions, `sinf` and `cosf` for
their angles, and nothing else of it). So two programs are taken for equal when they have the same kernels and the same
`fingerprint`, which reads as many positions as will be used: every angle that matters is in it.

"avx2" and "c" are compiled with flags that name the instructions, so that machines of several kinds get one program;
"avx512" and "neon" with all that the processor has.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from twofile.engine.backend import LAST, Backend
from twofile.engine.build import HINT, KERNELS, build
from twofile.engine.library import Library, load, load_program
from twofile.errors import EngineError
from twofile.evaluate.archive import DIGEST

__all__ = ["fingerprint", "open_exact"]

_WIDER = ("c", "avx2", "avx512")  # a processor that has one of these has those before it
_CHUNK = 64


def open_exact(path: Path, kernels: str = "", threads: int = 0) -> Backend:
    """Open a parameters file in the program with these kernels, "" for the usual ones; compiles it where need be.

    Raises EngineError where this machine cannot have them. NumPy is refused: its sums depend on library and batch.
    """
    try:
        usual = load_program()
    except EngineError as error:
        raise EngineError(f"{error.message}; NumPy, which could run the model, does not keep bits", HINT) from error
    return _program(usual, kernels or usual.kernels).open(path, threads)


def _program(usual: Library, kernels: str) -> Library:
    asked = os.environ.get("TWOFILE_KERNELS", "native")
    if kernels == asked:
        return usual
    best = usual if kernels == usual.kernels or asked == "native" else _compiled("-march=native")
    if kernels in KERNELS and best.kernels in _WIDER and _WIDER.index(kernels) <= _WIDER.index(best.kernels):
        return _compiled(*KERNELS[kernels])
    if kernels == best.kernels:
        return best
    raise EngineError(
        f"the kernels {kernels} are needed, and this machine has {best.kernels}: it would round otherwise",
        "--kernels c, given to twofile compress, makes files for any x86-64 machine",
    )


def _compiled(*flags: str) -> Library:
    built = build(*flags)
    if built.path is None:
        raise EngineError(f"the program cannot be compiled: {built.reason}", HINT)
    return load(built.path)


def fingerprint(backend: Backend, positions: int) -> bytes:
    """A checksum of the logits of a fixed text of so many tokens, of two rows in 64.

    Tokens are read by 1 and by 63 in turn, so that what the program does for one and for many is in it.
    """
    digest = hashlib.blake2b(digest_size=DIGEST)
    ids_T = ((np.arange(1, positions + 1, dtype=np.uint64) * 2654435761 >> 7) % backend.info.vocab).astype(np.int32)
    cache = backend.cache()
    cuts = sorted({*range(0, positions, _CHUNK), *range(1, positions, _CHUNK)})
    for ids in np.split(ids_T, cuts[1:]) if positions else ():
        digest.update(backend.evaluate([(cache, ids, LAST)]).tobytes())
    return digest.digest()
