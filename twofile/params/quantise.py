"""A parameters file in a smaller (or larger) type.

Tensor by tensor, so that the memory taken is that of the largest tensor in float32. A tensor that already has its type
is copied as it is; every metadata key is kept, with the lineage one stage longer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_VERSION
from numpy.typing import NDArray

from twofile.params.blocks import encode
from twofile.params.mixture import FILE_TYPES, file_type, plan
from twofile.params.parameters import Parameters
from twofile.params.write import Progress, field, write_container

__all__ = ["FILE_TYPES", "quantise"]

_WHOLE = ("F32", "F16", "BF16")


def quantise(source: Path | str, target: Path | str, type: str, progress: Progress | None = None) -> None:
    """Write `source` in another type (one of FILE_TYPES) to `target`, which may be the same path.

    Warns (UserWarning) where the source is quantised already, for the errors of both add up, and where rows do not fill
    the type's blocks (mixture.plan). Raises ParametersError for a source or target that cannot be read or written."""
    with Parameters.open(source) as parameters:
        layout = plan(parameters.hyper, type)
        lossy = {info.type for name, info in parameters.tensors.items() if info.type not in (*_WHOLE, layout[name][1])}
        if lossy:
            warnings.warn(
                f"{source} is quantised already ({', '.join(sorted(lossy))}), and what that lost stays lost:"
                " better start from the original",
                UserWarning,
                stacklevel=2,
            )

        def pieces() -> Iterator[tuple[str, NDArray[np.uint8]]]:
            for name, (_, kind) in layout.items():
                if parameters.tensors[name].type == kind:
                    yield name, parameters.raw(name)
                else:
                    yield name, encode(parameters.read(name), kind, f"the tensor {name}")

        provenance = parameters.provenance.then(f"quantise {type}", parent=parameters.sha256())
        kept = {
            key: value
            for key, value in parameters.typed_metadata.items()
            if key not in ("general.architecture", "twofile.command", "twofile.commit") and value.value != []
        }
        changed = provenance.to_metadata() | {
            "general.file_type": file_type(type),
            "general.quantization_version": GGML_QUANT_VERSION,
        }
        fields = kept | {key: field(value) for key, value in changed.items()}
        write_container(target, parameters.hyper.architecture, fields, layout, pieces(), progress=progress)
