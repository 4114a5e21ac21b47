"""The vocabulary: the tokens a model knows and the rules by which text becomes them, as GGUF stores both.

Two kinds: `gpt2` (byte-level BPE: merges by rank; tokens are written with one printable character for each byte) and
`llama` (SentencePiece BPE: merges by score; tokens are UTF-8 with U+2581 for a space, and `<0x41>` for single bytes).
Control and user-defined tokens are written as their plain text in both. Needs nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Literal

from twofile.errors import ParametersError

__all__ = ["PRE_TOKENIZERS", "TokenType", "Vocabulary", "byte_characters"]

PRE_TOKENIZERS = (
    "gpt-2", "llama-bpe", "qwen2", "smollm", "starcoder", "refact", "falcon", "mpt", "command-r", "deepseek-llm",
    "deepseek-coder",
)  # fmt: skip
"""The rules by which byte-level text is cut before merging, under llama.cpp's names (`tokenizer.ggml.pre`)."""

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_PREFIX = "tokenizer.ggml."
_IDS = {"bos": "bos", "eos": "eos", "eot": "eot", "unk": "unknown", "pad": "padding"}


class TokenType(IntEnum):
    """The values of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@lru_cache(maxsize=1)
def byte_characters() -> tuple[str, ...]:
    """The character that stands for each of the 256 bytes in a `gpt2` vocabulary (from GPT-2's encoder.py)."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in kept else chr(next(moved)) for byte in range(256))


@lru_cache(maxsize=1)
def _character_bytes() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in GGUF spelling, their types, and how texts are cut into them.

    `scores` are for `llama` (higher merges first), `merges` ("left right", first merges first) and `pre` for `gpt2`.
    `eos` ends a text; `eot` is another token that ends a turn, where there is one."""

    model: Literal["llama", "gpt2"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    bos: int | None = None
    eos: int | None = None
    eot: int | None = None
    unk: int | None = None
    pad: int | None = None
    add_bos: bool = False
    add_space_prefix: bool = False
    chat_template: str | None = None
    add_eos: bool = False

    def __post_init__(self) -> None:
        n = len(self.tokens)
        if self.model not in ("llama", "gpt2"):
            raise ParametersError(
                f"the tokenizer {self.model!r} ({_PREFIX}model) is not supported (only 'llama' and 'gpt2')"
            )
        if n == 0:
            raise ParametersError(f"{_PREFIX}tokens is empty")
        if len(self.types) != n:
            raise ParametersError(f"{_PREFIX}token_type has {len(self.types)} entries for {n} tokens")
        if not set(self.types) <= set(TokenType):
            raise ParametersError(
                f"{_PREFIX}token_type has {(set(self.types) - set(TokenType)).pop()}, which is no token type"
            )
        if len(self.scores) != (n if self.model == "llama" else 0):
            raise ParametersError(f"{_PREFIX}scores has {len(self.scores)} entries for {n} tokens")
        for text, kind in zip(self.tokens, self.types, strict=True):
            if kind == TokenType.BYTE and not _BYTE.fullmatch(text):
                raise ParametersError(f"{_PREFIX}tokens has {text[:40]!r} for a byte, which must look like '<0x41>'")
        for merge in self.merges:
            if merge.find(" ", 1) in (-1, len(merge) - 1):
                raise ParametersError(
                    f"{_PREFIX}merges has {merge[:40]!r}, which is not two tokens with a space between"
                )
        for name, key in _IDS.items():
            token = getattr(self, name)
            if token is not None and not 0 <= token < n:
                raise ParametersError(f"{_PREFIX}{key}_token_id is {token}, outside the {n} tokens")

    def with_template(self, template: str) -> Vocabulary:
        """The same with another chat template; where that ends turns with `<|im_end|>`, so does the vocabulary."""
        end = "<|im_end|>"
        eot = self.tokens.index(end) if end in template and end in self.tokens else self.eot
        return replace(self, chat_template=template, eot=eot)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for in a text; control tokens stand for nothing unless `special`.

        A `llama` vocabulary's prefix space is kept. Raises ValueError for an id outside the vocabulary."""
        if not 0 <= token < len(self.tokens):
            raise ValueError(f"token {token} is outside the vocabulary of {len(self.tokens)}")
        text, kind = self.tokens[token], self.types[token]
        if kind == TokenType.BYTE:
            return bytes([int(text[3:-1], 16)])
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED):
            return text.encode() if special else b""
        if kind == TokenType.USER_DEFINED:
            return text.encode()
        if self.model == "llama":
            return text.replace("\u2581", " ").encode()
        table = _character_bytes()
        return b"".join(bytes([table[c]]) if c in table else c.encode() for c in text)

    def to_metadata(self) -> dict[str, Any]:
        """The GGUF keys."""
        keys: dict[str, Any] = {"model": self.model, "pre": self.pre, "tokens": list(self.tokens)}
        if self.scores:
            keys["scores"] = list(self.scores)
        keys["token_type"] = [int(kind) for kind in self.types]
        if self.merges:
            keys["merges"] = list(self.merges)
        for name, key in _IDS.items():
            if getattr(self, name) is not None:
                keys[f"{key}_token_id"] = getattr(self, name)
        keys |= {
            "add_bos_token": self.add_bos,
            "add_eos_token": self.add_eos,
            "add_space_prefix": self.add_space_prefix,
        }
        metadata = {_PREFIX + key: value for key, value in keys.items()}
        if self.chat_template is not None:
            metadata["tokenizer.chat_template"] = self.chat_template
        return metadata

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        """Read the GGUF keys, with llama.cpp's defaults for those that are absent.

        Raises ParametersError naming the key that is missing, mistyped or of the wrong length."""

        def get(key: str, kind: type, default: Any = None, item: type | tuple[type, ...] = object) -> Any:
            value = metadata.get(_PREFIX + key, default)
            if value is None and default is None and key in ("model", "tokens"):
                raise ParametersError(f"the metadata key {_PREFIX}{key} is missing")
            if value is not None and not isinstance(value, kind):
                raise ParametersError(f"the metadata key {_PREFIX}{key} is {type(value).__name__}, not {kind.__name__}")
            if isinstance(value, list) and not all(isinstance(entry, item) for entry in value):
                raise ParametersError(f"the metadata key {_PREFIX}{key} has entries of the wrong type")
            return value

        model = get("model", str)
        tokens: Sequence[str] = get("tokens", list, None, str)
        template = metadata.get("tokenizer.chat_template")
        if template is not None and not isinstance(template, str):
            raise ParametersError("the metadata key tokenizer.chat_template is not a text")
        pre = get("pre", str, "default")
        spm = model == "llama"
        return cls(
            model=model,
            pre=pre,
            tokens=tuple(tokens),
            types=tuple(get("token_type", list, [int(TokenType.NORMAL)] * len(tokens), int)),
            scores=tuple(get("scores", list, [0.0] * len(tokens), (float, int))) if spm else (),
            merges=tuple(get("merges", list, [], str)) if not spm else (),
            **{name: _absent(get(f"{key}_token_id", int)) for name, key in _IDS.items()},
            add_bos=get("add_bos_token", bool, spm or pre in ("llama3", "llama-v3", "llama-bpe")),
            add_eos=get("add_eos_token", bool, False),
            add_space_prefix=get("add_space_prefix", bool, spm),
            chat_template=template,
        )


def _absent(token: int | None) -> int | None:
    """llama.cpp's converters write 2^32-1 (or -1) where a vocabulary has no such token."""
    return None if token in (-1, 0xFFFFFFFF) else token
