"""How well a vocabulary fits its texts: bytes a token, tokens a word, the longest tokens, and those that never occur.

`usage` is the part "tokenizer" of a run's `corpus.json`; `words` says it on a terminal. Costs nothing beside packing,
which counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twofile.params.vocabulary import Vocabulary
    from twofile.train.pretrain.tokens import Packed

__all__ = ["usage", "words"]

_LONGEST, _UNUSED = 20, 100  # shown


def usage(vocabulary: Vocabulary, uses_V: NDArray[Any], sources: Mapping[str, Packed]) -> dict[str, Any]:
    """The report as a table. `uses_V`: how often each token occurs in the training text; `sources`: what was packed of
    each, without the separator at the end of a file. A token that was learned and never occurs stood only within longer
    ones; bytes that never occur are counted apart."""
    sizes = [len(vocabulary.token_bytes(i)) for i in range(len(vocabulary.tokens))]
    learned = [i for i, size in enumerate(sizes) if size > 1]
    idle = [i for i in learned if not uses_V[i]]
    longest = sorted(learned, key=lambda i: -sizes[i])[:_LONGEST]
    return {
        "pre": vocabulary.pre,
        "tokens": len(sizes),
        "sources": {name: _fertility(packed) for name, packed in sources.items()},
        "longest": [_text(vocabulary, i) for i in longest],
        "never_used": len(idle),
        "never_used_first": [_text(vocabulary, i) for i in idle[:_UNUSED]],
        "bytes_never_used": sum(size == 1 and not uses_V[i] for i, size in enumerate(sizes)),
    }


def _fertility(packed: Packed) -> dict[str, float | None]:
    tokens = packed.tokens - packed.documents
    return {
        "bytes_per_token": round(packed.bytes / tokens, 3) if tokens else None,
        "tokens_per_word": round(tokens / packed.words, 3) if packed.words else None,
    }


def _text(vocabulary: Vocabulary, token: int) -> str:
    return vocabulary.token_bytes(token).decode(errors="backslashreplace")


def _quoted(texts: list[str]) -> str:
    return " ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def words(found: Mapping[str, Any]) -> list[str]:
    """The report in lines."""
    lines = [
        f"{name}: {each['bytes_per_token']:.2f} bytes a token, {each['tokens_per_word']:.2f} tokens a word"
        for name, each in found["sources"].items()
        if each["bytes_per_token"] and each["tokens_per_word"]
    ]
    lines.append(f"longest tokens: {_quoted(found['longest'][:8])}")
    lines.append(f"{found['never_used']:,} of {found['tokens']:,} tokens never occur in the training text")
    return lines
