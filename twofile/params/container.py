"""Reading the GGUF container, on any input, with the `gguf` package's reader.

That reader trusts what it reads: it takes lengths past the end of the file, multiplies dimensions until they wrap,
goes down nested arrays without end, and makes an array object of every number of an array (2.7 s and 200 MB for the
1.7 MB of GPT-2's vocabulary). `Container` puts a check before each of these and reads arrays whole. What it guarantees:
a file that is truncated, corrupted or hostile raises ParametersError naming the field, and no more memory is taken than
a small multiple of the header. Tensors stay in the file, mapped into memory.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFEndian, GGUFValueType
from gguf.gguf_reader import GGUFReader, ReaderField
from gguf.gguf_writer import GGUFValue
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.blocks import TYPES

__all__ = ["Container"]

_MOST_ENTRIES = 1 << 16  # metadata keys, or tensors: some 4,000 layers
_MOST_ITEMS = 1 << 24  # entries of one array: a hundred times the largest vocabularies


class Container(GGUFReader):
    """The fields and tensors of a GGUF file. `tensors` are gguf's ReaderTensor, each checked to lie within the file."""

    def __init__(self, path: Path | str) -> None:
        self._place = "the start of the file"
        self._texts: list[list[str]] = []  # the arrays of texts, in the order of the fields
        if not Path(path).is_file():  # a pipe would be waited for without end
            raise ParametersError(f"{path} {'is no file' if Path(path).exists() else 'does not exist'}", "twofile list")
        try:
            super().__init__(path)
        except ParametersError as error:
            raise ParametersError(f"{path} cannot be read: {error.message}") from error
        except UnicodeDecodeError as error:
            raise ParametersError(f"{path} cannot be read: at {self._place}: a text is not UTF-8") from error
        except (KeyError, ValueError, IndexError, TypeError, OverflowError) as error:
            raise ParametersError(f"{path} cannot be read: at {self._place}: {error.args[0]}") from error
        except OSError as error:
            raise ParametersError(f"{path} cannot be read: {error.strerror}") from error

    def values(self) -> dict[str, GGUFValue]:
        """The metadata, each value with its GGUF types. Arrays are lists."""
        result: dict[str, GGUFValue] = {}
        texts = iter(self._texts)
        for key, entry in self.fields.items():
            if key.startswith("GGUF."):
                continue
            kind, item = entry.types[0], entry.types[1] if len(entry.types) > 1 else None
            try:
                value = next(texts) if item == GGUFValueType.STRING else entry.contents()
            except UnicodeDecodeError as error:
                raise ParametersError(f"the metadata key {key} is a text that is not UTF-8") from error
            result[key] = GGUFValue(value, kind, item)
        return result

    # What follows replaces helpers of GGUFReader's constructor, keeping their contracts.

    def _fail(self, problem: str) -> ParametersError:
        return ParametersError(f"at {self._place}: {problem}")

    def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> NDArray[Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > self.data.size:
            raise self._fail(f"it goes on to byte {end} of a file of {self.data.size}")
        return super()._get(int(offset), dtype, int(count), override_order)

    def _get_str(self, offset: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        length, text = super()._get_str(offset)
        self._place = repr(text[:64].tobytes().decode("utf-8", "replace"))  # a key, or a tensor's name; or a value
        return length, text

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        key = self._place
        if raw_type != GGUFValueType.ARRAY:
            parts = super()._get_field_parts(orig_offs, int(raw_type))
            self._place = f"what follows {key}"
            return parts
        item, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        start, n = orig_offs + 12, int(count[0])
        if n > _MOST_ITEMS:
            raise self._fail(f"an array of {n} entries")
        if item[0] == GGUFValueType.STRING:
            texts, end = self._strings(start, n)
            self._texts.append(texts)
            data = self._get(start, np.uint8, end - start)
        elif item[0] in self.gguf_scalar_to_np:
            data = self._get(start, self.gguf_scalar_to_np[GGUFValueType(item[0])], n)
        else:
            raise self._fail(f"an array of type {item[0]}")
        self._place = f"what follows {key}"
        return 12 + data.nbytes, [item, count, data], [2], [GGUFValueType.ARRAY, GGUFValueType(item[0])]

    def _strings(self, start: int, count: int) -> tuple[list[str], int]:
        view, texts, size = self.data.data, [], self.data.size
        for index in range(count):
            end = start + 8 + int.from_bytes(view[start : start + 8], "little")
            if start + 8 > size or end > size:
                raise self._fail(f"entry {index} of {count} goes on to byte {end} of a file of {size}")
            texts.append(str(view[start + 8 : end], "utf-8"))
            start = end
        return texts, start

    def _build_fields(self, offs: int, count: int) -> int:
        if self.endianess != GGUFEndian.LITTLE:
            raise self._fail("the numbers are big-endian, as for another kind of machine")
        if count > _MOST_ENTRIES:
            raise self._fail(f"{count} metadata keys")
        return super()._build_fields(offs, count)

    def _build_tensor_info(self, offs: int, count: int) -> tuple[int, list[ReaderField]]:
        if count > _MOST_ENTRIES:
            raise self._fail(f"{count} tensors")
        return super()._build_tensor_info(offs, count)

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        for entry in fields:
            _, _, _, dims, raw_type, offset = entry.parts
            self._place = f"the tensor {entry.name[:64]!r}"
            shape = [int(length) for length in dims]
            if not 1 <= len(shape) <= 4 or min(shape) < 1:
                raise self._fail(f"the dimensions {shape[:8]}")
            try:
                kind = GGMLQuantizationType(raw_type[0])
            except ValueError:
                raise self._fail(f"the unknown type {raw_type[0]}") from None
            if kind.name not in TYPES:
                raise self._fail(f"the type {kind.name} is not supported (only {', '.join(TYPES)})")
            block, n_bytes = GGML_QUANT_SIZES[kind]
            if shape[0] % block:
                raise self._fail(f"rows of {shape[0]} numbers do not fill the blocks of {kind.name}")
            if int(offset[0]) % int(self.alignment):
                raise self._fail(f"the offset {offset[0]} is not a multiple of general.alignment {self.alignment}")
            end = int(start_offs) + int(offset[0]) + math.prod(shape) // block * n_bytes
            if end > self.data.size:
                raise self._fail(f"its data go on to byte {end} of a file of {self.data.size}")
        super()._build_tensors(int(start_offs), fields)
