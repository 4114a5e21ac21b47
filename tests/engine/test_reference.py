"""The reference, and the program, against `transformers` in single precision on random models of each family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiny import tiny_hyper, tiny_tensors, tiny_vocabulary
from twofile.engine.engine import Engine
from twofile.params.hyper import Hyperparameters
from twofile.params.write import write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
OTHERS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def theirs(hyper: Hyperparameters, tensors: dict[str, NDArray[np.float32]], rope: dict[str, Any]) -> Any:
    """The same model in transformers."""
    values = {
        "vocab_size": hyper.vocab_size, "hidden_size": hyper.dim, "intermediate_size": hyper.ffn_dim,
        "num_hidden_layers": hyper.n_layers, "num_attention_heads": hyper.n_heads,
        "num_key_value_heads": hyper.n_kv_heads, "head_dim": hyper.head_dim, "rms_norm_eps": hyper.norm_eps,
        "max_position_embeddings": hyper.context_length, "tie_word_embeddings": hyper.tied,
        "rope_parameters": {"rope_theta": hyper.rope_theta, "rope_type": "default"} | rope,
    }  # fmt: skip
    kind = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[hyper.architecture]
    config = getattr(transformers, kind + "Config")(**values, attn_implementation="eager")
    model = getattr(transformers, kind + "ForCausalLM")(config).float().eval()
    state = {}
    for name, x in tensors.items():
        *block, part, what = name.split(".")
        if hyper.architecture == "llama" and part in ("attn_q", "attn_k"):  # GGUF has the pairs side by side
            x = x.reshape(-1, hyper.head_dim // 2, 2, hyper.dim).swapaxes(1, 2).reshape(x.shape)
        target = f"model.layers.{block[1]}.{NAMES[part]}" if block else OTHERS[part]
        state[f"{target}.{what}"] = torch.from_numpy(np.ascontiguousarray(x))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if hyper.tied else set())
    model.tie_weights()
    return model


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "changes", "rope"),
    [
        ("llama", {}, {}),
        ("llama", {"tied": True, "n_kv_heads": 4}, {}),
        ("llama", {"rope_scale": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ("llama", {"rope_theta": 500000.0}, LLAMA3),
        ("qwen2", {"n_kv_heads": 1}, {}),
        ("qwen2", {"tied": True, "rope_theta": 1e6}, {}),
        ("qwen3", {}, {}),
        ("qwen3", {"tied": False, "head_dim": 64}, {}),
    ],
)
def test_logits(
    tmp_path: Path, architecture: str, changes: dict[str, Any], rope: dict[str, Any], backend: Literal["c", "numpy"]
) -> None:
    vocabulary = tiny_vocabulary()
    hyper = tiny_hyper(architecture, vocabulary, **changes)
    tensors = dict(tiny_tensors(hyper, 3))
    model = theirs(hyper, tensors, rope)
    if rope.get("rope_type") == "llama3":  # their frequencies, as the divisors that a file has
        plain = hyper.rope_theta ** (-np.arange(0, hyper.head_dim, 2) / hyper.head_dim)
        factors = tuple((plain / model.model.rotary_emb.inv_freq.double().numpy()).tolist())
        assert max(factors) > 7.9
        hyper = tiny_hyper(architecture, vocabulary, rope_factors=factors, **changes)
    write(tmp_path / "tiny.gguf", hyper, vocabulary, tensors)

    tokens = np.random.default_rng(5).integers(hyper.vocab_size, size=100)
    with torch.no_grad():
        want = model(torch.from_numpy(tokens)[None]).logits[0].numpy()
    with Engine(tmp_path / "tiny.gguf", backend=backend) as engine:
        whole = engine.session().append(tokens, "all")
        session = engine.session()
        steps = np.concatenate([session.append(tokens[a : a + 7], "all") for a in range(0, 100, 7)])
    assert np.std(want) > 0.3
    assert np.abs(whole - want).max() <= 1e-4
    assert np.abs(steps - want).max() <= 1e-4


def test_opening_reads_every_type(make: Callable[..., Path]) -> None:
    with Engine(make("llama"), backend="numpy") as engine:
        exact = engine.session().append([1, 2, 3, 4])
    for type in ("F16", "BF16", "Q8_0"):
        with Engine(make("llama", type), backend="numpy") as engine:
            assert 0 < np.abs(engine.session().append([1, 2, 3, 4]) - exact).max() < 0.2, type
