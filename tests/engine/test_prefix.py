"""The tree of what was read: what it finds, what it forgets first, and that it holds no more than it says."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

import numpy as np
import pytest

from twofile.engine.backend import NONE
from twofile.engine.engine import Engine
from twofile.engine.prefix import Prefixes


class Cache:
    """Knows what it has read."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = list(tokens)

    def fork(self) -> Cache:
        return Cache(self.tokens)

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        del self.tokens[length:]


def tree(*texts: list[int]) -> Prefixes:
    known = Prefixes()
    for text in texts:
        known.put(text, Cache(text))
    return known


def found(known: Prefixes, tokens: list[int], least: int = 1) -> list[int] | None:
    got = known.find(tokens, least)
    if got is None:
        return None
    cache, length = got
    assert isinstance(cache, Cache)
    assert cache.tokens == tokens[:length]
    return cache.tokens


def test_it_finds_the_longest_beginning_short_of_the_last_token() -> None:
    known = tree([1, 2, 3, 4], [1, 2, 5])
    assert found(known, [1, 2, 3, 4, 5, 6]) == [1, 2, 3, 4]
    assert found(known, [1, 2, 3, 4]) == [1, 2, 3]
    assert found(known, [1, 2, 3]) == [1, 2]
    assert found(known, [1, 2, 9, 9]) == [1, 2]
    assert found(known, [1, 2, 5, 9]) == [1, 2, 5]
    assert found(known, [1]) is None
    assert found(known, [2, 1]) is None
    assert found(known, [1, 2, 9], least=3) is None
    assert found(Prefixes(), [1, 2]) is None


def test_what_it_gives_is_the_callers_own() -> None:
    known = tree([1, 2, 3])
    cache, _ = known.find([1, 2, 3, 4]) or pytest.fail("nothing found")
    cache.rewind(0)
    assert found(known, [1, 2, 3, 4]) == [1, 2, 3]


def test_what_is_known_is_not_kept_twice() -> None:
    known = tree([1, 2, 3, 4], [1, 2], [1, 2, 3, 4], [])
    assert len(known) == 1
    known.put([1, 2, 5], Cache([1, 2, 5]))
    assert len(known) == 3  # 1 2, then 3 4 and 5
    known.put([1, 2, 5, 6], Cache([1, 2, 5, 6]))
    assert len(known) == 4


def test_the_leaf_longest_without_use_goes_first() -> None:
    known = tree([1, 2, 3], [1, 2, 4], [7, 8])
    found(known, [1, 2, 3, 0])
    gone = []
    while known.evict():
        gone.append([_peek(known, text) for text in ([1, 2, 3, 0], [1, 2, 4, 0], [7, 8, 0])])
    assert gone == [[[1, 2, 3], [1, 2], [7, 8]], [[1, 2, 3], [1, 2], []], [[1, 2], [1, 2], []], [[], [], []]]
    assert not known.evict()
    assert len(known) == 0


def _peek(known: Prefixes, text: list[int]) -> list[int]:
    """What `find` would give, without making use of it."""
    return text[: known._follow(np.array(text))[1]]


def test_against_a_list_of_texts() -> None:
    random.seed(1)
    for _ in range(200):
        known, texts = Prefixes(), []
        for _ in range(30):
            text = random.choices((1, 2), k=random.randrange(10))
            if random.random() < 0.5:
                known.put(text, Cache(text))
                texts.append(text)
            elif text:
                want = max((_common(text[:-1], other) for other in texts), default=0)
                assert (found(known, text) or []) == text[:want]
            place = {node: i for i, node in enumerate(known._oldest)}
            assert all(i < place.get(node.parent, len(place)) for node, i in place.items())
        while known.evict():
            pass
        assert not known._root.children


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), min(len(a), len(b)))


def test_eviction_frees_memory_at_once(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    before = engine.backend.held()
    known = Prefixes()
    gc.disable()
    try:
        for text in ([*range(40), *range(50, 90)], [*range(40), *range(60, 100)], [*range(40), 7, *range(39)]):
            cache, read = known.find(text) or (engine.backend.cache(), 0)
            engine.backend.evaluate([(cache, np.array(text[read:], np.int32), NONE)])
            known.put(text, cache)
        del cache
        held = [engine.backend.held()]
        while known.evict():
            held.append(engine.backend.held())
        assert held == sorted(held, reverse=True)
        if engine.info.kernels != "numpy":  # which copies what it adds to
            blocks = [(n - before) / 16 / engine.info.token_bytes for n in held]
            assert blocks == [
                11,
                9,
                6,
                3,
                0,
            ]  # 40 tokens in 3 blocks that all share; the first fills the third, others copy it
        assert held[-1] == before
        known.put([1], engine.session()._open())
        known.clear()
        assert engine.backend.held() == before
    finally:
        gc.enable()
