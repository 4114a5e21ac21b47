"""How many tokens to guess: as many as make text come fastest, by the clock and by the luck so far.

A pass over the weights that reads k guessed tokens gives 1 + p + ... + p^k tokens, where p is how often a guessed
token is right. What it costs more than a pass without a guess depends on the model, the machine and the vocabulary, so
it is measured. Where no guess pays, one is tried now and then, after a pause that grows with each failure, because a
text may become predictable: that costs a few percent at most.
"""

from __future__ import annotations

_SIZES = (1, 2, 3, 5, 7, 11, 15)  # of a guess: with the token before it, what kernels like to read at a time
_ROW = 0.05  # what a token more adds to a pass, before it was measured: so little that it will be
_WEIGHT = 0.2  # of the newest time
_MEMORY = 0.8  # what each guess leaves of the weight of those before it
_PAUSE = 32  # steps between trials, at most


class Pace:
    """Chooses sizes for guesses of some kinds, each of which is right more or less often."""

    def __init__(self, longest: int = 15) -> None:
        self._sizes = [size for size in _SIZES if size <= longest]
        self._seconds: dict[int, float] = {}  # by the size of the guess: a pass with the making of the guess
        self._luck: dict[int, tuple[float, float]] = {}  # by kind: tokens that were right, guesses that were not
        self._pause, self._wait = 1, 0

    def size(self, kind: int, room: int) -> int:
        """How many tokens to guess now, at most `room`; 0 for no guess."""
        sizes = [size for size in self._sizes if size <= room]
        plain = self._seconds.get(0)
        if not sizes or plain is None:  # the first step without a guess says what that costs
            return 0
        right, wrong = self._luck.get(kind, (1.0, 1.0))
        p = right / (right + wrong)
        speeds: dict[int, float] = {}
        seconds, last = plain, 0
        for size in sizes:
            seconds = self._seconds.get(size, seconds * (1 + _ROW * (size - last)))
            last = size
            speeds[size] = sum(p**i for i in range(size + 1)) / seconds
        best = max(speeds, key=speeds.__getitem__)
        if speeds[best] > 1 / plain:
            return best
        if self._wait:
            self._wait -= 1
            return 0
        self._wait, self._pause = self._pause, min(2 * self._pause, _PAUSE)
        return best

    def learn(self, kind: int, guessed: int, right: int) -> None:
        """What became of a guess of so many tokens."""
        a, b = self._luck.get(kind, (1.0, 1.0))
        self._luck[kind] = (_MEMORY * a + right, _MEMORY * b + (right < guessed))
        if right == guessed:
            self._pause, self._wait = max(1, self._pause // 4), 0

    def time(self, guessed: int, seconds: float) -> None:
        """How long a pass with a guess of so many tokens took, the guessing included."""
        before = self._seconds.get(guessed, seconds)
        self._seconds[guessed] = before + _WEIGHT * (seconds - before)
