from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from twofile.engine.engine import Engine
from twofile.errors import ParametersError
from twofile.params.llama2c import import_checkpoint
from twofile.params.parameters import Parameters
from twofile.params.vocabulary import TokenType

DIM, FFN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT = 64, 96, 2, 4, 2, 300, 32
RANDOM = np.random.default_rng(1)
NORMS = {"attn_norm": (LAYERS, DIM), "ffn_norm": (LAYERS, DIM), "output_norm": (DIM,)}
MATRICES = {
    "token_embd": (VOCAB, DIM), "attn_q": (LAYERS, DIM, DIM), "attn_k": (LAYERS, DIM // 2, DIM),
    "attn_v": (LAYERS, DIM // 2, DIM), "attn_output": (LAYERS, DIM, DIM), "ffn_gate": (LAYERS, FFN, DIM),
    "ffn_down": (LAYERS, DIM, FFN), "ffn_up": (LAYERS, FFN, DIM), "output": (VOCAB, DIM),
}  # fmt: skip
WEIGHTS = {name: RANDOM.standard_normal(shape).astype("<f4") for name, shape in (NORMS | MATRICES).items()}


def tokenizer(folder: Path, n: int = VOCAB) -> Path:
    tokens = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256))]
    tokens += [b" the", " ü".encode(), *(b"t%d" % i for i in range(n - 261))]
    pairs = [struct.pack("<fi", -float(i), len(token)) + token for i, token in enumerate(tokens[:n])]
    (folder / "tok.bin").write_bytes(struct.pack("<i", 7) + b"".join(pairs))
    return folder / "tok.bin"


def float_file(folder: Path, *, shared: bool) -> Path:
    order = ("token_embd", "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down")
    parts = [WEIGHTS[name] for name in (*order, "ffn_up", "output_norm")]
    parts += [np.zeros((CONTEXT, DIM // HEADS), "<f4")] + ([] if shared else [WEIGHTS["output"]])
    head = struct.pack("<7i", DIM, FFN, LAYERS, HEADS, KV_HEADS, VOCAB if shared else -VOCAB, CONTEXT)
    (folder / "float.bin").write_bytes(head + b"".join(part.tobytes() for part in parts))
    return folder / "float.bin"


def int8_file(folder: Path, *, shared: bool, group: int = 32, version: int = 2) -> Path:
    head = b"24ka" + struct.pack("<8iBi", version, DIM, FFN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT, shared, group)
    data = head.ljust(256, b"\0") + b"".join(WEIGHTS[name].tobytes() for name in NORMS)
    for name in MATRICES:
        if name == "output" and shared:
            continue
        for x in WEIGHTS[name] if WEIGHTS[name].ndim == 3 else WEIGHTS[name][None]:
            groups = x.reshape(-1, group)
            scale = np.abs(groups).max(axis=1) / 127
            data += np.round(groups / scale[:, None]).astype("i1").tobytes() + scale.astype("<f4").tobytes()
    (folder / "int8.bin").write_bytes(data)
    return folder / "int8.bin"


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_tensors_are_in_their_places(tmp_path: Path, kind: str, shared: bool) -> None:
    path = float_file(tmp_path, shared=shared) if kind == "float" else int8_file(tmp_path, shared=shared)
    import_checkpoint(path, tokenizer(tmp_path), tmp_path / "a.gguf")
    with Parameters.open(tmp_path / "a.gguf") as parameters:
        hyper = parameters.hyper
        assert (hyper.dim, hyper.ffn_dim, hyper.head_dim, hyper.context_length) == (DIM, FFN, DIM // HEADS, CONTEXT)
        assert hyper.tied == shared
        for stem, x in WEIGHTS.items():
            layered = len(x) == LAYERS
            names = [f"blk.{layer}.{stem}.weight" for layer in range(LAYERS)] if layered else [f"{stem}.weight"]
            for name, part in zip(names, x if layered else x[None], strict=True):
                if name in parameters.tensors:
                    tolerance = 0 if kind == "float" or part.ndim == 1 else np.abs(part).max() / 250
                    np.testing.assert_allclose(parameters.read(name), part, atol=tolerance, rtol=0)


def test_the_vocabulary(tmp_path: Path) -> None:
    import_checkpoint(float_file(tmp_path, shared=True), tokenizer(tmp_path), tmp_path / "a.gguf")
    with Parameters.open(tmp_path / "a.gguf") as parameters:
        v = parameters.vocabulary
    assert v.tokens[:4] == ("<unk>", "<s>", "</s>", "<0x00>")
    assert v.types[:4] == (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE)
    assert (v.tokens[259:261], v.types[259], v.scores[259]) == (("▁the", "▁ü"), TokenType.NORMAL, -259.0)
    assert (v.model, v.bos, v.eos, v.unk, v.add_bos, v.add_space_prefix) == ("llama", 1, 2, 0, True, True)


def test_what_is_damaged_is_refused(tmp_path: Path) -> None:
    whole, tokens = float_file(tmp_path, shared=True).read_bytes(), tokenizer(tmp_path)
    quantised = int8_file(tmp_path, shared=True).read_bytes()

    def refused(data: bytes, words: str) -> None:
        (tmp_path / "bad.bin").write_bytes(data)
        with pytest.raises(ParametersError, match=words):
            import_checkpoint(tmp_path / "bad.bin", tokens, tmp_path / "a.gguf")

    refused(b"", "ends within its header")
    refused(b"24ka\2", "ends within its header")
    refused(whole[:-1], "by its header")
    refused(whole + b"\0", "by its header")
    refused(bytes(28) + whole[28:], "for 0 heads")
    refused(struct.pack("<7i", -64, *[2] * 6) + whole[28:], "dim is -64")
    refused(whole[:8] + struct.pack("<i", 1 << 30) + whole[12:], "n_layers is 1073741824")
    refused(quantised[:-1], "by its header")
    refused(quantised[:4] + b"\1" + quantised[5:], "version 1")
    refused(quantised[:37] + bytes(4) + quantised[41:], "groups of 0")
    refused(quantised[:37] + struct.pack("<i", 7) + quantised[41:], "groups of 7")
    with pytest.raises(ParametersError, match="cannot read"):
        import_checkpoint(tmp_path / "absent", tokens, tmp_path / "a.gguf")


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoint = float_file(tmp_path, shared=True)
    whole = tokenizer(tmp_path).read_bytes()

    def refused(data: bytes, words: str) -> None:
        (tmp_path / "bad.tok").write_bytes(data)
        with pytest.raises(ParametersError, match=words):
            import_checkpoint(checkpoint, tmp_path / "bad.tok", tmp_path / "a.gguf")

    refused(b"", "has 0 tokens, the checkpoint 300")
    refused(whole[:-11], "has 299 tokens, the checkpoint 300")
    refused(whole[:-1], "the token 299 is said to have")
    refused(whole + whole[4:], "has more tokens than the 300")
    refused(whole[:8] + struct.pack("<i", -1) + whole[12:], "the token 0 is said to have -1 bytes")
    refused(whole.replace(b" the", b" \xff\xfee"), "the token 259 is not UTF-8")
    with pytest.raises(ParametersError, match="cannot read"):
        import_checkpoint(checkpoint, tmp_path / "absent", tmp_path / "a.gguf")


def test_the_real_one_tells_its_golden_story(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "models" / "stories260K"
    import_checkpoint(source / "stories260K.bin", source / "tok512.bin", tmp_path / "a.gguf")
    golden = (source / "stories260K.md").read_text().split("-t 0.0\n")[1].split("\n```")[0]
    engine = Engine(tmp_path / "a.gguf", backend="numpy")
    assert engine.info.parameters == 260_032
    session, story = engine.session(), [1]
    for _ in range(256):
        story.append(int(np.argmax(session.append(story[-1:], want="last")[-1])))
    assert engine.detokenize(story).strip() == golden.strip()
    engine.close()


def test_the_real_int8_file(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "models" / "stories260K" / "stories260K_model_qint80.bin"
    import_checkpoint(path, tokenizer(tmp_path, 1024), tmp_path / "a.gguf")
    with Parameters.open(tmp_path / "a.gguf") as parameters:
        assert (parameters.hyper.dim, parameters.hyper.n_layers, parameters.hyper.vocab_size) == (64, 4, 1024)
        for name, info in parameters.tensors.items():
            x = parameters.read(name)
            assert np.isfinite(x).all()
            assert 0.001 < x.std() < 2, (name, info)
