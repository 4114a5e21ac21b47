"""The most matrix arithmetic this machine does, measured: what the speed of training is a share of.

A share means something only beside the limit of the same machine in the same hour, so the limit is measured and not
looked up. The matrices are those of training: thousands of rows (tokens) times weights, laid out as a linear layer
keeps them. Costs about two seconds and 0.2 GB, on a GPU 1 GB.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

__all__ = ["matrix_peak"]

_SHAPES = ((512, 512, 512), (2048, 512, 1536), (2048, 1024, 1024), (4096, 1024, 4096), (4096, 4096, 4096))
_ON_GPU = ((8192, 8192, 8192), (16384, 4096, 16384))
"""(rows, in, out), small ones first: a slow machine may not get beyond them."""


def matrix_peak(dtype: torch.dtype, device: torch.device | str = "cpu", *, seconds: float = 2.0) -> float:
    """Floating-point operations a second (2 for each multiply-accumulate) of the best of several matrix products.

    With torch's threads as they are set now, and with its setting for TF32. Where several processes train together,
    each measures, at the same time, and the peak of all is the sum."""
    device = torch.device(device)
    shapes = _SHAPES + (_ON_GPU if device.type != "cpu" else ())
    end = time.perf_counter() + seconds
    best = 0.0
    with torch.no_grad():
        for i, (rows, width, out) in enumerate(shapes):
            work = 2 * rows * width * out
            now = time.perf_counter()
            if best and now + 3 * work / best > end:
                break  # too much for this machine in the time left
            x_RI = torch.randn(rows, width, device=device).to(dtype)
            w_OI = torch.randn(out, width, device=device).to(dtype)
            _time(x_RI, w_OI, 1)  # the first is not as the others: libraries load, caches fill
            least = _time(x_RI, w_OI, 1)
            times = 1 if device.type == "cpu" else max(1, round(0.005 / least))  # so that starting it does not count
            until = now + (end - now) / (len(shapes) - i)
            while time.perf_counter() < until:
                least = min(least, _time(x_RI, w_OI, times))
            best = max(best, work / least)
    return best


def _time(x_RI: torch.Tensor, w_OI: torch.Tensor, times: int) -> float:
    """Seconds of one product, the mean of so many in a row."""
    _wait(x_RI.device)
    start = time.perf_counter()
    for _ in range(times):
        F.linear(x_RI, w_OI)
    _wait(x_RI.device)
    return (time.perf_counter() - start) / times


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
