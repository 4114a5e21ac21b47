"""Hugging Face folders: import one (config.json, safetensors, tokenizer.json), export one that `transformers` loads.

Families: Llama 1 to 3.x (TinyLlama, SmolLM), Mistral without an active sliding window, Qwen2, Qwen3. Tensors pass one
at a time. In the `llama` family, rotary positions turn neighbouring numbers of a head in GGUF, and numbers half a head
apart in Hugging Face's layout, so the rows of its query and key matrices are reordered on the way in and out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofile.errors import ParametersError
from twofile.params.atomic import atomic_path
from twofile.params.hyper import Architecture, Hyperparameters
from twofile.params.parameters import Parameters
from twofile.params.provenance import Provenance
from twofile.params.safetensors import SafeTensors, write_safetensors
from twofile.params.tokenizer_json import read_json, read_tokenizer, to_tokenizer_config, to_tokenizer_json
from twofile.params.write import Progress, write

__all__ = ["export_directory", "import_directory"]

_FAMILIES: dict[str, Architecture] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")  # computed, not trained; old files hold it


def import_directory(
    folder: Path | str, target: Path | str, type: str | None = None, progress: Progress | None = None
) -> None:
    """Write the model of a Hugging Face folder to a parameters file.

    `type`: one of mixture.FILE_TYPES; None keeps the folder's own (F32, BF16 or F16). Raises ParametersError naming
    what is missing, damaged or not supported."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if not config:
        raise ParametersError(f"{folder} has no config.json", "twofile import FOLDER, with the folder that holds it")
    try:
        hyper = _hyper(config)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ParametersError(f"{folder}/config.json is not understood: {error!r}") from error
    weights = SafeTensors(folder)
    shapes = hyper.shapes()
    names = {_foreign(name): name for name in shapes if name != "rope_freqs.weight"}
    for name in weights.tensors.keys() - names.keys():
        if not _IGNORED.fullmatch(name) and not (hyper.tied and name == "lm_head.weight"):
            raise ParametersError(f"{folder}: the tensor {name} is not part of the {hyper.architecture} family")
    for foreign, name in names.items():
        if foreign not in weights.tensors:
            raise ParametersError(f"{folder}: the tensor {foreign} is missing")
        shape = weights.tensors[foreign][1]
        if shape != shapes[name]:
            raise ParametersError(f"{folder}: the tensor {foreign} has the shape {shape}, not {shapes[name]}")

    def tensors() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for foreign, name in names.items():
            yield name, _reorder(name, weights.read(foreign), hyper, inward=True)

    if type is None:
        dtypes = {dtype for dtype, shape in weights.tensors.values() if len(shape) == 2}
        type = dtypes.pop() if dtypes in ({"BF16"}, {"F16"}) else "F32"
    vocabulary = read_tokenizer(folder, hyper.vocab_size)
    name = str(config.get("_name_or_path") or folder.resolve().name)
    provenance = Provenance(name=name).then(f"import {config['architectures'][0]} from Hugging Face's layout")
    write(target, hyper, vocabulary, tensors(), type=type, provenance=provenance, progress=progress)


def export_directory(source: Path | str, folder: Path | str, dtype: str | None = None) -> None:
    """Write a parameters file as a folder that transformers' AutoModelForCausalLM and AutoTokenizer load.

    `dtype`: F32, BF16 or F16; None keeps BF16 and F16 files as they are and makes anything else F32, which loses
    nothing. Each file is whole or absent, config.json, without which nothing loads, comes last."""
    folder = Path(folder)
    with Parameters.open(source) as parameters:
        hyper, vocabulary = parameters.hyper, parameters.vocabulary
        if dtype is None:
            kinds = {info.type for info in parameters.tensors.values() if len(info.shape) == 2}
            dtype = kinds.pop() if kinds in ({"BF16"}, {"F16"}) else "F32"
        if dtype not in ("F32", "BF16", "F16"):
            raise ParametersError(f"{dtype!r} is not F32, BF16 or F16")
        tokenizer, config = to_tokenizer_json(vocabulary), _config(parameters, dtype)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParametersError(f"cannot make the folder {folder}: {error.strerror}") from error
        names = {_foreign(name): name for name in hyper.shapes() if name != "rope_freqs.weight"}
        write_safetensors(
            folder / "model.safetensors",
            {foreign: parameters.tensors[name].shape for foreign, name in names.items()},
            dtype,
            (_reorder(name, parameters.read(name), hyper, inward=False) for name in names.values()),
        )
        ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config}
        for name, contents in (
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", to_tokenizer_config(vocabulary, hyper.context_length)),
            ("generation_config.json", ids),
            ("config.json", config),
        ):
            with atomic_path(folder / name) as temporary:
                temporary.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _foreign(name: str) -> str:
    """Hugging Face's name of a tensor."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(\w+)", name)
    if block:
        return f"model.layers.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"
    stem, kind = name.split(".")
    return f"{_WHOLE[stem]}.{kind}"


def _reorder(name: str, x: NDArray[np.float32], hyper: Hyperparameters, *, inward: bool) -> NDArray[np.float32]:
    """Rows of a head's two halves to neighbouring rows (inward), or back."""
    heads = {"attn_q.weight": hyper.n_heads, "attn_k.weight": hyper.n_kv_heads}.get(name.split(".", 2)[-1])
    if hyper.architecture != "llama" or heads is None:
        return x
    parts = (heads, 2, -1, x.shape[1]) if inward else (heads, -1, 2, x.shape[1])
    return x.reshape(parts).swapaxes(1, 2).reshape(x.shape)


def _hyper(config: Mapping[str, Any]) -> Hyperparameters:
    names = config.get("architectures") or ["none"]
    architecture = _FAMILIES.get(names[0])
    if architecture is None:
        raise ParametersError(f"the model family {names[0]} is not supported (only {', '.join(_FAMILIES)})")

    def get(key: str, default: Any = None, kind: type | tuple[type, ...] = int) -> Any:
        value = config.get(key)
        value = default if value is None else value
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ParametersError(f"config.json: {key} is {value!r}, which is not understood")
        return value

    def refuse(when: bool, what: str) -> None:
        if when:
            raise ParametersError(f"config.json: {what}, which is not supported")

    dim, heads, context = get("hidden_size"), get("num_attention_heads"), get("max_position_embeddings")
    refuse(heads < 1, f"num_attention_heads is {heads}")
    window = config.get("sliding_window") if config.get("use_sliding_window", names[0][0] == "M") else None
    refuse(window is not None and window < context, f"sliding_window is {window}, less than the context of {context}")
    refuse("quantization_config" in config, "the weights are quantised (quantization_config)")
    refuse(get("hidden_act", "silu", str) != "silu", f"hidden_act is {config.get('hidden_act')}")
    for key in ("attention_bias", "mlp_bias"):
        refuse(bool(config.get(key)), f"{key} is set")
    refuse(config.get("partial_rotary_factor", 1.0) != 1.0, "partial_rotary_factor is set")

    head_dim = get("head_dim", 128 if architecture == "qwen3" else dim // heads)
    # transformers 5 says rope_parameters where 4 said rope_theta and rope_scaling
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    refuse(any(isinstance(value, dict) for value in rope.values()), "rope_parameters differ between layers")
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    refuse(kind not in ("default", "linear", "llama3"), f"the rotary positions are scaled by {kind!r}")
    hyper = Hyperparameters(
        architecture=architecture,
        vocab_size=get("vocab_size"),
        context_length=context,
        dim=dim,
        n_layers=get("num_hidden_layers"),
        n_heads=heads,
        n_kv_heads=get("num_key_value_heads", heads),
        head_dim=head_dim,
        ffn_dim=get("intermediate_size"),
        norm_eps=float(get("rms_norm_eps", 1e-6, (float, int))),
        rope_theta=theta,
        rope_scale=float(rope["factor"]) if kind == "linear" else 1.0,
        tied=get("tie_word_embeddings", False, bool),
    )
    return replace(hyper, rope_factors=_llama3_factors(rope, theta, head_dim)) if kind == "llama3" else hyper


def _llama3_factors(rope: Mapping[str, Any], theta: float, head_dim: int) -> tuple[float, ...]:
    """Llama 3's divisors: 1 for short wavelengths, `factor` for long ones, between them a smooth passage."""
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    old = float(rope["original_max_position_embeddings"])
    result: list[float] = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / head_dim)
        if wavelength < old / high:
            result.append(1.0)
        elif wavelength > old / low:
            result.append(factor)
        else:
            smooth = (old / wavelength - low) / (high - low)
            result.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(np.array(result, np.float32).tolist())


def _rope(hyper: Hyperparameters) -> dict[str, Any]:
    """rope_parameters. Llama 3's divisors are all that GGUF holds, so what they were computed from is searched: all
    published models use 1 and 4, and a power of two for the old context."""
    if hyper.rope_factors is not None:
        for power in range(3, 24):
            rope = {
                "rope_type": "llama3",
                "factor": _short(max(hyper.rope_factors)),
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 2**power,
            }
            factors = _llama3_factors(rope, hyper.rope_theta, hyper.head_dim)
            if np.allclose(factors, hyper.rope_factors, rtol=1e-5):
                return rope
        raise ParametersError("rope_freqs.weight is none of llama 3's scalings, which is all that config.json can say")
    if hyper.rope_scale != 1.0:
        return {"rope_type": "linear", "factor": _short(hyper.rope_scale)}
    return {"rope_type": "default"}


def _short(number: float) -> float:
    """The float that a person wrote before GGUF made it a float32: 1e-06 and not 9.999999974752427e-07."""
    return float(str(np.float32(number)))


def _config(parameters: Parameters, dtype: str) -> dict[str, Any]:
    """The contents of config.json, as transformers 4 and 5 read it."""
    hyper, vocabulary = parameters.hyper, parameters.vocabulary
    rope, torch_dtype = _rope(hyper), {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[dtype]
    config: dict[str, Any] = {
        "architectures": [next(name for name, family in _FAMILIES.items() if family == hyper.architecture)],
        "model_type": hyper.architecture,
        "vocab_size": hyper.vocab_size,
        "max_position_embeddings": hyper.context_length,
        "hidden_size": hyper.dim,
        "num_hidden_layers": hyper.n_layers,
        "num_attention_heads": hyper.n_heads,
        "num_key_value_heads": hyper.n_kv_heads,
        "head_dim": hyper.head_dim,
        "intermediate_size": hyper.ffn_dim,
        "hidden_act": "silu",
        "rms_norm_eps": _short(hyper.norm_eps),
        "tie_word_embeddings": hyper.tied,
        "rope_theta": _short(hyper.rope_theta),
        "rope_scaling": rope if rope["rope_type"] != "default" else None,
        "rope_parameters": {**rope, "rope_theta": _short(hyper.rope_theta)},
        "attention_bias": False,
        "use_sliding_window": False,
        "torch_dtype": torch_dtype,
        "dtype": torch_dtype,
    }
    if vocabulary.bos is not None:
        config["bos_token_id"] = vocabulary.bos
    ends = [token for token in (vocabulary.eos, vocabulary.eot) if token is not None]
    if ends:
        config["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    if vocabulary.pad is not None:
        config["pad_token_id"] = vocabulary.pad
    return config
