"""How the next token is chosen from logits.

`Sampling` holds the settings, `Sampler` the rule and its random state in NumPy. `run.c` holds the same rule: with the
same seed both choose the same tokens. Everything is computed in double precision, in this order:

    x = logits + bias; the penalties, over the distinct tokens among the last `window` accepted
        (repetition: x / r where x > 0, else x * r; then presence is taken away)
    temperature <= 0: the largest x, the lowest id among equals, and no randomness is used
    x / temperature; order by x, then id; top_k; p = exp(x - max); top_p; min_p; one draw among what is left

Sources: top_p: Holtzman et al. 2020 (arXiv:1904.09751); min_p: Nguyen et al. 2024 (arXiv:2407.01082); repetition:
Keskar et al. 2019 (arXiv:1909.05858); the random numbers: splitmix64, Steele et al. 2014.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

WINDOW_MAX = 4096
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Sampling:
    """Settings of a sampler. ValueError names the field that is out of range."""

    temperature: float = 0.8  # 0: the most likely token
    top_k: int = 0  # keep the k most likely; 0: off
    top_p: float = 0.95  # keep the fewest tokens that hold this share of the probability; 1: off
    min_p: float = 0.0  # keep tokens at least this likely, relative to the most likely; 0: off
    repetition: float = 1.0  # divides the (positive) logits of tokens seen in the window; 1: off
    presence: float = 0.0  # taken from the logits of tokens seen in the window; 0: off
    window: int = 256  # how many of the last tokens the two penalties look at
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> added to its logit; -inf forbids it
    seed: int | None = None  # None: another one each time, told by `Sampler.seed`

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition", "presence"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        for name, least, most in (("top_k", 0, 2**31 - 1), ("window", 0, WINDOW_MAX), ("seed", 0, _MASK)):
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, not {self.min_p}")
        if not 0.01 <= self.repetition <= 100:
            raise ValueError(f"repetition must be from 0.01 to 100, not {self.repetition}")
        if not -100 <= self.presence <= 100:
            raise ValueError(f"presence must be from -100 to 100, not {self.presence}")
        for token, bias in self.logit_bias.items():
            if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                raise ValueError(f"logit_bias: {token!r} is not a token id")
            number = isinstance(bias, int | float) and not isinstance(bias, bool)
            if not number or not (bias == -math.inf or abs(bias) <= 1e9):
                raise ValueError(f"logit_bias: {bias!r} for token {token} is neither a number up to 1e9 nor -inf")


def new_seed() -> int:
    """A seed from the operating system, 64 bits."""
    return secrets.randbits(64)


class Sampler:
    """Chooses tokens of a vocabulary of `vocab`. Not for two threads at once."""

    def __init__(self, vocab: int, sampling: Sampling) -> None:
        self.vocab, self.sampling = vocab, sampling
        self.seed = new_seed() if sampling.seed is None else sampling.seed
        self._state = self.seed
        self._window: deque[int] = deque(maxlen=sampling.window)
        self._bias_V = np.zeros(vocab)
        for token, bias in sampling.logit_bias.items():
            if token >= vocab:
                raise ValueError(f"logit_bias names token {token}, the vocabulary has {vocab}")
            self._bias_V[token] = np.float32(bias)

    def accept(self, token: int) -> None:
        """Take note of a token of the text, for the penalties."""
        self._window.append(token)

    def pick(self, logits_V: NDArray[np.float32]) -> int:
        """Choose a token from logits [vocab] and accept it. Costs a sort of the vocabulary."""
        if logits_V.shape != (self.vocab,):
            raise ValueError(f"logits have shape {logits_V.shape}, the sampler expects ({self.vocab},)")
        s = self.sampling
        # the settings are single precision in the C program; so they are here
        temperature, repetition, presence = (float(np.float32(v)) for v in (s.temperature, s.repetition, s.presence))
        top_p, min_p = float(np.float32(s.top_p)), float(np.float32(s.min_p))

        x_V = logits_V.astype(np.float64) + self._bias_V
        x_V[np.isnan(x_V)] = -np.inf
        seen = list(set(self._window))
        if seen and (repetition != 1 or presence != 0):
            x_N = x_V[seen]
            x_V[seen] = np.where(x_N > 0, x_N / repetition, x_N * repetition) - presence
        if temperature <= 0:
            token = int(np.argmax(x_V))
        else:
            x_V /= temperature
            order_K = np.argsort(-x_V, kind="stable")[: s.top_k or None]
            x_K = x_V[order_K]
            p_K = np.exp(x_K - x_K[0]) if np.isfinite(x_K[0]) else (x_K == x_K[0]).astype(np.float64)
            running_K = np.cumsum(p_K)  # in order, one by one, as C does
            keep = len(p_K)
            if top_p < 1:
                keep = min(keep, int(np.searchsorted(running_K, top_p * running_K[-1])) + 1)
            if min_p > 0:
                keep = int(np.count_nonzero(p_K[:keep] >= min_p * p_K[0]))
            u = self._next() * running_K[keep - 1]
            token = int(order_K[min(int(np.searchsorted(running_K[:keep], u, side="right")), keep - 1)])
        self.accept(token)
        return token

    def _next(self) -> float:
        """A number from [0, 1): splitmix64."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return float((z ^ (z >> 31)) >> 11) * 2.0**-53
