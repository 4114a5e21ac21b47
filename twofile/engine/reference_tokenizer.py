"""The tokenizer of the program, in Python: what `run.c` must compute, and what runs where nothing can compile it.

Two kinds of vocabulary: `llama` (SentencePiece: characters are merged, best score first; what has no token is written
byte by byte) and `gpt2` (byte-level BPE: the text is cut into words by the patterns of a pre-tokenizer, then bytes are
merged within each word, first merge of the list first). Merging looks only at normal tokens, so a control token comes
out of a text in one way alone: its name stands there and the caller asked for it (`special`). User-defined tokens are
found by their names in any text.

Guarantees: decode(encode(x)) == x for any bytes where every byte has a token; `llama` adds a space in front of each
stretch of text if the file says so, and takes U+2581 for a space. Costs O(n log n), about a second for 200 kB.
Sources: llama.cpp's src/llama-vocab.cpp, whose tokens these are (its test vectors are ours), and its names and patterns
of pre-tokenizers.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import regex

from twofile.errors import ParametersError
from twofile.params.vocabulary import PRE_TOKENIZERS, TokenType, Vocabulary, byte_characters

__all__ = ["DEEPSEEK_CASED", "DEEPSEEK_HAN", "DEEPSEEK_MARKS", "ReferenceTokenizer", "cut"]

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# DeepSeek LLM's own idea of a cased letter; escaped, because normalising editors would turn U+2126 into U+03A9
DEEPSEEK_CASED = (
    r"A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    r"\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    r"\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    r"\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    r"\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    r"\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    r"\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    r"\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    r"\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    r"\U000118a0-\U000118df\U0001e900-\U0001e943"
)
DEEPSEEK_MARKS = r"!-/:-~\u2018-\u201f\u3000-\u3002\uff01-\uff0f\uff1a-\uff5e"
DEEPSEEK_HAN = r"\u0800-\u9fa5\uac00-\ud7ff"

# names in files -> patterns, each of which cuts what the ones before left whole into its matches and what is between
_PATTERNS: dict[str, tuple[str, ...]] = {
    "gpt-2 default mpt gpt-neox olmo phi-2 jais trillion granite-docling gigachat a.x-4.0 mellum exaone4": (
        _GPT2,
    ),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": (r"\p{N}", _GPT2),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe glm4 chatglm-bpe": (
        _LLAMA3.replace("DIGITS", "3"),
    ),
    "qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan solar-open grok-2 kormo": (
        _LLAMA3.replace("DIGITS", "1"),
    ),
    "falcon": (r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]"),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", f"[{DEEPSEEK_HAN}]+", r"\p{N}"),
    "deepseek-llm": (
        r"[\r\n]", rf"\s?[{DEEPSEEK_CASED}]+", rf"\s?[{DEEPSEEK_MARKS}]+", r"\s+$", f"[{DEEPSEEK_HAN}]+", r"\p{N}+",
    ),
}  # fmt: skip
# a word that is a token is not merged from its bytes
_WHOLE_WORDS = frozenset(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"))


def _patterns(pre: str) -> tuple[str, ...]:
    for names, patterns in _PATTERNS.items():
        if (pre or "default") in names.split():
            return patterns
    known = ", ".join(PRE_TOKENIZERS)
    raise ParametersError(f"tokenizer.ggml.pre names the pre-tokenizer {pre[:40]!r}; known are {known}")


def cut(text: str, patterns: Sequence[str]) -> list[str]:
    """The words of a text; joined they are the text."""
    words = [text] if text else []
    for pattern in patterns:
        words = [part for word in words for part in _split(pattern, word)]
    return words


def _split(pattern: str, text: str) -> Iterator[str]:
    end = 0
    # $ is the end of the text alone here: newlines are cut off by an earlier pattern
    for found in regex.finditer(pattern, text):
        if found.start() > end:
            yield text[end : found.start()]
        yield found.group()
        end = found.end()
    if end < len(text):
        yield text[end:]


class ReferenceTokenizer:
    """Text to tokens and back. Read-only once made. Raises ParametersError for an unknown pre-tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = v = vocabulary
        self._types = list(v.types)
        self._pieces = [v.token_bytes(i, special=True) for i in range(len(v.tokens))]
        for token in (v.bos, v.eos, v.eot):
            # control tokens even where a careless file has them as normal ones, unless they are a single byte: small
            # vocabularies without such tokens may say 0 and mean nothing by it
            if token is not None and len(v.tokens[token].encode()) > 1:
                self._types[token], self._pieces[token] = TokenType.CONTROL, v.tokens[token].encode()
        self._unk = None if v.unk is None or self._types[v.unk] == TokenType.CONTROL else v.unk
        self._normal: dict[bytes, int] = {}
        self._byte: dict[int, int] = {}
        for wanted in (TokenType.NORMAL, TokenType.BYTE):
            for i, (piece, kind) in enumerate(zip(self._pieces, self._types, strict=True)):
                if kind == wanted == TokenType.NORMAL and piece:
                    self._normal.setdefault(piece, i)
                if kind == wanted and len(piece) == 1:
                    self._byte.setdefault(piece[0], i)
        self.patterns: tuple[str, ...] = ()
        self._ranks: dict[tuple[bytes, bytes], int] = {}
        if v.model == "gpt2":
            self.patterns = _patterns(v.pre)
            self._read_merges()
        names: dict[bytes, int] = {}
        for i, kind in enumerate(self._types):
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED) and self._pieces[i]:
                names.setdefault(self._pieces[i], i)
        self._literals = names
        self._any_literal = _longest(names)
        self._user_literal = _longest(n for n, i in names.items() if self._types[i] == TokenType.USER_DEFINED)

    def encode(self, text: str | bytes, *, special: bool = False) -> list[int]:
        """Tokens of a text, without BOS and EOS. `special`: names of control tokens become control tokens."""
        data = text.encode() if isinstance(text, str) else text
        literals = self._any_literal if special else self._user_literal
        tokens: list[int] = []
        end = 0
        for found in literals.finditer(data):
            tokens += self._plain(data[end : found.start()])
            tokens.append(self._literals[found.group()])
            end = found.end()
        return tokens + self._plain(data[end:])

    def decode(self, tokens: Sequence[int], *, special: bool = False, skip_space: bool = False) -> bytes:
        """The bytes of tokens. `special`: control tokens appear as their names, else as nothing. `skip_space`: drop
        the space that a `llama` vocabulary adds in front of a text. Raises ValueError for an id that is no token."""
        skip = skip_space and self.vocabulary.model == "llama" and self.vocabulary.add_space_prefix
        text = b""
        parts: list[bytes] = []
        for token in tokens:
            if not 0 <= token < len(self._pieces):
                raise ValueError(f"token {token} is outside the vocabulary of {len(self._pieces)}")
            plain = self._types[token] in (TokenType.NORMAL, TokenType.BYTE)
            if plain or special or self._types[token] == TokenType.USER_DEFINED:
                text = self._pieces[token]
                parts.append(text[1:] if skip and plain and text[:1] == b" " else text)
                skip = skip and not text
        return b"".join(parts)

    def _read_merges(self) -> None:
        written = {character: bytes([byte]) for byte, character in enumerate(byte_characters())}
        for rank, merge in enumerate(self.vocabulary.merges):
            middle = merge.index(" ", 1)
            left, right = (
                b"".join(written.get(c) or c.encode() for c in part) for part in (merge[:middle], merge[middle + 1 :])
            )
            if {left, right, left + right} <= self._normal.keys():
                self._ranks.setdefault((left, right), rank)

    def _plain(self, data: bytes) -> list[int]:
        """Tokens of a stretch of text without names."""
        if not data:
            return []
        text = data.decode("utf-8", "surrogateescape")  # a byte that is not UTF-8 is one character of no class
        if self.vocabulary.model == "llama":
            text = " " * self.vocabulary.add_space_prefix + text.replace("\u2581", " ")
            return self._emit(_merge([_bytes(c) for c in text], self._score))
        tokens: list[int] = []
        for word in map(_bytes, cut(text, self.patterns)):
            whole = self._normal.get(word) if self.vocabulary.pre in _WHOLE_WORDS else None
            if whole is not None:
                tokens.append(whole)
            else:
                tokens += self._emit(_merge([word[i : i + 1] for i in range(len(word))], self._rank))
        return tokens

    def _score(self, left: bytes, right: bytes) -> float | None:
        token = self._normal.get(left + right)
        if token is None:
            return None
        score = self.vocabulary.scores[token]
        return math.inf if math.isnan(score) else -score

    def _rank(self, left: bytes, right: bytes) -> float | None:
        return self._ranks.get((left, right))

    def _emit(self, parts: list[bytes]) -> list[int]:
        tokens: list[int | None] = []
        for part in parts:
            if part in self._normal:
                tokens.append(self._normal[part])
            else:  # byte by byte; a byte without a token is unknown
                tokens += [self._byte.get(byte, self._unk) for byte in part]
        return [token for token in tokens if token is not None]


def _longest(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """A pattern that finds the longest name at each place."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(b"|".join(map(re.escape, longest_first)) or b"(?!)")


def _merge(parts: list[bytes], cost: Callable[[bytes, bytes], float | None]) -> list[bytes]:
    """Join neighbours, the cheapest pair first and of equals the leftmost, until no pair has a cost."""
    after = [*range(1, len(parts)), -1]
    before = list(range(-1, len(parts) - 1))
    heap: list[tuple[float, int, bytes]] = []

    def propose(left: int, right: int) -> None:
        if left >= 0 and right >= 0 and (found := cost(parts[left], parts[right])) is not None:
            heapq.heappush(heap, (found, left, parts[left] + parts[right]))

    for i in range(len(parts) - 1):
        propose(i, i + 1)
    while heap:
        _, left, joined = heapq.heappop(heap)
        right = after[left]
        if not parts[left] or right < 0 or parts[left] + parts[right] != joined:
            continue  # stale: one of them has been merged since
        parts[left], parts[right] = joined, b""
        after[left] = after[right]
        if after[left] >= 0:
            before[after[left]] = left
        propose(before[left], left)
        propose(left, after[left])
    return [part for part in parts if part]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
