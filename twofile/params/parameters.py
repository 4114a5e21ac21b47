"""Reading a parameters file: what it says of itself, and its tensors as they are asked for.

`Parameters.open` checks everything before it returns: the container (container.py), every metadata key that is used,
and that the tensors are exactly those of the hyperparameters. It reads the header only; weights stay in the file,
mapped into memory, until `read` gives one as float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from gguf.gguf_writer import GGUFValue
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.blocks import decode
from twofile.params.checksum import file_sha256
from twofile.params.container import Container
from twofile.params.hyper import Hyperparameters
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import Vocabulary

__all__ = ["Parameters", "TensorInfo", "read_vocabulary"]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file: `shape` row-major (rows first), `type` as in blocks.TYPES, `offset` from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    offset: int


class Parameters:
    """An open parameters file. Use as a context manager, or `close` it. Safe to read from several threads."""

    def __init__(self, path: Path | str) -> None:
        """Raises ParametersError, naming the field, for a file that is damaged or of a family that is not supported."""
        self.path = Path(path)
        container = Container(path)
        self._data: NDArray[np.uint8] | None = np.asarray(container.data)
        self.tensors: dict[str, TensorInfo] = {
            t.name: TensorInfo(
                t.name, tuple(int(n) for n in reversed(t.shape)), t.tensor_type.name, int(t.n_bytes), int(t.data_offset)
            )
            for t in container.tensors
        }
        try:
            self.typed_metadata: dict[str, GGUFValue] = container.values()
            self.metadata: dict[str, Any] = {key: value.value for key, value in self.typed_metadata.items()}
            if self.metadata.get("general.type") == "adapter":
                raise ParametersError("it is an adapter, which changes a model and is none", "name it with --adapter")
            self.hyper = self._hyper()
            self.vocabulary = Vocabulary.from_metadata(self.metadata)
            self._check()
        except ParametersError as error:
            raise ParametersError(f"{path} cannot be used: {error.message}", error.hint) from error
        self.provenance = Provenance.from_metadata(self.metadata)
        self._sha256 = ""

    @classmethod
    def open(cls, path: Path | str) -> Parameters:
        """Open a file by its path (see names.resolve for names)."""
        return cls(path)

    def __enter__(self) -> Parameters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; what `read` gave stays valid."""
        self._data = None

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, flat, mapped from the file. Raises KeyError for a name that is not there."""
        info = self.tensors[name]
        if self._data is None:
            raise ValueError(f"{self.path} is closed")
        return self._data[info.offset : info.offset + info.bytes]

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor as float32 of its shape, dequantised, a copy. Raises KeyError for a name that is not there."""
        info = self.tensors[name]
        return decode(self.raw(name), info.type, info.shape)

    def sha256(self) -> str:
        """The checksum of the whole file, in hexadecimal. Reads it once (about a second a gigabyte)."""
        if not self._sha256:
            self._sha256 = file_sha256(self.path)
        return self._sha256

    def _hyper(self) -> Hyperparameters:
        embedding = self.tensors.get("token_embd.weight")
        factors = self.tensors.get("rope_freqs.weight")
        if factors is not None and factors.bytes > 1 << 20:
            raise ParametersError(f"the tensor rope_freqs.weight has the shape {factors.shape}")
        return Hyperparameters.from_metadata(
            self.metadata,
            vocab_size=embedding.shape[0] if embedding else 1,  # without one _check says so
            tied="output.weight" not in self.tensors,
            rope_factors=tuple(self.read("rope_freqs.weight").ravel().tolist()) if factors else None,
        )

    def _check(self) -> None:
        """That the tensors are those of the hyperparameters, for then every index into them is within bounds."""
        if self.hyper.n_layers > len(self.tensors):
            raise ParametersError(
                f"{self.hyper.architecture}.block_count is {self.hyper.n_layers}, of {len(self.tensors)} tensors in all"
            )
        shapes = self.hyper.shapes()
        for name, shape in shapes.items():
            if name not in self.tensors:
                raise ParametersError(f"the tensor {name} is missing")
            if self.tensors[name].shape != shape:
                raise ParametersError(f"the tensor {name} has the shape {self.tensors[name].shape}, not {shape}")
        unknown = self.tensors.keys() - shapes.keys()
        if unknown:
            raise ParametersError(
                f"the tensor {min(unknown)} is not part of the {self.hyper.architecture} models that are supported"
            )
        n_tokens = len(self.vocabulary.tokens)
        if n_tokens != self.hyper.vocab_size:
            raise ParametersError(
                f"tokenizer.ggml.tokens has {n_tokens} entries, token_embd.weight {self.hyper.vocab_size}"
            )


def read_vocabulary(path: Path | str) -> Vocabulary:
    """The vocabulary alone, from any GGUF file that has a supported one, also one without tensors."""
    try:
        return Vocabulary.from_metadata({key: value.value for key, value in Container(path).values().items()})
    except ParametersError as error:
        raise ParametersError(f"{path} cannot be used: {error.message}", error.hint) from error
