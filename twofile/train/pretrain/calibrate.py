"""What this machine does in training steps, measured in about two seconds.

Forward and backward of two layers at three widths, as training runs them but not compiled; the fastest time counts, and
a wider model is never taken for a slower one (that is the noise of a busy machine). Guarantee: torch's random numbers
afterwards are those without it. A machine that is busy at that moment, or slows down as it grows warm, does other than
it says here.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import time
from collections.abc import Callable
from itertools import accumulate

import torch

from twofile.params.hyper import Hyperparameters
from twofile.train.model import Transformer, operations
from twofile.train.pretrain.dial import Machine

__all__ = ["calibrate", "faster_in_bfloat16", "unmeasured"]

_WIDTHS = {"cpu": (128, 256, 512), "cuda": (256, 768, 1536)}
_ROWS = {"cpu": (4, 256), "cuda": (16, 1024)}
_MEASURED = ": training steps of this width, measured, not compiled"
_GUESSED = ": a guess; nothing but the time, and whether it pays to compile, follows from it"
_GUESS = {"cpu": 2e11, "cuda": 2e14}
_COMPILERS = {"cpu": ("CXX", "g++", "clang++"), "cuda": ("CC", "gcc", "clang")}
"""What torch.compile calls: a variable of the environment, and what is looked for without it."""


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _fastest(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds that the work takes when nothing comes between. The first time counts only where it takes all of them."""
    taken: list[float] = []
    begun = time.perf_counter()
    while not taken or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - before)
    return min(taken[1:] or taken)


def _rate(dim: int, device: torch.device, bfloat16: bool) -> float:
    rows, T = _ROWS[device.type]
    hyper = Hyperparameters("qwen3", 1024, T, dim, 2, dim // 64, dim // 64, 64, 3 * dim, tied=True)
    model = Transformer(hyper).to(device)
    tokens_BT = torch.randint(hyper.vocab_size, (rows, T), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = model(tokens_BT, tokens_BT).mean()
        loss.backward()

    return operations(hyper) * rows * T / _fastest(step, device, 0.5)


def faster_in_bfloat16(device: torch.device | None = None) -> bool:
    """Whether products in bfloat16 are faster than in float32 [where a run would be]: on a processor without them, they
    take ten times as long. The fastest of five rounds by turns, so that no pause of the machine decides."""
    device = device or _device()
    a = torch.randn(512, 512, device=device, generator=torch.Generator(device))
    b = a.bfloat16()
    half = whole = math.inf
    for _ in range(5):
        half = min(half, _fastest(lambda: b @ b, device, 0.02))
        whole = min(whole, _fastest(lambda: a @ a, device, 0.02))
    return half < whole


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the calibration has left is free
        return 0.9 * torch.cuda.mem_get_info(device)[0]
    pages = os.sysconf("SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES")
    return 0.5 * pages * os.sysconf("SC_PAGE_SIZE")


def _machine(rates: tuple[tuple[int, float], ...], bfloat16: bool, how: str) -> Machine:
    device = _device()
    processes = int(os.environ.get("WORLD_SIZE", 1))
    compiles = _compiles(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device) + how
        return Machine(name, "cuda", rates, _memory(device), compiles, bfloat16, processes)
    name = f"{torch.get_num_threads()} CPU threads{how}"
    return Machine(name, "cpu", rates, _memory(device) / processes, compiles, bfloat16, processes)


def _compiles(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: a compiler; on a GPU triton, too, whose launchers are C."""
    variable, *names = _COMPILERS[device.type]
    compiler = any(shutil.which(name) for name in (os.environ.get(variable, names[0]), *names))
    return compiler and (device.type == "cpu" or importlib.util.find_spec("triton") is not None)


def calibrate() -> Machine:
    """Measure."""
    device = _device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        bfloat16 = faster_in_bfloat16(device)
        rates = [_rate(dim, device, bfloat16) for dim in _WIDTHS[device.type]]
    return _machine(tuple(zip(_WIDTHS[device.type], accumulate(rates, max), strict=True)), bfloat16, _MEASURED)


def unmeasured() -> Machine:
    """The machine with a guess for its speed, for where size and length are given; what it computes faster is measured
    all the same, in a fifth of a second."""
    device = _device()
    return _machine(((256, _GUESS[device.type]),), faster_in_bfloat16(device), _GUESSED)
