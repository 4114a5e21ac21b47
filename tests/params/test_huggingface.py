from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import tiny_parameters, tiny_spm_parameters, tiny_vocabulary
from twofile.engine.engine import Engine
from twofile.errors import ParametersError
from twofile.params.huggingface import export_directory, import_directory
from twofile.params.parameters import Parameters
from twofile.params.tokenizer_json import to_tokenizer_config, to_tokenizer_json

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY = tiny_vocabulary()
N = len(VOCABULARY.tokens)
COMMON: dict[str, Any] = {
    "vocab_size": N + 3, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64, "rope_theta": 500000.0,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama 3": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
}
TOKENS = [int(n) for n in np.random.default_rng(1).integers(0, N, 100)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(before)


def made(folder: Path, family: str, dtype: str = "float32") -> Path:
    """A random model of a family, as transformers saves it, with our tiny tokenizer beside."""
    kind, changes = FAMILIES[family]
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**COMMON, **changes))
    for x in model.parameters():  # so that biases, norms and positions matter
        x.data = x.data + 0.2 * torch.randn_like(x) if x.dim() == 1 else 6 * x.data
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(to_tokenizer_json(VOCABULARY)))
    (folder / "tokenizer_config.json").write_text(json.dumps(to_tokenizer_config(VOCABULARY, 128)))
    return folder


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model.float()(torch.tensor([TOKENS])).logits[0].numpy()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(tmp_path: Path, family: str, dtype: str) -> None:
    source = made(tmp_path / "source", family, dtype)
    import_directory(source, tmp_path / "model.gguf")
    export_directory(tmp_path / "model.gguf", tmp_path / "back")
    before, after = load(source), load(tmp_path / "back")
    assert after.dtype == getattr(torch, dtype)
    want, have = before.state_dict(), after.state_dict()
    assert have.keys() == want.keys()
    assert max(float((have[name].float() - want[name].float()).abs().max()) for name in want) == 0
    np.testing.assert_array_equal(logits(after), logits(before))
    for backend in ("numpy", "auto"):  # auto: the program, where there is a compiler
        with Engine(tmp_path / "model.gguf", backend=backend) as engine:
            ours = engine.session().append(TOKENS, want="all")
        # the program multiplies bf16 weights by numbers rounded to bf16, and keeps keys and values so
        atol = 1e-4 if backend == "numpy" or dtype == "float32" else 2e-2 * np.abs(logits(before)).max()
        np.testing.assert_allclose(ours, logits(before), atol=atol)


def test_the_tokenizer_goes_there_and_back(tmp_path: Path) -> None:
    import_directory(made(tmp_path / "source", "qwen3"), tmp_path / "model.gguf")
    with Parameters.open(tmp_path / "model.gguf") as parameters:
        read = parameters.vocabulary
        assert read.tokens[:N] == VOCABULARY.tokens
        assert (read.merges, read.pre, read.chat_template) == (VOCABULARY.merges, "qwen2", VOCABULARY.chat_template)
        assert (read.bos, read.eos, read.eot, read.pad) == (
            VOCABULARY.bos,
            VOCABULARY.eos,
            VOCABULARY.eot,
            VOCABULARY.pad,
        )
        assert read.tokens[N:] == tuple(f"[PAD{n}]" for n in range(N, N + 3))
        assert parameters.provenance.stages == ("import Qwen3ForCausalLM from Hugging Face's layout",)
    export_directory(tmp_path / "model.gguf", tmp_path / "back")
    there = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    text = "Once upon a time<|im_end|>\n"
    assert there.decode(there(text).input_ids) == text
    assert there.eos_token_id == VOCABULARY.eos
    chat = there.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    generation = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [VOCABULARY.eos, VOCABULARY.eot]


def test_a_sentencepiece_model_is_exported(tmp_path: Path) -> None:
    with Parameters.open(tiny_spm_parameters("F16", 1, tmp_path / "a.gguf")) as parameters:
        vocabulary = parameters.vocabulary
    export_directory(tmp_path / "a.gguf", tmp_path / "out")
    there = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = there("once upon a time").input_ids
    assert [vocabulary.tokens[token] for token in ids] == ["<s>", "▁once", "▁upon", "▁a", "▁time"]
    assert there.decode(ids, skip_special_tokens=True) == "once upon a time"
    assert load(tmp_path / "out").dtype == torch.float16


def test_types(tmp_path: Path) -> None:
    source = made(tmp_path / "source", "qwen3", "bfloat16")
    import_directory(source, tmp_path / "q8.gguf", "Q8_0")
    with Parameters.open(tmp_path / "q8.gguf") as parameters:
        assert parameters.tensors["blk.0.ffn_up.weight"].type == "Q8_0"
    export_directory(tmp_path / "q8.gguf", tmp_path / "whole")
    assert load(tmp_path / "whole").dtype == torch.float32  # so that nothing more is lost
    export_directory(tmp_path / "q8.gguf", tmp_path / "half", "BF16")
    assert load(tmp_path / "half").dtype == torch.bfloat16
    with pytest.raises(ParametersError, match="'Q8_0' is not F32"):
        export_directory(tmp_path / "q8.gguf", tmp_path / "no", "Q8_0")


def test_shards_are_read(tmp_path: Path) -> None:
    source = made(tmp_path / "source", "llama")
    load(source).save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "shards" / name).write_bytes((source / name).read_bytes())
    assert len([*(tmp_path / "shards").glob("*.safetensors")]) > 1
    import_directory(source, tmp_path / "a.gguf")
    import_directory(tmp_path / "shards", tmp_path / "b.gguf")
    with Parameters.open(tmp_path / "a.gguf") as a, Parameters.open(tmp_path / "b.gguf") as b:
        assert all((a.raw(name) == b.raw(name)).all() for name in a.tensors)


def changed(folder: Path, **changes: Any) -> Path:
    """The folder with entries of its config.json replaced (None: removed)."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def test_the_words_of_older_and_newer_versions(tmp_path: Path) -> None:
    source = made(tmp_path / "source", "llama 3")
    import_directory(source, tmp_path / "new.gguf")
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    old = {"rope_parameters": None, "dtype": None, "rope_theta": 500000.0, "torch_dtype": "float32"}
    import_directory(changed(source, rope_scaling=scaling, **old), tmp_path / "old.gguf")
    with Parameters.open(tmp_path / "new.gguf") as new, Parameters.open(tmp_path / "old.gguf") as was:
        assert new.hyper == was.hyper
        assert new.hyper.rope_theta == 500000.0
        assert new.hyper.rope_factors is not None
        assert (new.hyper.rope_factors[0], new.hyper.rope_factors[-1]) == (1.0, 8.0)
    linear = {"type": "linear", "factor": 2.0}  # older still
    import_directory(changed(source, rope_scaling=linear), tmp_path / "older.gguf")
    with Parameters.open(tmp_path / "older.gguf") as older:
        assert (older.hyper.rope_scale, older.hyper.rope_factors) == (2.0, None)
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    assert "rope_parameters" not in config
    export_directory(tmp_path / "new.gguf", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["rope_parameters"] == LLAMA3
    assert config["rope_scaling"] == scaling
    assert (config["dtype"], config["torch_dtype"], config["rms_norm_eps"]) == ("float32", "float32", 1e-6)


def test_real_llama_scalings_are_found_again(tmp_path: Path) -> None:
    source = made(tmp_path / "source", "llama 3")
    for factor in (8.0, 32.0):
        rope = LLAMA3 | {"factor": factor, "original_max_position_embeddings": 8192}
        import_directory(changed(source, rope_parameters=rope), tmp_path / "a.gguf")
        export_directory(tmp_path / "a.gguf", tmp_path / "back")
        written = json.loads((tmp_path / "back" / "config.json").read_text())["rope_parameters"]
        torch_config = {"rope_theta": 500000.0, "max_position_embeddings": 128, **COMMON}
        inits = [
            transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](
                transformers.LlamaConfig(**(torch_config | {"rope_parameters": parameters})), "cpu"
            )[0]
            for parameters in (rope, written)
        ]
        torch.testing.assert_close(inits[0], inits[1])
    factors = tuple(float(n) for n in range(1, 9))
    tiny_parameters("llama", "F32", 1, tmp_path / "odd.gguf", rope_factors=factors)
    with pytest.raises(ParametersError, match=r"rope_freqs.weight is none of llama 3's"):
        export_directory(tmp_path / "odd.gguf", tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "the model family GemmaForCausalLM is not supported"),
        ({"architectures": 3}, "not understood: TypeError"),
        ({"architectures": None}, "the model family none is not supported"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 64}, "sliding_window is 64"),
        ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64, "use_sliding_window": True}, "sliding_window"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"attention_bias": True}, "attention_bias is set"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ({"rope_parameters": {"full_attention": {}}}, "differ between layers"),
        ({"rope_parameters": {"rope_type": "llama3"}}, r"config.json is not understood: KeyError\('factor'\)"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "x"}}, "not understood: ValueError"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_hidden_layers": 3}, r"the tensor model.layers.2\.\S+ is missing"),
        ({"num_hidden_layers": 1}, r"the tensor model.layers.1\.\S+ is not part of the llama family"),
        ({"intermediate_size": 97}, "has the shape"),
        ({"vocab_size": 5}, "embed_tokens.weight has the shape"),
        ({"vocab_size": 2**31 - 1}, "embed_tokens.weight has the shape"),
        ({"head_dim": 2**31 - 2, "rope_parameters": LLAMA3}, "head_dim is 2147483646: out of range"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    source = changed(made(tmp_path / "source", "llama"), **changes)
    with pytest.raises(ParametersError, match=words):
        import_directory(source, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 1e308, "", "x", "\ud800", [], {}, [1], [[]], {"type": "x"}, {"a": {"b": 1}},
)  # fmt: skip


def spoilt(value: Any, dice: random.Random) -> Any:
    """A JSON value with one place of it made something else."""
    if isinstance(value, dict | list) and value and dice.random() < 0.85:
        copy = value.copy()
        key = dice.choice([*copy]) if isinstance(copy, dict) else dice.randrange(len(copy))
        copy[key] = spoilt(copy[key], dice)
        return copy
    return dice.choice(JUNK)


def test_fuzz(tmp_path: Path) -> None:
    """Any contents are imported or refused. (A few thousand cases were run by hand; these keep it so.)"""
    small = {"dim": 32, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "n_layers": 1, "ffn_dim": 32}
    tiny_parameters("llama", "F32", 1, tmp_path / "a.gguf", **small, rope_factors=(1.0,) * 8)
    tiny_spm_parameters("F32", 1, tmp_path / "b.gguf", **small)
    dice, refused = random.Random(1), 0
    for case in range(160):
        folder = tmp_path / "ab"[case % 2]
        if case < 2:
            export_directory(tmp_path / f"{folder.name}.gguf", folder)
        path = folder / dice.choice(["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
        whole = path.read_bytes()
        if path.suffix == ".json":
            path.write_text(json.dumps(spoilt(json.loads(whole), dice)))
        else:
            at = dice.randrange(3000)
            path.write_bytes(whole[:at] + bytes([dice.randrange(256)]) + whole[at + 1 :])
        try:
            import_directory(folder, tmp_path / "c.gguf")
        except ParametersError:
            refused += 1
        path.write_bytes(whole)
    assert 50 < refused < 150


def test_a_mistral_window_as_long_as_the_context_is_none(tmp_path: Path) -> None:
    source = changed(made(tmp_path / "source", "mistral"), sliding_window=128)
    import_directory(source, tmp_path / "a.gguf")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match=r"has no config.json"):
        import_directory(tmp_path, tmp_path / "a.gguf")


def test_names_are_those_of_llama_cpps_converter(tmp_path: Path) -> None:
    import gguf

    source = made(tmp_path / "source", "qwen3")
    import_directory(source, tmp_path / "a.gguf")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 2)
    want = {names.get_name(name, (".weight", ".bias")) for name in load(source).state_dict()}
    with Parameters.open(tmp_path / "a.gguf") as parameters:
        assert parameters.tensors.keys() == want
