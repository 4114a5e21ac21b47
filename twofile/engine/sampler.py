"""How the next token is chosen from logits.

`Sampling` holds the settings, `Sampler` the rule and its random state in NumPy. `run.c` holds the same rule: with the
same seed both choose the same tokens, on every machine, since the weights are whole numbers and no sum of them depends
on its order. The rule:

    x = logits + bias, NaN as -inf; the penalties, over the distinct tokens among the last `window` accepted
        (repetition: x / r where x > 0, else x * r; then presence is taken away; in double precision, then made single)
    temperature <= 0, or the largest x is infinite: the largest x, the lowest id among equals, and no randomness is used
    w = 2^30 exp((x - max) / temperature), cut to a whole number: `weights`
    ahead of a token are those of larger w, and of equal w those of lower ids. A token may stand if fewer than top_k are
        ahead of it, those ahead hold less than top_p of the sum of all w, and its own w is at least min_p 2^30
    one token is drawn from all, with chances as w; as long as it may not stand, another is drawn from those ahead of it

So top_p is a share of everything, with or without top_k. The last step gives each token the chance that one draw among
those that may stand would give it, without sorting, and the first draw stands in top_p of the cases.

Sources: top_p: Holtzman et al. 2020 (arXiv:1904.09751); min_p: Nguyen et al. 2024 (arXiv:2407.01082); repetition:
Keskar et al. 2019 (arXiv:1909.05858); drawing until one stands: Ye et al. 2025 (FlashInfer, arXiv:2501.01005); the
random numbers: splitmix64, Steele et al. 2014.
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
MOST = 2**30  # the weight of the most likely token
_MASK = (1 << 64) - 1
_LINE = np.float32(float.fromhex("0x1.10df9ep-88")), np.float32(float.fromhex("0x1.7a4p-109"))


@dataclass(frozen=True)
class Sampling:
    """Settings of a sampler. ValueError names the field that is out of range."""

    temperature: float = 0.8  # 0: the most likely token
    top_k: int = 0  # keep the k most likely; 0: off
    top_p: float = 0.95  # keep the fewest tokens that hold this share of all probability; 1: off
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
        self._bias_V = np.zeros(vocab, np.float32)
        for token, bias in sampling.logit_bias.items():
            if token >= vocab:
                raise ValueError(f"logit_bias names token {token}, the vocabulary has {vocab}")
            self._bias_V[token] = bias

    def accept(self, token: int) -> None:
        """Take note of a token of the text, for the penalties."""
        self._window.append(token)

    def pick(self, logits_V: NDArray[np.float32]) -> int:
        """Choose a token from logits [vocab] and accept it."""
        if logits_V.shape != (self.vocab,):
            raise ValueError(f"logits have shape {logits_V.shape}, the sampler expects ({self.vocab},)")
        s = self.sampling
        # the settings are single precision in the C program; so they are here
        temperature, repetition, presence = (float(np.float32(v)) for v in (s.temperature, s.repetition, s.presence))
        with np.errstate(invalid="ignore", over="ignore"):  # infinities, and what is not a number
            x_V = logits_V.astype(np.float32) + self._bias_V
            seen = list(set(self._window))
            if seen and (repetition != 1 or presence != 0):
                x_N = x_V[seen].astype(np.float64)
                x_V[seen] = np.where(x_N > 0, x_N / repetition, x_N * repetition) - presence
            x_V[np.isnan(x_V)] = -np.inf
            token = int(np.argmax(x_V))
            if temperature > 0 and np.isfinite(x_V[token]):
                token = self._draw(weights(x_V, temperature))
        self.accept(token)
        return token

    def _draw(self, w_V: NDArray[np.int64]) -> int:
        s = self.sampling
        share, least = float(np.float32(s.top_p)) * float(w_V.sum()), float(np.float32(s.min_p)) * MOST
        may_V = w_V  # what may be drawn; 0 for the others
        while True:
            running_V = np.cumsum(may_V)
            total = int(running_V[-1])
            token = int(np.searchsorted(running_V, min(int(self._next() * total), total - 1), side="right"))
            ahead_V = w_V > w_V[token]
            ahead_V[:token] |= w_V[:token] == w_V[token]
            may_V = np.where(ahead_V, w_V, 0)
            n = int(np.count_nonzero(ahead_V))
            if n == 0 or ((s.top_k == 0 or n < s.top_k) and float(may_V.sum()) < share and w_V[token] >= least):
                return token

    def _next(self) -> float:
        """A number from [0, 1): splitmix64."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return float((z ^ (z >> 31)) >> 11) * 2.0**-53


def weights(x_V: NDArray[np.float32], temperature: float) -> NDArray[np.int64]:
    """2^30 exp((x - max) / temperature) to within 2 in a million, cut to a whole number.

    Each operation is exact, or rounded alike by every processor, whether it fuses multiplication with addition or not.
    A step is 2^-20 of a halving. Steps are a power of two and 20 bits of a fraction: the high 12 go into the square of
    a polynomial in two factors, which are exact as integers, and the low 8 into a line.
    """
    scale = np.float32(min(2**20 * 1.4426950408889634 / temperature, 1e38))
    steps_V = np.fmin((x_V.max() - x_V) * scale, np.float32(34 * 2**20)).astype(np.int32)
    z_V = steps_V >> 8 & 0xFFF
    p_V = ((z_V - 5282) ** 2 + 874015366).astype(np.float32) * ((z_V - 22565) ** 2 + 109896132).astype(np.float32)
    line_V = _LINE[0] - _LINE[1] * (steps_V & 0xFF).astype(np.float32)
    bits_V = (p_V * p_V * line_V).view(np.int32) - (steps_V >> 20 << 23)  # the power of two, off the exponent
    w_V: NDArray[np.int64] = bits_V.view(np.float32).astype(np.int64)
    return w_V
