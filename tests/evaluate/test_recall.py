"""Recall against what the model really says, greedily, token by token; and passages drawn fairly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.tiny import tiny_parameters
from twofile.engine.engine import Engine
from twofile.engine.generate import generate
from twofile.engine.sampler import Sampling
from twofile.evaluate.recall import Passage, Recall, draw, recall

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = tiny_parameters("qwen3", "F32", 3, tmp_path_factory.mktemp("models") / "tiny.gguf")
    with Engine(path, backend="numpy") as engine:
        yield engine


def said(engine: Engine, prompt: list[int], n: int) -> list[int]:
    return [piece.token for piece in generate(engine.session(), prompt, GREEDY, n)]


def test_as_far_as_the_model_says_the_same(engine: Engine) -> None:
    """Passages that are the model's own words, some with one token changed, and some that are not."""
    random, passages, want = np.random.default_rng(1), [], []
    for n in range(40):
        prompt = random.integers(0, 256, 7).tolist()
        words = said(engine, prompt, 5)
        if len(words) < 5:
            continue  # it ended its text
        at = n % 8
        if at < 5:
            words[at] = (words[at] + 1) % 256
        passages.append(Passage(n, (*prompt, *words)))
        want.append(min(at, 5))
    found = recall(engine, passages, 7, 5)
    assert list(found.right) == want
    assert sum(found.exact) == want.count(5) > 5
    assert found.share.value == want.count(5) / len(want)
    assert found.share.low < found.share.value < found.share.high
    assert found.mean_right == pytest.approx(np.mean(want))


def test_random_passages(engine: Engine) -> None:
    ids_NT = np.random.default_rng(2).integers(0, 256, (30, 4))
    found = recall(engine, [Passage(0, tuple(ids.tolist())) for ids in ids_NT], 1, 3)
    for ids, right in zip(ids_NT.tolist(), found.right, strict=True):
        words = said(engine, ids[:1], 3)
        assert right == next((i for i in range(3) if words[i : i + 1] != ids[1 + i : 2 + i]), 3)


def test_documents_are_counted() -> None:
    passages = tuple(Passage(i // 3, (1, 2)) for i in range(7))
    assert Recall(1, 1, passages, (1,) * 7).documents == 3


@pytest.mark.parametrize(("prompt", "continuation"), [(0, 2), (2, 0), (100, 30)])
def test_lengths_that_make_no_sense(engine: Engine, prompt: int, continuation: int) -> None:
    with pytest.raises(ValueError, match="a prompt of"):
        recall(engine, [], prompt, continuation)


def test_a_passage_of_another_length(engine: Engine) -> None:
    with pytest.raises(ValueError, match="another length than 5"):
        recall(engine, [Passage(0, (1, 2, 3))], 3, 2)


class Bytes:
    def prompt(self, text: str) -> list[int]:
        return [256, *text.encode()]


def test_draw() -> None:
    engine: Any = Bytes()
    texts = ["a" * 8, "too", "b" * 12, "", "c" * 17]  # after bos 2, 1, 3, 0 and 4 passages of 4
    everything = draw(engine, texts, 4, 99)
    assert [passage.document for passage in everything] == [0, 0, 1, 2, 2, 2, 4, 4, 4, 4]
    assert everything[0].tokens == (256, 97, 97, 97)
    assert draw(engine, texts, 4, 5, seed=1) == draw(engine, iter(texts), 4, 5, seed=1)
    assert draw(engine, texts, 4, 5, seed=1) != draw(engine, texts, 4, 5, seed=2)
    assert draw(engine, ["x"], 4, 5) == []


def test_each_passage_is_as_likely() -> None:
    engine: Any = Bytes()
    texts = [chr(65 + i) * 3 for i in range(10)]
    counts: Counter[int] = Counter()
    for seed in range(3000):
        drawn = [passage.document for passage in draw(engine, texts, 4, 3, seed)]
        assert len(set(drawn)) == 3
        counts.update(drawn)
    assert all(abs(counts[i] - 900) < 5 * 25 for i in range(10))  # five standard deviations
