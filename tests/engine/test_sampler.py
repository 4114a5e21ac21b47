"""Sampling: the rule, and that Python and C follow the same one."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from twofile.engine.build import KERNELS, build
from twofile.engine.library import Library
from twofile.engine.sampler import MOST, Sampler, Sampling, weights


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
    assert (kept(top_k=1, top_p=0.9), kept(top_k=3, min_p=0.4)) == (1, 2)
    assert (kept(top_k=3, top_p=0.76), kept(top_k=3, top_p=0.74)) == (3, 2)  # top_p is a share of everything


def test_of_equals_the_lowest_ids_stay() -> None:
    logits = row(0, 1, 1, 0, 1, 0)
    assert np.flatnonzero(counts(Sampling(top_k=2, top_p=1, seed=2), logits)).tolist() == [1, 2]
    assert np.flatnonzero(counts(Sampling(top_k=4, top_p=1, seed=2), logits)).tolist() == [0, 1, 2, 4]
    assert np.flatnonzero(counts(Sampling(top_p=0.5, seed=2), np.zeros(8, np.float32))).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_p": 0.05}, {"top_k": 1}])
def test_chances_are_those_of_one_draw_among_what_stays(settings: dict[str, Any]) -> None:
    logits, n = row(0, 1.5, -1, 1.4, 0.2, 2, -4, 1), 20_000
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    stays = (before < settings.get("top_p", 1)) & (p[order] >= settings.get("min_p", 0) * p.max())
    stays[settings.get("top_k", len(p)) :] = False
    expected = np.zeros(len(p))
    expected[order[stays]] = p[order[stays]] / p[order[stays]].sum()
    seen = counts(Sampling(**{"temperature": 1, "top_p": 1, "seed": 9} | settings), logits, n) / n
    assert np.abs(seen - expected).max() < 4 * math.sqrt(0.25 / n)
    assert not seen[expected == 0].any()


@pytest.mark.parametrize("temperature", [1e-30, 0.01, 0.8, 1, 100, 1e30])
def test_weights_are_exponentials(temperature: float) -> None:
    fall = np.random.default_rng(4).uniform(0, 22, 100_000) * np.minimum(temperature, 1e6)
    logits = np.concatenate([row(20), (20 - fall).astype(np.float32)])
    found = weights(logits, temperature)
    exact = MOST * np.exp((logits.astype(np.float64) - 20) / temperature)
    assert found[0] == MOST == found.max()
    assert found.min() >= 0
    assert (np.abs(found - exact) <= 1 + 2e-6 * exact).all()


def test_weights_never_rise_as_logits_fall() -> None:
    steps = np.arange(3 << 20, dtype=np.float32)  # with this temperature a step is a step of the weights
    found = weights(-steps, 2**20 * 1.4426950408889634)
    assert (np.diff(found) <= 0).all()
    assert found[:: 1 << 20].tolist() == [MOST, MOST // 2, MOST // 4]


def test_logits_without_an_answer_give_the_first_of_the_largest_and_no_randomness() -> None:
    for logits, token in (
        (row(-math.inf, -math.inf), 0), (row(math.nan, -math.inf), 0), (row(1, math.inf, math.inf), 1),
    ):  # fmt: skip
        sampler = Sampler(len(logits), Sampling(seed=1))
        assert (sampler.pick(logits), sampler._state) == (token, 1)
    assert set(np.flatnonzero(counts(Sampling(seed=1, top_p=1), row(math.nan, 3e38, -3e38, -math.inf, 3e38)))) == {1, 4}


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


@pytest.fixture(scope="module")
def programs() -> list[Library]:
    """The program with every vector instructions it knows and this processor has."""
    names = list(KERNELS) if platform.machine() in ("x86_64", "AMD64") else ["native"]
    if "avx2" in names and " avx2 " not in Path("/proc/cpuinfo").read_text():
        names.remove("avx2")
    made = []
    for name in names:
        with patch.dict(os.environ, {"TWOFILE_KERNELS": name}):
            made.append(build())
    if not made[0].compiler:
        pytest.skip(made[0].reason)
    return [Library(built.path) for built in made if built.path]


def some_logits(random: np.random.Generator, vocab: int) -> NDArray[np.float32]:
    kind = random.integers(7)
    logits = random.normal(scale=random.choice([0.1, 1, 3, 30]), size=vocab)
    if kind == 0:
        logits[random.integers(vocab)] += 25  # one stands out
    elif kind == 1:
        logits = np.round(logits)  # equals
    elif kind == 2:
        logits[:] = random.normal()  # nothing but equals
    elif kind == 3:
        logits = 5 + logits * 1e-6  # nearly equals
    elif kind == 4:
        logits *= 1e37
    with np.errstate(over="ignore"):
        row = logits.astype(np.float32)
    if random.random() < 0.3:
        row[random.random(vocab) < random.choice([0.05, 0.6, 1])] = random.choice([np.nan, -np.inf])
    if random.random() < 0.02:
        row[random.integers(vocab, size=2)] = np.inf
    return row


# around the widths of vectors, the chunks of the program, and a true one
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 255, 256, 257, 300, 511, 512, 513, 1025, 32_003]


def test_same_seed_same_tokens_in_c(programs: list[Library]) -> None:
    random = np.random.default_rng(11)
    checked = 0
    while checked < 10_000:
        vocab = SIZES[checked // 5 % len(SIZES)] if random.random() < 0.7 else int(random.integers(1, 600))
        scale = random.choice([1, 100, 1e9])
        biases = random.normal(scale=scale, size=random.integers(4)).clip(-1e9, 1e9).tolist()
        biased = dict(zip(random.integers(vocab, size=len(biases)).tolist(), biases, strict=True))
        if random.random() < 0.2:
            biased[int(random.integers(vocab))] = -math.inf
        sampling = Sampling(
            temperature=float(random.choice([0, 1e-40, 0.01, 0.3, 0.8, 1, 2.5, 1e30])),
            top_k=int(random.choice([0, 1, 2, 5, 40, 1000, 2**31 - 1])),
            top_p=float(random.choice([1, 0.95, 0.5, 0.01, 1e-50])),
            min_p=float(random.choice([0, 0.05, 0.5, 1])),
            repetition=float(random.choice([1, 1.1, 2, 0.5, 0.01])),
            presence=float(random.choice([0, 0.5, -0.5])),
            window=int(random.choice([0, 1, 16, 256])),
            logit_bias=biased,
            seed=int(random.integers(2**63)),
        )
        ours, theirs = Sampler(vocab, sampling), [c.picker(vocab, sampling) for c in programs]
        for token in random.integers(vocab, size=5).tolist():
            for sampler in (ours, *theirs):
                sampler.accept(token)
        for _ in range(4 if vocab > 2000 else 25):
            logits = some_logits(random, vocab)
            token = ours.pick(logits)
            assert [c.pick(logits) for c in theirs] == [token] * len(theirs), (vocab, sampling, logits)
            checked += 1


def test_c_takes_any_array_of_the_right_length(programs: list[Library]) -> None:
    picker = programs[0].picker(300, Sampling(temperature=0))
    logits = np.random.default_rng(5).normal(size=(300, 2)).astype(np.float32)
    best = int(logits[:, 1].argmax())
    frozen = logits[:, 1].copy()
    frozen.flags.writeable = False
    assert [picker.pick(x) for x in (frozen, logits[:, 1], logits[:, 1].astype(np.float64))] == [best] * 3
    for wrong in (logits, frozen[1:], frozen.reshape(1, 300)):
        with pytest.raises(ValueError, match="shape"):
            picker.pick(wrong)


def test_c_looks_back_over_the_whole_window(programs: list[Library]) -> None:
    sampling = Sampling(temperature=0, presence=1, window=4096)
    ours, theirs = Sampler(5000, sampling), programs[0].picker(5000, sampling)
    for token in (*range(4500), 7, 7):
        ours.accept(token)
        theirs.accept(token)
    logits = np.zeros(5000, np.float32)
    logits[4500:] = -0.5
    assert ours.pick(logits) == theirs.pick(logits) == 0  # 0 to 405 have left the window, but 7
    logits[:406] = -1
    logits[406] = 0.75
    assert ours.pick(logits) == theirs.pick(logits) == 406  # the last token pushed it out
