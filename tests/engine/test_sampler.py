"""Sampling: the rule, and that Python and C follow the same one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twofile.engine import library
from twofile.engine.sampler import Sampler, Sampling
from twofile.errors import EngineError


def row(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def counts(sampling: Sampling, logits: NDArray[np.float32], n: int = 4000) -> NDArray[np.int64]:
    sampler = Sampler(len(logits), sampling)
    return np.bincount([sampler.pick(logits) for _ in range(n)], minlength=len(logits))


def test_splitmix64_gives_its_published_numbers() -> None:
    sampler = Sampler(1, Sampling(seed=1234567))  # the first outputs of the reference C code for this seed
    numbers = [int(sampler._next() * 2**53) for _ in range(3)]
    assert numbers == [n >> 11 for n in (6457827717110365317, 3203168211198807973, 9817491932198370423)]


def test_greedy_takes_the_lowest_of_equals_and_no_randomness() -> None:
    sampler = Sampler(4, Sampling(temperature=0, seed=1))
    assert sampler.pick(row(1, 3, 3, 2)) == 1
    assert sampler.pick(row(math.nan, -5, -4, -math.inf)) == 2
    assert sampler._state == 1


def test_temperature_gives_the_softmax() -> None:
    logits = row(0, 1, 2)
    p = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum()
    seen = counts(Sampling(temperature=0.5, top_p=1, seed=3), logits, 20000) / 20000
    assert np.abs(seen - p).max() < 4 * math.sqrt(0.25 / 20000)


def test_top_k_top_p_min_p() -> None:
    logits = np.log(row(0.5, 0.25, 0.15, 0.1))

    def kept(**settings: Any) -> int:
        seen = counts(Sampling(**{"temperature": 1, "top_p": 1, "seed": 1} | settings), logits) > 0
        assert seen.tolist() == sorted(seen.tolist(), reverse=True)
        return int(seen.sum())

    assert (kept(), kept(top_k=2), kept(top_p=0.7), kept(top_p=0.01), kept(min_p=0.29)) == (4, 2, 2, 1, 3)


def test_penalties_look_at_distinct_tokens_of_the_window() -> None:
    sampler = Sampler(3, Sampling(temperature=0, repetition=2, presence=0.5, window=2))
    for token in (0, 1, 1):
        sampler.accept(token)
    assert sampler.pick(row(1.9, 2, -9)) == 0  # 1 counts once: 2 / 2 - 0.5; 0 has left the window
    assert sampler.pick(row(1, 1, 0.9)) == 2  # now 1 and 0 are seen
    sampler = Sampler(2, Sampling(temperature=0, repetition=2))
    sampler.accept(0)
    assert sampler.pick(row(-1, -1.5)) == 1  # a negative logit is multiplied


def test_bias_forbids_and_prefers() -> None:
    assert Sampler(3, Sampling(temperature=0, logit_bias={2: -math.inf})).pick(row(0, 1, 5)) == 1
    assert Sampler(3, Sampling(temperature=0, logit_bias={0: 10})).pick(row(0, 1, 5)) == 0
    with pytest.raises(ValueError, match="logit_bias names token 7"):
        Sampler(3, Sampling(logit_bias={7: 1.0}))


def test_the_seed_decides() -> None:
    logits = np.zeros(1000, np.float32)

    def tokens(sampling: Sampling) -> list[int]:
        sampler = Sampler(1000, sampling)
        return [sampler.pick(logits) for _ in range(20)]

    assert tokens(Sampling(seed=5)) == tokens(Sampling(seed=5)) != tokens(Sampling(seed=6))
    sampler = Sampler(1000, Sampling())
    assert [sampler.pick(logits) for _ in range(20)] == tokens(Sampling(seed=sampler.seed))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", math.nan), ("temperature", "1"), ("top_k", -1), ("top_k", 1.5),
        ("top_p", 0), ("top_p", 1.1), ("min_p", -0.1), ("min_p", 2), ("repetition", 0), ("presence", math.inf),
        ("window", 4097), ("window", True), ("logit_bias", {-1: 0.0}), ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: math.inf}),        ("seed", -1), ("seed", 2**64),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Sampling(**{field: value})


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        Sampler(3, Sampling()).pick(row(1, 2))


def test_same_seed_same_tokens_in_c() -> None:
    try:
        c = library.load_program()
    except EngineError as error:
        pytest.skip(error.message)
    random = np.random.default_rng(11)
    checked = 0
    while checked < 10_000:
        vocab = int(random.choice([1, 2, 7, 64, 300]))
        sampling = Sampling(
            temperature=float(random.choice([0, 0.01, 0.3, 0.8, 1, 2.5])),
            top_k=int(random.choice([0, 1, 5, 40, 1000])),
            top_p=float(random.choice([1, 0.95, 0.5, 0.01])),
            min_p=float(random.choice([0, 0.05, 0.5, 1])),
            repetition=float(random.choice([1, 1.1, 2, 0.5])),
            presence=float(random.choice([0, 0.5, -0.5])),
            window=int(random.choice([0, 1, 16, 256])),
            logit_bias={int(i): float(random.normal()) for i in random.integers(vocab, size=random.integers(3))},
            seed=int(random.integers(2**63)),
        )
        ours, theirs = Sampler(vocab, sampling), c.picker(vocab, sampling)
        for token in random.integers(vocab, size=5).tolist():
            ours.accept(token)
            theirs.accept(token)
        for _ in range(25):
            logits = random.normal(scale=3, size=vocab).astype(np.float32)
            if random.random() < 0.3:
                logits = np.round(logits)  # equals
            logits[random.random(vocab) < 0.05] = random.choice([np.nan, -np.inf])
            assert ours.pick(logits) == theirs.pick(logits), (sampling, logits)
            checked += 1
