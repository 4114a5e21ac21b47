"""The C program as a Python object: the interface of `run.c`, struct for struct, over ctypes.

Arrays are passed by pointer, never copied. ctypes releases the interpreter's lock during every call, so other Python
threads run while the program works. A C object is freed when the last Python reference to it goes; each call holds a
reference while it runs, so closing in one thread never pulls a model from under another.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, addressof, byref, c_char, c_char_p, c_float, c_int32, c_int64, c_uint64, c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofile.engine.backend import Info, Step
from twofile.engine.build import HINT, build
from twofile.engine.sampler import Sampling, new_seed
from twofile.errors import EngineError, ParametersError

INTERFACE = 4  # TF_INTERFACE of the run.c that this module mirrors
_ERROR_SIZE = 512


class _Info(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("vocab", "context", "dim", "layers", "heads", "kv_heads", "head_dim", "ffn")),
        *((name, c_int32) for name in ("bos", "eos", "eot", "unk", "pad", "add_bos", "add_eos", "threads")),
        ("parameters", c_uint64),
        ("bytes", c_uint64),
        ("token_bytes", c_uint64),
    ]


class _Sampling(Structure):
    _fields_ = [
        ("temperature", c_float),
        ("top_k", c_int32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition", c_float),
        ("presence", c_float),
        ("window", c_int32),
    ]


# name: (result, arguments), in the order of run.c
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "tf_interface": (c_int32, []),
    "tf_kernels": (c_char_p, []),
    "tf_open": (c_void_p, [c_char_p, c_char_p, c_int32, c_int32, c_char_p, c_int32]),
    "tf_close": (None, [c_void_p]),
    "tf_describe": (None, [c_void_p, POINTER(_Info)]),
    "tf_text": (c_char_p, [c_void_p, c_char_p]),
    "tf_tokenize": (c_int64, [c_void_p, c_char_p, c_int64, c_int32, c_void_p, c_int64]),
    "tf_detokenize": (c_int64, [c_void_p, c_void_p, c_int64, c_int32, c_int32, c_void_p, c_int64]),
    "tf_attribute": (c_int32, [c_void_p, c_int32]),
    "tf_ends": (c_int32, [c_void_p, c_int32]),
    "tf_held": (c_int64, [c_void_p]),
    "tf_session_new": (c_void_p, [c_void_p, c_char_p, c_int32]),
    "tf_session_fork": (c_void_p, [c_void_p, c_char_p, c_int32]),
    "tf_session_free": (None, [c_void_p]),
    "tf_session_length": (c_int32, [c_void_p]),
    "tf_session_rewind": (c_int32, [c_void_p, c_int32]),
    "tf_evaluate": (c_int64, [c_void_p, c_void_p, c_int32, c_void_p, c_char_p, c_int32]),
    "tf_rows": (None, [c_void_p, c_void_p, c_int32, c_void_p]),
    "tf_embed": (c_int32, [c_void_p, c_void_p, c_int32, c_void_p, c_char_p, c_int32]),
    "tf_session_save": (c_int64, [c_void_p, c_void_p, c_int64]),
    "tf_session_load": (c_int32, [c_void_p, c_int32, c_char_p, c_int64]),
    "tf_sampler_new": (c_void_p, [c_int32, POINTER(_Sampling), c_uint64]),
    "tf_sampler_free": (None, [c_void_p]),
    "tf_sampler_bias": (c_int32, [c_void_p, c_int32, c_float]),
    "tf_sampler_accept": (None, [c_void_p, c_int32]),
    "tf_sampler_pick": (c_int32, [c_void_p, c_void_p]),
}


class _Handle:
    """A C object, freed when the last reference to this one goes."""

    __slots__ = ("_free", "pointer")

    def __init__(self, pointer: int, free: Callable[[int], object]) -> None:
        self.pointer, self._free = pointer, free

    def __del__(self) -> None:
        self._free(self.pointer)


class Library:
    """The compiled program."""

    def __init__(self, path: Path) -> None:
        try:
            self._c = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self._c, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise EngineError(f"the compiled program cannot be loaded: {error}", "run: twofile doctor") from error
        found = self._c.tf_interface()
        if found != INTERFACE:
            raise EngineError(f"{path} has interface {found}, this Python has {INTERFACE}", "pip install -U twofile")
        self.path = path

    @property
    def kernels(self) -> str:
        """Which vector instructions it uses: "avx512", "avx2", "neon" or "c"."""
        return str(self._c.tf_kernels().decode())

    def open(self, path: Path, threads: int = 0, repack: bool = True, adapter: Path | None = None) -> Model:
        """Open a parameters file; `threads` 0 means one a core. Raises ParametersError with the program's words."""
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        change = None if adapter is None else os.fsencode(adapter)
        pointer = self._c.tf_open(os.fsencode(path), change, threads, repack, error, _ERROR_SIZE)
        if not pointer:
            raise ParametersError(_words(error), f"twofile show {path}")
        return Model(self, _Handle(pointer, self._c.tf_close))

    def picker(self, vocab: int, sampling: Sampling) -> CSampler:
        """A sampler for `vocab` tokens."""
        return CSampler(self, vocab, sampling)


def load_program() -> Library:
    """The program, compiled if need be. Raises EngineError, with what to do, where that cannot be done."""
    built = build()
    if built.path is None:
        raise EngineError(f"the program cannot be compiled: {built.reason}", HINT)
    return load(built.path)


@functools.cache
def load(path: Path) -> Library:
    """The library at `path`, loaded once in a process."""
    return Library(path)


class Model:
    """An open parameters file in the C program: the usual `Backend`."""

    def __init__(self, library: Library, handle: _Handle) -> None:
        self._library, self._c, self._handle = library, library._c, handle
        raw = _Info()
        self._c.tf_describe(handle.pointer, byref(raw))
        values = {name: int(getattr(raw, name)) for name, *_ in _Info._fields_}
        add_bos, add_eos = bool(values.pop("add_bos")), bool(values.pop("add_eos"))
        architecture, name = self.text("general.architecture") or "", self.text("general.name") or ""
        self._info = Info(architecture, name, library.kernels, add_bos=add_bos, add_eos=add_eos, **values)

    @property
    def info(self) -> Info:
        return self._info

    def text(self, key: str) -> str | None:
        found = self._c.tf_text(self._handle.pointer, key.encode())
        return None if found is None else str(found.decode(errors="replace"))

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        room = len(text) + 16  # a token is a byte at least; a vocabulary may add a space in front
        while True:
            tokens = np.empty(room, np.int32)
            n = self._c.tf_tokenize(self._handle.pointer, text, len(text), special, _at(tokens), room)
            if n < 0:
                raise EngineError(f"a text of {len(text)} bytes cannot be tokenised: it is too long")
            if n <= room:
                return [int(token) for token in tokens[:n]]
            room = n

    def detokenize(self, tokens: Sequence[int], special: bool, skip_space: bool) -> bytes:
        ids = np.ascontiguousarray(tokens, np.int32)
        room = 16 * len(ids) + 64
        while True:
            text = np.empty(room, np.uint8)
            n = self._c.tf_detokenize(self._handle.pointer, _at(ids), len(ids), special, skip_space, _at(text), room)
            if n < 0:
                raise ValueError(f"tokens hold an id outside the vocabulary of {self.info.vocab}")
            if n <= room:
                return text[:n].tobytes()
            room = n

    def attribute(self, token: int) -> int:
        return int(self._c.tf_attribute(self._handle.pointer, token))

    def ends(self, token: int) -> bool:
        return bool(self._c.tf_ends(self._handle.pointer, token))

    def held(self) -> int:
        return int(self._c.tf_held(self._handle.pointer))

    def cache(self) -> CCache:
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        return CCache(self._c, self._c.tf_session_new(self._handle.pointer, error, _ERROR_SIZE), error)

    def evaluate(self, steps: Sequence[Step]) -> NDArray[np.float32]:
        rows = sum([(0, 1, len(tokens))[want] for _, tokens, want in steps])
        logits_RV = np.empty((rows, self._info.vocab), np.float32)
        held = [tokens for _, tokens, _ in steps]
        flat_T = np.concatenate(held) if len(held) > 1 else np.ascontiguousarray(held[0])
        assert flat_T.dtype == np.int32
        at = _at(flat_T)
        values: list[int] = []
        for cache, tokens, want in steps:
            values += (cache.handle.pointer, at, len(tokens), want)
            at += 4 * len(tokens)
        raw = struct.pack("PPii" * len(steps), *values)  # an array of tf_step
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        written = self._c.tf_evaluate(self._handle.pointer, raw, len(steps), _at(logits_RV), error, _ERROR_SIZE)
        if written < 0:
            raise EngineError(_words(error))
        assert written == rows
        return logits_RV

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        ids = np.ascontiguousarray(tokens, np.int32)
        found_D = np.empty(self._info.dim, np.float32)
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        if self._c.tf_embed(self._handle.pointer, _at(ids), len(ids), _at(found_D), error, _ERROR_SIZE) < 0:
            raise EngineError(_words(error))
        return found_D

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        ids = np.ascontiguousarray(tokens, np.int32)
        rows_TD = np.empty((len(ids), self._info.dim), np.float32)
        self._c.tf_rows(self._handle.pointer, _at(ids), len(ids), _at(rows_TD))
        return rows_TD

    def restore(self, length: int, data: bytes) -> CCache:
        cache = self.cache()
        if self._c.tf_session_load(cache.handle.pointer, length, data, len(data)) < 0:
            raise EngineError(f"what was kept of {length} tokens is not of this model")
        return cache

    def picker(self, sampling: Sampling) -> CSampler:
        return self._library.picker(self.info.vocab, sampling)


class CCache:
    """The tokens of one session, in shared blocks of the C program. It keeps the model open."""

    def __init__(self, c: ctypes.CDLL, pointer: int | None, error: ctypes.Array[ctypes.c_char]) -> None:
        if not pointer:
            raise EngineError(_words(error))
        self._c, self.handle = c, _Handle(pointer, c.tf_session_free)

    def fork(self) -> CCache:
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        return CCache(self._c, self._c.tf_session_fork(self.handle.pointer, error, _ERROR_SIZE), error)

    def rewind(self, length: int) -> None:
        if self._c.tf_session_rewind(self.handle.pointer, length) < 0:
            raise ValueError(f"length {length} is more than the session holds")

    def save(self) -> bytes:
        size = self._c.tf_session_save(self.handle.pointer, None, -1)
        data = np.empty(size, np.uint8)
        self._c.tf_session_save(self.handle.pointer, _at(data), size)
        return data.tobytes()


class CSampler:
    """The sampler of the C program: token for token what `sampler.Sampler` chooses, and faster."""

    def __init__(self, library: Library, vocab: int, sampling: Sampling) -> None:
        self.seed = new_seed() if sampling.seed is None else sampling.seed
        raw = _Sampling(
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, sampling.repetition,
            sampling.presence, sampling.window,
        )  # fmt: skip
        c = library._c
        pointer = c.tf_sampler_new(vocab, byref(raw), self.seed)
        if not pointer:
            raise EngineError("no memory for a sampler")
        self._handle = _Handle(pointer, c.tf_sampler_free)
        self._shape, self._pointer, self._pick, self._accept = (vocab,), pointer, c.tf_sampler_pick, c.tf_sampler_accept
        for token, bias in sampling.logit_bias.items():
            if c.tf_sampler_bias(pointer, token, bias) < 0:
                raise ValueError(f"logit_bias names token {token}, the vocabulary has {vocab}")

    def accept(self, token: int) -> None:
        self._accept(self._pointer, token)

    def pick(self, logits_V: NDArray[np.float32]) -> int:
        row_V = np.ascontiguousarray(logits_V, np.float32)
        if row_V.shape != self._shape:
            raise ValueError(f"logits have shape {row_V.shape}, the sampler expects {self._shape}")
        if not row_V.flags.writeable:
            row_V = row_V.copy()  # `from_buffer`, which is quicker than `_at`, takes no others
        token: int = self._pick(self._pointer, addressof(c_char.from_buffer(row_V.data)))
        return token


def _at(array: NDArray[np.int32] | NDArray[np.uint8] | NDArray[np.float32]) -> int:
    """The address of an array's first element."""
    return int(array.__array_interface__["data"][0])  # half the time of array.ctypes.data


def _words(error: ctypes.Array[ctypes.c_char]) -> str:
    return error.value.decode(errors="replace") or "the program gave no reason"
