"""Tiny random models for tests: every family, both kinds of vocabulary, some 100 KB each, written in milliseconds.

    path = tiny_parameters("qwen3", "Q8_0", 1, tmp_path / "tiny.gguf")
    path = tiny_spm_parameters("F32", 1, tmp_path / "tiny.gguf")

Further keywords replace hyperparameters: `tiny_parameters("llama", "F32", 1, path, tied=True)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from twofile.params.hyper import Architecture, Hyperparameters
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import TokenType, Vocabulary, byte_characters
from twofile.params.write import write

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
WORDS = ("the", "he", "and", "in", "er", "on", "once", "upon", "time", "was", "little", "girl", "ing", "day", "to")


def tiny_vocabulary(pre: str = "qwen2") -> Vocabulary:
    """Byte-level: 256 bytes, the merges that build WORDS with and without a space before, three control tokens."""
    tokens = list(byte_characters())
    merges: list[str] = []
    for word in (*WORDS, *("Ġ" + word for word in WORDS)):
        left = word[0]
        for character in word[1:]:
            if left + character not in tokens:
                tokens.append(left + character)
                merges.append(f"{left} {character}")
            left += character
    types = [TokenType.NORMAL] * len(tokens) + [TokenType.CONTROL] * 3
    end = len(tokens)
    tokens += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return Vocabulary(
        model="gpt2", pre=pre, tokens=tuple(tokens), types=tuple(types), merges=tuple(merges),
        bos=end, eos=end, eot=end + 2, pad=end, chat_template=CHATML,
    )  # fmt: skip


def tiny_spm_vocabulary() -> Vocabulary:
    """SentencePiece-style: <unk>, <s>, </s>, 256 bytes, letters and the pieces that build WORDS, best score first."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256]
    pieces = [word[:n] for word in (*("▁" + word for word in WORDS), *WORDS) for n in range(2, len(word) + 1)]
    pieces = [*dict.fromkeys(pieces), "▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?'é", "\u4f60"]
    return Vocabulary(
        model="llama", pre="default", tokens=(*tokens, *pieces), types=(*types, *[TokenType.NORMAL] * len(pieces)),
        scores=(*[0.0] * len(tokens), *(-float(n) for n in range(len(pieces)))),
        bos=1, eos=2, unk=0, add_bos=True, add_space_prefix=True,
    )  # fmt: skip


def tiny_hyper(architecture: str, vocabulary: Vocabulary, *, wide: bool = False, **changes: Any) -> Hyperparameters:
    """`wide`: rows of 256 and 512 numbers, as the K types need, rather than 64 and 128."""
    dim = 256 if wide else 64
    values: dict[str, Any] = {
        "vocab_size": len(vocabulary.tokens), "context_length": 128, "dim": dim, "n_layers": 2, "n_heads": 4,
        "n_kv_heads": 2, "head_dim": 32 if architecture == "qwen3" and not wide else dim // 4, "ffn_dim": 2 * dim,
        "norm_eps": 1e-6 if architecture != "llama" else 1e-5, "tied": architecture == "qwen3",
    }  # fmt: skip
    return Hyperparameters(architecture=cast(Architecture, architecture), **(values | changes))


def tiny_tensors(hyper: Hyperparameters, seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Random weights of such sizes that logits are of order one and every part of the model matters."""
    random = np.random.default_rng(seed)
    for name, shape in hyper.shapes().items():
        if name == "rope_freqs.weight":
            continue
        x = random.standard_normal(shape).astype(np.float32)
        if name.endswith("norm.weight"):
            x = 1 + 0.2 * x
        elif name.endswith(".bias"):
            x *= 0.3
        elif name != "token_embd.weight":
            x *= 1.5 / np.sqrt(shape[-1])
        yield name, x.astype(np.float32)


def tiny_parameters(architecture: str, type: str, seed: int, path: Path, *, pre: str = "qwen2", **changes: Any) -> Path:
    """Write a tiny model with a byte-level vocabulary; gives `path` back."""
    return _write(tiny_vocabulary(pre), architecture, type, seed, path, changes)


def tiny_spm_parameters(type: str, seed: int, path: Path, *, architecture: str = "llama", **changes: Any) -> Path:
    """Write a tiny model with a SentencePiece-style vocabulary; gives `path` back."""
    return _write(tiny_spm_vocabulary(), architecture, type, seed, path, changes)


def _write(
    vocabulary: Vocabulary, architecture: str, type: str, seed: int, path: Path, changes: dict[str, Any]
) -> Path:
    hyper = tiny_hyper(architecture, vocabulary, **({"wide": "_K" in type} | changes))
    provenance = Provenance(name=f"tiny {architecture}", license="apache-2.0", stages=("random weights",))
    write(path, hyper, vocabulary, tiny_tensors(hyper, seed), type=type, provenance=provenance)
    return path
