"""How many tokens to guess: what pays on a made-up machine."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from twofile.engine.pace import Pace


def play(pace: Pace, cost: Callable[[int], float], p: float, tokens: int = 2000, seed: int = 1) -> tuple[float, float]:
    """Seconds a token, and tokens a guess, where a pass with a guess costs so much and a token is right so often."""
    chance, made, spent, guessed, passes = random.Random(seed), 0, 0.0, 0, 0
    while made < tokens:
        size = pace.size(0, 100)
        right = 0
        while right < size and chance.random() < p:
            right += 1
        if size:
            pace.learn(0, size, right)
        seconds = cost(size) * chance.uniform(0.9, 1.2)
        pace.time(size, seconds)
        spent, made, guessed, passes = spent + seconds, made + right + 1, guessed + size, passes + 1
    return spent / made, guessed / passes


def free(size: int) -> float:
    return 1.0


def dear(size: int) -> float:
    return 1.0 + size


def usual(size: int) -> float:
    return 1.0 + 0.12 * size


def test_what_is_predictable_is_guessed() -> None:
    seconds, guessed = play(Pace(), usual, 1.0)
    assert guessed > 12
    assert seconds < 0.25
    seconds, guessed = play(Pace(), usual, 0.7)
    assert 1.5 < guessed < 8
    assert seconds < 0.65
    assert play(Pace(3), usual, 1.0)[1] <= 3


@pytest.mark.parametrize("cost", [free, usual, dear])
def test_what_is_not_costs_little(cost: Callable[[int], float]) -> None:
    seconds, _ = play(Pace(), cost, 0.0)
    assert seconds < 1.05 * 1.1  # the noise has a mean of 1.05
    seconds, _ = play(Pace(), dear, 0.4)
    assert seconds < 1.05 * 1.1


def test_luck_may_turn() -> None:
    pace = Pace()
    play(pace, usual, 0.0)
    seconds, guessed = play(pace, usual, 1.0)
    assert guessed > 8
    assert seconds < 0.35
    seconds, _ = play(pace, usual, 0.0)
    assert seconds < 1.05 * 1.1


def test_kinds_have_their_own_luck() -> None:
    pace = Pace()
    pace.time(0, 1.0)
    for _ in range(20):
        pace.learn(1, 3, 3)
        pace.learn(2, 3, 0)
    assert pace.size(1, 100) > 3
    assert [pace.size(2, 100) for _ in range(40)].count(0) > 30
    assert pace.size(1, 2) == 2
    assert pace.size(1, 0) == 0


def test_no_guess_before_it_is_known_what_a_pass_costs() -> None:
    assert Pace().size(0, 100) == 0
