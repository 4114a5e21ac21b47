"""Other programs, as runners beside ours: llama.cpp on the same file, transformers in bf16 on the same shape.

llama.cpp is driven by its C functions, with batches made beforehand, so that none of its wrapper's Python is counted:
ctypes adds about 2 microseconds a pass. As in llama-bench, its threads live in a pool that is kept from pass to pass;
it is paused while others are measured, for these threads spin for a tenth of a second. Its best case on a CPU is a
build for this very processor, without OpenMP:

    export CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_OPENMP=OFF"
    pip install --no-cache-dir --no-binary llama-cpp-python llama-cpp-python
"""

from __future__ import annotations

import ctypes
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofile.evaluate.speed import Cell, cells
from twofile.evaluate.start import Read, Start, begin, fresh
from twofile.params.parameters import Parameters

_BATCH = 512


class LlamaCpp:
    """llama.cpp through llama-cpp-python, with a file loaded; `close` it."""

    def __init__(self, path: Path, threads: int) -> None:
        self.c = _llama_cpp()
        self.path, self.threads = path, threads
        self.name = f"llama-cpp-python {self.c.__version__}"
        self._model = self.c.llama_model_load_from_file(str(path).encode(), self.c.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp does not read {path}")
        self.vocab = self.c.llama_vocab_n_tokens(self.c.llama_model_get_vocab(self._model))
        self._ggml = self.c.llama_cpp._lib  # which finds the functions of ggml too
        self._ggml.ggml_threadpool_new.restype = ctypes.c_void_p
        for name in ("resume", "pause", "free"):
            getattr(self._ggml, f"ggml_threadpool_{name}").argtypes = [ctypes.c_void_p]
        settings = ctypes.create_string_buffer(4096)  # a ggml_threadpool_params, whose size we need not know
        self._ggml.ggml_threadpool_params_init(settings, ctypes.c_int(self.threads))
        self._pool = self._ggml.ggml_threadpool_new(settings)
        self._ggml.ggml_threadpool_pause(self._pool)
        self._contexts: dict[bool, Any] = {}

    def context(self, cell: Cell) -> Any:
        """One for a single session, one for 32."""
        many = cell.sessions > 1
        if many not in self._contexts:
            settings = self.c.llama_context_default_params()  # f16 cache, flash attention where it can be had
            settings.n_seq_max = 32 if many else 1
            room = max(c.tokens * c.passes for c in cells(_BATCH) if (c.sessions > 1) == many)
            settings.n_ctx = settings.n_seq_max * room
            settings.n_batch = settings.n_ubatch = _BATCH
            settings.n_threads = settings.n_threads_batch = self.threads
            context = self.c.llama_init_from_model(self._model, settings)
            if not context:
                raise RuntimeError(f"llama.cpp has no context for {self.path}")
            attach = self._ggml.llama_attach_threadpool
            attach.argtypes, attach.restype = [ctypes.c_void_p] * 3, None
            attach(context, self._pool, self._pool)
            self._contexts[many] = context
        return self._contexts[many]

    def run(self, cell: Cell) -> float:
        context = self.context(cell)
        self.c.llama_memory_clear(self.c.llama_get_memory(context), True)
        held = [self._batch(ids, i * cell.tokens) for i, ids in enumerate(cell.ids(self.vocab))]
        decode, wait = self.c.llama_decode, self.c.llama_synchronize
        self._ggml.ggml_threadpool_resume(self._pool)
        began = time.perf_counter()
        for batch, _ in held:
            if decode(context, batch):
                raise RuntimeError(f"llama_decode fails at {cell}")
            wait(context)
        took = time.perf_counter() - began
        self._ggml.ggml_threadpool_pause(self._pool)
        return took

    def start(self) -> Start:
        return fresh([sys.executable, __file__, str(self.path), str(self.threads)])

    def _batch(self, ids: NDArray[np.int32], position: int) -> tuple[Any, Any]:
        """A llama_batch with tokens [sessions, tokens], and what it points to."""
        sessions, tokens = ids.shape
        n = sessions * tokens
        numbers = [ctypes.c_int32(i) for i in range(sessions)]
        arrays = (
            (ctypes.c_int32 * n)(*ids.ravel().tolist()),
            (ctypes.c_int32 * n)(*(position + i % tokens for i in range(n))),
            (ctypes.c_int32 * n)(*[1] * n),
            (ctypes.POINTER(ctypes.c_int32) * n)(*(ctypes.pointer(numbers[i // tokens]) for i in range(n))),
            (ctypes.c_int8 * n)(*(i % tokens == tokens - 1 for i in range(n))),
        )
        token, pos, n_seq, seq, logits = arrays
        return self.c.llama_batch(n, token, None, pos, n_seq, seq, logits), (arrays, numbers)

    def system(self) -> str:
        """What it says of its build."""
        return str(self.c.llama_print_system_info().decode()).strip()

    def close(self) -> None:
        for context in self._contexts.values():
            self.c.llama_free(context)
        self.c.llama_model_free(self._model)
        self._ggml.ggml_threadpool_free(self._pool)


@cache
def _llama_cpp() -> Any:
    """The module, ready and silent."""
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    llama_cpp.llama_backend_init()
    _kept.append(silent)  # C has no reference that counts
    return llama_cpp


_kept: list[Any] = []


class Transformers:
    """transformers in eager bf16, with random weights of the file's shape: its speed does not depend on them."""

    def __init__(self, path: Path, threads: int) -> None:
        import torch
        import transformers

        with Parameters.open(path) as parameters:
            hyper = parameters.hyper
        torch.set_num_threads(threads)
        auto: Any = transformers.AutoModelForCausalLM
        config = transformers.AutoConfig.for_model(
            hyper.architecture, vocab_size=hyper.vocab_size, hidden_size=hyper.dim, num_hidden_layers=hyper.n_layers,
            num_attention_heads=hyper.n_heads, num_key_value_heads=hyper.n_kv_heads, head_dim=hyper.head_dim,
            intermediate_size=hyper.ffn_dim, tie_word_embeddings=hyper.tied,
            max_position_embeddings=hyper.context_length,
        )  # fmt: skip
        self.torch: Any = torch
        self.model: Any = auto.from_config(config, dtype=torch.bfloat16).eval()
        self.vocab, self.name = hyper.vocab_size, f"transformers {transformers.__version__} bf16"

    def run(self, cell: Cell) -> float:
        passes = self.torch.from_numpy(cell.ids(self.vocab).astype(np.int64))
        cache = None
        with self.torch.inference_mode():
            began = time.perf_counter()
            for ids in passes:
                done = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = done.past_key_values
            return time.perf_counter() - began

    def start(self) -> None:
        return None


def _begin_llama(path: Path, threads: int) -> None:
    _llama_cpp()

    def open_file() -> Read:
        llama = LlamaCpp(path, threads)
        llama.context(cells(_BATCH)[0])
        return lambda ids: llama.run(Cell("", 1, len(ids), 1))

    begin(open_file)


if __name__ == "__main__":
    _begin_llama(Path(sys.argv[1]), int(sys.argv[2]))
