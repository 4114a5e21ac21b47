"""What a parameters file is, in a form for people: the answer of `twofile show`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from twofile.params.hyper import Hyperparameters
from twofile.params.parameters import Parameters, TensorInfo
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import TokenType

__all__ = ["Description", "describe"]

_TEMPLATES = (
    ("<|im_start|>", "ChatML"),
    ("<|start_header_id|>", "Llama 3"),
    ("<|user|>", "Zephyr"),
    ("<start_of_turn>", "Gemma"),
    ("<<SYS>>", "Llama 2"),
    ("[INST]", "Mistral"),
)


@dataclass(frozen=True)
class TypeSize:
    """All tensors of one type together."""

    type: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Description:
    """What `twofile show` prints. `types` is sorted by size, the largest first."""

    path: str
    bytes: int
    sha256: str
    name: str
    hyper: Hyperparameters
    n_parameters: int
    bits_per_weight: float
    types: tuple[TypeSize, ...]
    tensors: tuple[TensorInfo, ...]
    tokenizer: str
    special: dict[str, str]
    chat_template: str
    provenance: Provenance


def describe(parameters: Parameters, *, checksum: bool = True) -> Description:
    """Describe an open file. The checksum reads the whole file (about a second a gigabyte); "" without it."""
    sizes: dict[str, TypeSize] = {}
    for info in parameters.tensors.values():
        old = sizes.get(info.type, TypeSize(info.type, 0, 0, 0))
        n = math.prod(info.shape)
        sizes[info.type] = TypeSize(info.type, old.tensors + 1, old.parameters + n, old.bytes + info.bytes)
    weights, n_bytes = (sum(getattr(size, key) for size in sizes.values()) for key in ("parameters", "bytes"))
    vocabulary = parameters.vocabulary
    kind = f"byte-level BPE ({vocabulary.pre})" if vocabulary.model == "gpt2" else "SentencePiece BPE"
    control = sum(kind == TokenType.CONTROL for kind in vocabulary.types)
    special = {name: getattr(vocabulary, name) for name in ("bos", "eos", "eot", "unk", "pad")}
    return Description(
        path=str(parameters.path),
        bytes=parameters.path.stat().st_size,
        sha256=parameters.sha256() if checksum else "",
        name=parameters.provenance.name,
        hyper=parameters.hyper,
        n_parameters=parameters.hyper.n_parameters,
        bits_per_weight=8 * n_bytes / weights,
        types=tuple(sorted(sizes.values(), key=lambda size: -size.bytes)),
        tensors=tuple(parameters.tensors.values()),
        tokenizer=f"{kind}, {len(vocabulary.tokens)} tokens, {control} of them control",
        special={name: vocabulary.tokens[token] for name, token in special.items() if token is not None},
        chat_template=template_family(vocabulary.chat_template),
        provenance=parameters.provenance,
    )


def template_family(template: str | None) -> str:
    """The name by which a chat template's way of marking turns is known."""
    if template is None:
        return "none (a base model: it continues texts)"
    return next((name for mark, name in _TEMPLATES if mark in template), "of its own")
