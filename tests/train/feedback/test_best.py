"""Best of n: the exact expectation, against all choices one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from twofile.train.feedback.best import best_of, curve, divergence


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_all_choices(n: int) -> None:
    draw = np.random.default_rng(n)
    rewards, gold = draw.random((3, 6)), draw.random((3, 6))
    for p, found in enumerate(best_of(rewards, gold, n)):
        every = [gold[p, max(chosen, key=lambda i: rewards[p, i])] for chosen in itertools.combinations(range(6), n)]
        assert found == pytest.approx(np.mean(every))


def test_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="best of 7"):
        best_of(np.zeros((1, 6)), np.zeros((1, 6)), 7)


def test_divergence() -> None:
    assert divergence(1) == 0
    assert divergence(4) == pytest.approx(math.log(4) - 0.75)
    rewards = np.array([[0.0, 1.0]])
    assert curve(rewards, rewards, [1, 2]) == [(0.0, 0.5), (pytest.approx(math.log(2) - 0.5), 1.0)]
