"""Writing a parameters file: GGUF v3 with hyperparameters, vocabulary, provenance and tensors.

The container is written by the `gguf` package, the tensors are put into their places as they come, one at a time and in
any order. The file appears whole or not at all (atomic.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType
from gguf.gguf_writer import GGUFValue, GGUFWriter
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.atomic import atomic_path
from twofile.params.blocks import encode, size
from twofile.params.hyper import Hyperparameters
from twofile.params.mixture import file_type, plan
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import Vocabulary

__all__ = ["Progress", "write", "write_container"]

Progress = Callable[[int, int], None]
"""Called with the bytes written and the bytes to write, after each tensor."""


def write(
    path: Path | str,
    hyper: Hyperparameters,
    vocabulary: Vocabulary,
    tensors: Mapping[str, NDArray[np.floating]] | Iterable[tuple[str, NDArray[np.floating]]],
    *,
    type: str = "F32",
    provenance: Provenance | None = None,
    more: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a parameters file. `tensors`: float arrays under their GGUF names with the shapes of `hyper.shapes()`,
    without rope_freqs.weight, which `hyper.rope_factors` gives; pairs may come in any order, and a generator is taken
    one by one. `type`: one of mixture.FILE_TYPES. `more`: metadata of the caller's own.

    Raises ParametersError for a tensor that is missing, unknown, given twice, of another shape or not finite."""
    if len(vocabulary.tokens) != hyper.vocab_size:
        raise ParametersError(f"the vocabulary has {len(vocabulary.tokens)} tokens, the model {hyper.vocab_size}")
    layout = plan(hyper, type)
    fields = {
        "general.type": "model",
        **(provenance or Provenance()).to_metadata(),
        "general.file_type": file_type(type),
        "general.quantization_version": GGML_QUANT_VERSION,
        **hyper.to_metadata(),
        **vocabulary.to_metadata(),
        **(more or {}),
    }

    def pieces() -> Iterable[tuple[str, NDArray[np.uint8]]]:
        if hyper.rope_factors is not None:
            yield "rope_freqs.weight", np.array(hyper.rope_factors, np.float32).view(np.uint8)
        for name, x in tensors.items() if isinstance(tensors, Mapping) else tensors:
            if name not in layout:
                raise ParametersError(
                    f"the tensor {name} is not part of a {hyper.architecture} model of these hyperparameters"
                )
            shape, kind = layout[name]
            if x.shape != shape:
                raise ParametersError(f"the tensor {name} has the shape {x.shape}, not {shape}")
            yield name, encode(x, kind, f"the tensor {name}")

    write_container(
        path, hyper.architecture, {k: field(v) for k, v in fields.items()}, layout, pieces(), progress=progress
    )


def write_container(
    path: Path | str,
    architecture: str,
    fields: Mapping[str, GGUFValue],
    layout: Mapping[str, tuple[tuple[int, ...], str]],
    pieces: Iterable[tuple[str, NDArray[np.uint8]]],
    *,
    progress: Progress | None = None,
) -> None:
    """Write a GGUF file: `fields` (general.architecture apart), the tensors of `layout` (name to shape and type), and
    their bytes, which `pieces` gives in any order.

    Raises ParametersError for a tensor that is missing, unknown or given twice."""
    with atomic_path(path) as temporary:
        writer = GGUFWriter(temporary, architecture)
        for key, value in fields.items():
            writer.add_key_value(key, value.value, value.type, value.sub_type)
        alignment = fields.get("general.alignment")
        if alignment is not None:
            writer.data_alignment = alignment.value
        offsets: dict[str, int] = {}
        end = 0
        for name, (shape, kind) in layout.items():
            n_bytes = size(kind, shape)
            # gguf takes a shape for what it says unless the data are bytes, which are not at hand yet
            writer.add_tensor_info(name, shape, np.dtype(np.float32), n_bytes, raw_dtype=GGMLQuantizationType[kind])
            offsets[name] = end
            end += GGUFWriter.ggml_pad(n_bytes, writer.data_alignment)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        except UnicodeEncodeError as error:  # a lone surrogate, which JSON can name and UTF-8 cannot
            raise ParametersError(f"{error.object[:40]!r} is no text that can be written: {error.reason}") from error
        finally:
            writer.close()
        with open(temporary, "r+b") as file:
            start = GGUFWriter.ggml_pad(file.seek(0, 2), writer.data_alignment)
            file.truncate(start + end)
            total, done = sum(size(kind, shape) for shape, kind in layout.values()), 0
            missing = dict(offsets)
            for name, data in pieces:
                offset = missing.pop(name, None)
                if offset is None:
                    raise ParametersError(f"the tensor {name} is {'given twice' if name in offsets else 'unknown'}")
                file.seek(start + offset)
                file.write(data.data)
                done += data.nbytes
                if progress:
                    progress(done, total)
            if missing:
                raise ParametersError(
                    f"the tensor {next(iter(missing))} is missing ({len(missing)} of {len(layout)} are)"
                )


def field(value: Any) -> GGUFValue:
    """A Python value with the GGUF type under which llama.cpp's converters write it."""
    kinds = {
        bool: GGUFValueType.BOOL,
        int: GGUFValueType.UINT32,
        float: GGUFValueType.FLOAT32,
        str: GGUFValueType.STRING,
    }
    if isinstance(value, list):
        items = {int: GGUFValueType.INT32, float: GGUFValueType.FLOAT32, str: GGUFValueType.STRING}
        return GGUFValue(value, GGUFValueType.ARRAY, items[value[0].__class__])
    return GGUFValue(value, kinds[value.__class__])
