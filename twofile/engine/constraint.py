"""Constrained decoding: a text that matches a JSON Schema, a regular expression or a Lark grammar, whatever the model.

At each step the library llguidance says which tokens may come; the others are taken from the sampler. So what a
generation with a constraint says, once it finishes with "end", is valid. What is valid is not always done: a number
can always have one more digit, and a model that never ends it runs into `max_tokens`.

A constraint sees the bytes of tokens, so it knows nothing of how a text was cut into tokens. Control tokens are no
text: none is ever allowed, but for those that end a generation, where the text may end.

The vocabulary is read once for each open model: 0.1 s for 32,000 tokens, 0.4 s for 128,000. A grammar is compiled once
for each, too, as long as it is among the last that were asked for.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from twofile.engine.backend import Backend
from twofile.engine.engine import Engine
from twofile.engine.texts import token_texts
from twofile.errors import EngineError

# Between the parts of JSON: nothing, a space, or a new line with its indent. The standard has white space without end,
# which is what a model writes that does not know what else to write.
_JSON_SPACE = r" |\n[ \t]{0,32}"

_KEPT = 32  # compiled grammars of a model
_LIMITS = LLParserLimits(verbose_errors=False)


class Constraint:
    """What a text must look like. Read-only: any number of generations may use one, at the same time.

    ValueError says why a schema, a pattern or a grammar cannot be used."""

    def __init__(self, backend: Backend, grammar: str, what: str) -> None:
        self._tokens = _tokens_of(backend)
        kept = self._tokens.kept(grammar)
        self._root = kept or LLMatcher(self._tokens.tokenizer, grammar, log_level=0, limits=_LIMITS)
        if kept:
            return
        if self._root.is_error():
            raise ValueError(f"{what} cannot be used: {self._root.get_error().strip()}")
        try:
            self.start().check()
        except EngineError as error:
            raise ValueError(f"{what} cannot be used: {error.message}") from None
        self._tokens.keep(grammar, self._root)

    @classmethod
    def json_schema(cls, engine: Engine, schema: str | Mapping[str, Any]) -> Constraint:
        """JSON of this schema, given as such or as its text. What of JSON Schema is not supported is refused."""
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise ValueError(f"the JSON Schema is not JSON: {error}") from None
        if not isinstance(schema, Mapping):
            raise ValueError(f"a JSON Schema is an object, not {type(schema).__name__}")
        text = json.dumps(schema)
        grammar = LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": _JSON_SPACE})
        return cls(engine.backend, grammar, "the JSON Schema")

    @classmethod
    def regex(cls, engine: Engine, pattern: str) -> Constraint:
        """All of the text matches the pattern (the syntax of Rust's `regex`: no look-around, no references back)."""
        return cls(engine.backend, LLMatcher.grammar_from_regex(pattern), "the pattern")

    @classmethod
    def grammar(cls, engine: Engine, lark: str) -> Constraint:
        """A context-free grammar in Lark's syntax; its first rule is named `start`."""
        return cls(engine.backend, LLMatcher.grammar_from_lark(lark), "the grammar")

    def start(self) -> Matcher:
        """A matcher at the beginning of a text."""
        return Matcher(self._tokens, self._root.deep_copy())

    def fits_text(self, text: str) -> bool:
        """Whether a text is one of those that it allows, whole."""
        matcher = self.start()
        return matcher.reads(self._tokens(text.encode()))

    def fits(self, backend: Backend) -> bool:
        """True when it was made for the vocabulary of this very backend."""
        return _tokens_of(backend) is self._tokens


class Matcher:
    """How far one text has come in a constraint, and what may come next. For one thread at a time."""

    def __init__(self, tokens: _Tokens, matcher: LLMatcher) -> None:
        self.done = False  # the text is complete and nothing may follow
        self.only: int | None = None  # after `prepare`: the one token that may come next, where there is but one
        self._tokens, self._matcher = tokens, matcher
        self._words = np.zeros(tokens.size // 32 + 1, np.uint32)  # a bit a token; the last one says: it may end here
        self._address, self._octets = int(self._words.ctypes.data), self._words.view(np.uint8)
        self._allowed_V: NDArray[np.bool_] | None = None

    def prepare(self) -> None:
        """Compute what may come next, unless that is done: what `apply` needs, ahead of it and in any thread."""
        if self._allowed_V is not None:
            return
        words, tokens = self._words, self._tokens
        self._matcher.unsafe_compute_mask_ptr(self._address, words.nbytes)
        words &= tokens.usable
        bits = np.unpackbits(self._octets, bitorder="little").view(np.bool_)
        allowed_V = bits[: tokens.size]
        for token in tokens.ends:
            allowed_V[token] = bits[tokens.size]
        self.only = None
        if np.count_nonzero(words) == 1 and len(at := np.flatnonzero(allowed_V)) == 1:
            self.only = int(at[0])
        self._allowed_V = allowed_V

    def apply(self, logits_V: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits with -inf for what may not come. Raises EngineError when the library has given up."""
        allowed_V = self._allowed()
        masked_V: NDArray[np.float32] = np.where(allowed_V, logits_V, np.float32(-np.inf))
        return masked_V

    def accept(self, token: int) -> None:
        """Go on by the token that was chosen. Raises EngineError when it is none of those that may come."""
        if not self._allowed()[token]:
            raise EngineError("what the constraint allows next has no probability (see logit_bias)")
        if token in self._tokens.ends:
            self.done = True
            return
        if not self._matcher.consume_token(token):
            raise self._failure()
        self._allowed_V = None
        self.done = self._matcher.is_stopped()
        if not self.done and not self._tokens.ends:  # no token can say that the text is complete
            self.done = not self._allowed().any()

    def forced(self) -> list[int]:
        """Tokens that must come next, as far as that is certain: often the names in JSON."""
        return [token for token in self._matcher.compute_ff_tokens() if token < self._tokens.size]

    def valid(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may come next, one after the other."""
        return self._matcher.validate_tokens(list(tokens))

    def reads(self, tokens: Sequence[int]) -> bool:
        """Go on by these tokens; whether all of them may come, and the text may end behind them."""
        return all(self._matcher.consume_token(token) for token in tokens) and self._matcher.is_accepting()

    def check(self) -> None:
        """Raises EngineError when there is no text, but for the empty one, that would do."""
        if all(int(token) in self._tokens.ends for token in np.flatnonzero(self._allowed())):
            raise EngineError("it allows no text at all")

    def _allowed(self) -> NDArray[np.bool_]:
        self.prepare()
        if self._matcher.is_error():  # then the mask says that the text may end, which is not so
            raise self._failure()
        assert self._allowed_V is not None
        return self._allowed_V

    def _failure(self) -> EngineError:
        why = self._matcher.get_error().strip()
        if why.startswith("NoExtension"):
            return EngineError("what the constraint asks for next cannot be written with this vocabulary")
        return EngineError(f"the constraint cannot go on: {why}", "try a simpler one")


class _Tokens:
    """A vocabulary as llguidance wants it: bytes of texts, and one more token, the last, that stands for every end."""

    eos_token_id: int
    bos_token_id = None

    def __init__(self, backend: Backend) -> None:
        self.size = self.eos_token_id = backend.info.vocab
        texts = token_texts(backend)
        kept = {i for i in (backend.info.eos, backend.info.eot) if i >= 0}  # they may have a text, which nobody sees
        self.ends = frozenset(i for i, text in enumerate(texts) if (not text or i in kept) and backend.ends(i))
        for i in self.ends:
            texts[i] = b""
        self.special_token_ids = [*(i for i, text in enumerate(texts) if not text), self.size]
        self.tokens = [text or b"\xff[%d]" % i for i, text in enumerate([*texts, b""])]
        bits = np.ones((self.size // 32 + 1) * 32, np.uint8)
        bits[self.special_token_ids[:-1]] = bits[self.size + 1 :] = 0
        self.usable = np.packbits(bits, bitorder="little").view(np.uint32)
        self._bytes = {text: i for i, text in enumerate(texts) if len(text) == 1}
        self._backend = ref(backend)  # the cache below must not keep a model open
        self.tokenizer = LLTokenizer(TokenizerWrapper(self))
        self._roots: OrderedDict[str, LLMatcher] = OrderedDict()

    def kept(self, grammar: str) -> LLMatcher | None:
        """A grammar that was compiled before."""
        with _lock:
            if grammar in self._roots:
                self._roots.move_to_end(grammar)
            return self._roots.get(grammar)

    def keep(self, grammar: str, root: LLMatcher) -> None:
        """Have it the next time."""
        with _lock:
            self._roots[grammar] = root
            while len(self._roots) > _KEPT:
                self._roots.popitem(last=False)

    def __call__(self, text: bytes) -> list[int]:
        """Tokens whose bytes are this very text, which a grammar asks for, cut as the model is used to."""
        backend = self._backend()
        if backend is not None:
            tokens = backend.tokenize(text, False)
            if b"".join(self.tokens[i] for i in tokens) == text:
                return tokens
            # SentencePiece puts a space in front: behind something else it does not
            front = backend.tokenize(b"\x02", False)
            tokens = backend.tokenize(b"\x02" + text, False)
            if tokens[: len(front)] == front and b"".join(self.tokens[i] for i in tokens[len(front) :]) == text:
                return tokens[len(front) :]
        return [self._bytes[text[i : i + 1]] for i in range(len(text)) if text[i : i + 1] in self._bytes]


_cache: WeakKeyDictionary[Backend, _Tokens] = WeakKeyDictionary()
_lock = threading.Lock()


def _tokens_of(backend: Backend) -> _Tokens:
    with _lock:
        if backend not in _cache:
            _cache[backend] = _Tokens(backend)
        return _cache[backend]
