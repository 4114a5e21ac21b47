"""A byte-level BPE vocabulary, learned from documents.

The pre-tokenizer is the one that llama.cpp calls `qwen2`, without a Unicode normaliser, so that every text comes back
byte for byte; plain text can never become a control token. Ids: control tokens first, then the 256 bytes, then merges
in the order learned. Cost: memory for the distinct words of the documents; `tokenizers` does the counting.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from twofile.errors import TrainError
from twofile.params.vocabulary import TokenType, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

__all__ = ["BYTES", "SPECIAL", "check", "learn", "tokenizer"]

SPECIAL = (
    "<|endoftext|>",  # the separator of documents: bos and eos
    "<|im_start|>", "<|im_end|>",  # turns of a chat
    "<|tool_call|>", "<|/tool_call|>", "<|think|>", "<|/think|>",
    "<|image|>", "<|audio|>",
    "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>",
)  # fmt: skip
"""Control tokens. Pretraining writes the first alone; the others are kept for what is learned later."""
BYTES = 256 + len(SPECIAL)
"""The smallest vocabulary: single bytes and the control tokens."""

# llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_QWEN2
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _cut() -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    words = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def learn(texts: Iterable[str], size: int) -> Vocabulary:
    """Learn a vocabulary of exactly `size` tokens. TrainError when `size` is too small, or too large for the texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if size < BYTES:
        raise TrainError(f"a vocabulary of {size} has no room for 256 bytes and {len(SPECIAL)} control tokens")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = _cut()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    if len(model["vocab"]) != size:
        message = f"the texts give only {len(model['vocab'])} tokens, not {size}"
        raise TrainError(message, "use more text or a smaller vocabulary")
    kinds = [TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * (size - len(SPECIAL))
    return Vocabulary(
        model="gpt2",
        pre="qwen2",
        tokens=tuple(sorted(model["vocab"], key=model["vocab"].__getitem__)),
        types=tuple(int(kind) for kind in kinds),
        merges=tuple(" ".join(pair) for pair in model["merges"]),
        bos=0,
        eos=0,
        eot=SPECIAL.index("<|im_end|>"),
        add_bos=True,
    )


def tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """The fast tokenizer of a `qwen2` vocabulary, for whole corpora; it knows no control tokens."""
    from tokenizers import Tokenizer, models

    if vocabulary.model != "gpt2" or vocabulary.pre != "qwen2":
        given = f"{vocabulary.model}/{vocabulary.pre}"
        raise TrainError(f"texts can be packed for a gpt2/qwen2 tokenizer only, not for {given}")
    left_right = [(merge[: merge.index(" ", 1)], merge[merge.index(" ", 1) + 1 :]) for merge in vocabulary.merges]
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary.tokens)}, left_right))
    bpe.pre_tokenizer = _cut()
    return bpe


def check(vocabulary: Vocabulary, text: str, ids: Iterable[int]) -> None:
    """TrainError when the text does not come back byte for byte from its tokens, or one of them is a control token."""
    if b"".join(vocabulary.token_bytes(i) for i in ids) != text.encode():
        raise TrainError(f"the vocabulary does not give back the text {text[:40]!r}")
