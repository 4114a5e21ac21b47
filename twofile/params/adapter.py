"""An adapter: low-rank changes (LoRA) to the matrices of a model's layers, in a GGUF file of its own.

The change of a matrix W of n x m is alpha / r * B A, with A (`lora_a`) of r x m and B (`lora_b`) of n x r. The file is
that which llama.cpp applies with `--lora`, and the program with the same option; it may bring the chat template that
was learned. `Adapter.open` checks the container and that every A has its B; `check`, that they fit a model. Cost: the
adapter in memory; `merge` takes the largest matrix more.

Source: arXiv:2106.09685.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.blocks import decode
from twofile.params.container import Container
from twofile.params.hyper import Hyperparameters
from twofile.params.mixture import FILE_TYPES, file_type
from twofile.params.parameters import Parameters
from twofile.params.provenance import Provenance
from twofile.params.write import Progress, write, write_container
from twofile.params.write import field as typed

__all__ = ["CHAT_TEMPLATE", "MATRICES", "Adapter", "merge"]

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""What an adapter can change in a layer."""

CHAT_TEMPLATE = "tokenizer.chat_template"
_SUFFIXES = (".lora_a", ".lora_b")

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Adapter:
    """`pairs`: (A, B) of each matrix that is changed, by its name in a parameters file. `chat_template`: "" for none;
    `path`: "" where it was not read from a file. The base it was learned on is `provenance.parent`, a checksum."""

    architecture: str
    alpha: float
    pairs: Mapping[str, tuple[Array, Array]]
    provenance: Provenance = field(default_factory=Provenance)
    chat_template: str = ""
    path: str = ""

    @classmethod
    def open(cls, path: Path | str) -> Adapter:
        """Read an adapter. ParametersError, naming what is wrong, for a file that is none."""
        container = Container(path)
        metadata = {key: value.value for key, value in container.values().items()}
        if metadata.get("general.type") != "adapter" or metadata.get("adapter.type") != "lora":
            raise ParametersError(f"{path} is not an adapter", f"twofile show {path}")
        tensors = {t.name: t for t in container.tensors}
        names = {name.removesuffix(suffix) for name in tensors for suffix in _SUFFIXES if name.endswith(suffix)}
        if alone := tensors.keys() - {name + suffix for name in names for suffix in _SUFFIXES}:
            raise ParametersError(f"{path} cannot be used: the tensor {min(alone)} is not part of a low-rank change")

        def read(name: str) -> Array:
            if name not in tensors:
                raise ParametersError(f"{path} cannot be used: the tensor {name} is missing")
            it = tensors[name]
            shape = tuple(int(n) for n in reversed(it.shape))
            if len(shape) != 2:
                raise ParametersError(f"{path} cannot be used: the tensor {name} has the shape {shape}")
            start = int(it.data_offset)
            data = np.asarray(container.data[start : start + int(it.n_bytes)])
            return decode(data, it.tensor_type.name, shape)

        pairs = {name: (read(name + ".lora_a"), read(name + ".lora_b")) for name in sorted(names)}
        alpha, template = metadata.get("adapter.lora.alpha", 0.0), metadata.get(CHAT_TEMPLATE, "")
        if not isinstance(alpha, float | int) or not abs(alpha) < float("inf") or not isinstance(template, str):
            raise ParametersError(f"{path} cannot be used: adapter.lora.alpha or {CHAT_TEMPLATE} is of the wrong type")
        lineage = Provenance.from_metadata(metadata)
        return cls(str(metadata.get("general.architecture", "")), float(alpha), pairs, lineage, template, str(path))

    @staticmethod
    def is_in(path: Path | str) -> bool:
        """Whether a GGUF file holds an adapter. ParametersError for one that cannot be read."""
        kind = Container(path).fields.get("general.type")
        return kind is not None and kind.contents() == "adapter"

    def check(self, hyper: Hyperparameters) -> None:
        """ParametersError where this is no change of a model of `hyper`."""
        if self.architecture != hyper.architecture:
            message = f"the adapter is for the architecture {self.architecture}, the model is of {hyper.architecture}"
            raise ParametersError(message, "take the model that it was made for")
        shapes = {f"blk.{i}.{matrix}.weight" for i in range(hyper.n_layers) for matrix in MATRICES}
        wanted = {name: shape for name, shape in hyper.shapes().items() if name in shapes}
        for name, (a, b) in self.pairs.items():
            if name not in wanted:
                raise ParametersError(f"the adapter changes {name}, which is no matrix of this model's layers")
            if a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != wanted[name]:
                raise ParametersError(f"the adapter changes {name} by {b.shape} times {a.shape}; it is {wanted[name]}")

    def change(self, name: str) -> Array:
        """What is added to a matrix. KeyError for one that is not changed."""
        a, b = self.pairs[name]
        scale = np.float32(self.alpha / len(a) if self.alpha else 1.0)
        return np.asarray((scale * b) @ a, np.float32)

    def write(self, path: Path | str) -> None:
        """Write it, in float32. ParametersError for a tensor that is not finite."""
        tensors = {
            name + suffix: np.ascontiguousarray(part, np.float32)
            for name, pair in self.pairs.items()
            for suffix, part in zip(_SUFFIXES, pair, strict=True)
        }
        if bad := [name for name, x in tensors.items() if not np.isfinite(x).all()]:
            raise ParametersError(f"the tensor {bad[0]} holds numbers that are not finite")
        fields = {
            "general.type": "adapter",
            **self.provenance.to_metadata(),
            "general.file_type": file_type("F32"),
            "adapter.type": "lora",
            "adapter.lora.alpha": float(self.alpha),
            **({CHAT_TEMPLATE: self.chat_template} if self.chat_template else {}),
        }
        layout = {name: (x.shape, "F32") for name, x in tensors.items()}
        pieces = ((name, x.ravel().view(np.uint8)) for name, x in tensors.items())
        write_container(path, self.architecture, {k: typed(v) for k, v in fields.items()}, layout, pieces)


def merge(
    base: Path | str,
    adapter: Path | str,
    target: Path | str,
    *,
    type: str = "",
    name: str = "",
    command: str = "",
    progress: Progress | None = None,
) -> None:
    """Write `base` with the changes of `adapter` in it. `type`: one of FILE_TYPES; "": that of the base.

    Warns (UserWarning) where the adapter was learned on another file. ParametersError where it does not fit."""
    learned = Adapter.open(adapter)
    with Parameters.open(base) as parameters:
        learned.check(parameters.hyper)
        if learned.provenance.parent not in ("", parameters.sha256()):
            warnings.warn(f"{adapter} was learned on another file than {base}", UserWarning, stacklevel=2)
        kinds = {file_type(kind): kind for kind in FILE_TYPES}
        type = type or kinds.get(parameters.metadata.get("general.file_type", -1), "F32")

        def tensors() -> Iterator[tuple[str, NDArray[np.floating]]]:
            for tensor in parameters.tensors:
                if tensor != "rope_freqs.weight":
                    x = parameters.read(tensor)
                    yield tensor, x + learned.change(tensor) if tensor in learned.pairs else x

        vocabulary = parameters.vocabulary
        if learned.chat_template:
            vocabulary = vocabulary.with_template(learned.chat_template)
        of_base = learned.provenance.parent == parameters.sha256()  # then it has all that the base has, and its own
        lineage = (learned.provenance if of_base else parameters.provenance).then(
            f"merge {type}", parent=parameters.sha256(), command=command
        )
        lineage = lineage.extended(name=name)
        write(target, parameters.hyper, vocabulary, tensors(), type=type, provenance=lineage, progress=progress)
