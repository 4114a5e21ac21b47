"""The scaling law: exact points give back the constants, intervals hold what comes, few points are refused."""

from __future__ import annotations

import numpy as np
import pytest

from twofile.errors import TrainError
from twofile.train.pretrain.scaling import Law, fit

TRUTH = Law(E=0.6, A=60.0, alpha=0.34, B=90.0, beta=0.33)
SIZES = np.repeat([3e5, 6e5, 1.2e6, 2.4e6], 4)
TOKENS = SIZES * np.tile([5.0, 10.0, 20.0, 40.0], 4)


@pytest.mark.parametrize("truth", [TRUTH, Law(1.8172, 482.01, 0.3478, 2085.43, 0.3658), Law(0.2, 20, 0.2, 3000, 0.5)])
def test_exact_points_give_back_the_constants(truth: Law) -> None:
    found = fit(SIZES, TOKENS, truth.loss(SIZES, TOKENS), replicas=20)
    for name in ("E", "A", "alpha", "B", "beta"):
        assert getattr(found.law, name) == pytest.approx(getattr(truth, name), rel=1e-3), name
    assert found.scatter < 1e-6
    one = found.predict(1e7, 2e8)
    assert one.low <= one.predicted <= one.high
    assert one.predicted == pytest.approx(float(truth.loss(1e7, 2e8)), rel=1e-4)


def test_intervals_hold_what_comes() -> None:
    """Of 25 ladders with 0.3% of scatter, a run of eight times the operations: 95% are promised."""
    inside, off = 0, []
    size, tokens = SIZES.max() * 8**0.5, TOKENS.max() * 8**0.5
    for seed in range(25):
        chance = np.random.default_rng(seed)
        losses = TRUTH.loss(SIZES, TOKENS) * np.exp(0.003 * chance.normal(size=len(SIZES)))
        outcome = float(TRUTH.loss(size, tokens)) * np.exp(0.003 * chance.normal())
        one = fit(SIZES, TOKENS, losses, replicas=150, seed=seed).predict(size, tokens)
        inside += one.low <= outcome <= one.high
        off.append(abs(one.predicted / outcome - 1))
    assert inside >= 20
    assert np.median(off) < 0.01
    assert max(off) < 0.04


def test_one_bad_run_does_little() -> None:
    """Huber's loss: a point that is 10% off moves the prediction by less than 2%."""
    losses = TRUTH.loss(SIZES, TOKENS)
    losses[5] *= 1.1
    one = fit(SIZES, TOKENS, losses, replicas=20).predict(7e6, 1.4e8)
    assert one.predicted == pytest.approx(float(TRUTH.loss(7e6, 1.4e8)), rel=0.02)


def test_the_same_points_give_the_same_numbers() -> None:
    losses = TRUTH.loss(SIZES, TOKENS) * np.exp(0.01 * np.sin(np.arange(16)))
    assert fit(SIZES, TOKENS, losses, replicas=20).to_json() == fit(SIZES, TOKENS, losses, replicas=20).to_json()


def test_too_few_points() -> None:
    with pytest.raises(TrainError, match="5 runs"):
        fit(SIZES[:5], TOKENS[:5], [1.0] * 5)
    with pytest.raises(TrainError, match="one size"):
        fit([1e6] * 6, TOKENS[:6], [1.0] * 6)
