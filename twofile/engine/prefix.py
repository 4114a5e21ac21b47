"""What was read before, kept for texts that begin alike: a radix tree of tokens over caches.

A node is a run of tokens that goes on from its parent's, and holds a cache of the whole text from the root to its end.
That takes little: the caches are forks of one another and share their blocks, so a node costs the memory of what it
alone has. Nodes are kept in order of use, each before its parent, so the first of all is a leaf: the one to evict.

Finding and putting cost a comparison of the tokens and a fork. Not for two threads at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import Cache


class _Node:
    """The text of `parent` and then `run`; the root has no parent, an empty run and no cache."""

    __slots__ = ("cache", "children", "parent", "run_T")

    def __init__(self, parent: _Node | None, run_T: NDArray[np.int32], cache: Cache | None) -> None:
        self.parent, self.run_T, self.cache = parent, run_T, cache
        self.children: dict[int, _Node] = {}  # by the first token of their runs


def _text(node: _Node) -> NDArray[np.int32]:
    """All tokens from the root to a node's end."""
    runs: list[NDArray[np.int32]] = []
    at: _Node | None = node
    while at is not None:
        runs.append(at.run_T)
        at = at.parent
    return np.concatenate(runs[::-1])


class Prefixes:
    """Texts that were read, to begin others with."""

    def __init__(self, leaving: Callable[[NDArray[np.int32], Cache], object] | None = None) -> None:
        """`leaving` is given each text that is evicted, and its cache."""
        self._leaving = leaving
        self._root = _Node(None, np.empty(0, np.int32), None)
        self._oldest: OrderedDict[_Node, None] = OrderedDict()

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._oldest)

    def find(self, tokens: Sequence[int], least: int = 1) -> tuple[Cache, int] | None:
        """A cache with the longest known beginning of `tokens`, short of the last of them, and how long that is.

        None where that is shorter than `least`. The cache is the caller's own. The last token is left out because
        whoever wants logits has to read it.
        """
        node, common, _ = self._follow(np.asarray(tokens, np.int32))
        length = min(common, len(tokens) - 1)
        if node.cache is None or length < least:
            return None
        cache = node.cache.fork()
        cache.rewind(length)
        self._use(node)
        return cache, length

    def put(self, tokens: Sequence[int], cache: Cache) -> None:
        """Keep `cache`, which has read exactly `tokens` and is the tree's from here on."""
        tokens_T = np.asarray(tokens, np.int32)
        node, common, inside = self._follow(tokens_T)
        if common < len(tokens_T):
            if inside < len(node.run_T):
                node = self._split(node, inside, common)
            leaf = _Node(node, tokens_T[common:].copy(), cache)
            node.children[int(tokens_T[common])] = leaf
            node = leaf
        self._use(node)

    def evict(self) -> bool:
        """Forget the leaf that was not used for the longest time; False when there is nothing left."""
        if not self._oldest:
            return False
        node, _ = self._oldest.popitem(last=False)
        assert node.parent is not None
        assert not node.children
        if self._leaving is not None and node.cache is not None:
            self._leaving(_text(node), node.cache)
        del node.parent.children[int(node.run_T[0])]
        return True

    def clear(self, leave: bool = True) -> None:
        """Evict everything; without `leave` nobody is given it."""
        leaving, self._leaving = self._leaving, self._leaving if leave else None
        while self.evict():  # one by one: nodes that refer to one another would live until the next collection
            pass
        self._leaving = leaving

    def _follow(self, tokens_T: NDArray[np.int32]) -> tuple[_Node, int, int]:
        """The node where the text leaves the tree, how much of the text is known, and how much of the node's run."""
        node, common, inside = self._root, 0, 0
        while inside == len(node.run_T) and common < len(tokens_T):
            child = node.children.get(int(tokens_T[common]))
            if child is None:
                break
            node = child
            inside = min(len(node.run_T), len(tokens_T) - common)
            differ = np.flatnonzero(node.run_T[:inside] != tokens_T[common : common + inside])
            if len(differ):
                inside = int(differ[0])
            common += inside
        return node, common, inside

    def _split(self, node: _Node, inside: int, length: int) -> _Node:
        """A new node above this one, for the first `inside` tokens of its run; its text is `length` long."""
        assert node.parent is not None
        assert node.cache is not None
        cache = node.cache.fork()
        cache.rewind(length)
        upper = _Node(node.parent, node.run_T[:inside].copy(), cache)
        node.parent.children[int(upper.run_T[0])] = upper
        node.parent, node.run_T = upper, node.run_T[inside:].copy()
        upper.children[int(node.run_T[0])] = node
        return upper

    def _use(self, node: _Node) -> None:
        """Make a node and those above it the last to go, the uppermost last of all."""
        while node.parent is not None:
            self._oldest[node] = None
            self._oldest.move_to_end(node)
            node = node.parent
