"""Write small parameters files for the C tests: `seeds.py FOLDER` (fuzzing), `seeds.py --models FOLDER` (test_run.c),
`seeds.py --adapters FOLDER` (a base and adapters of it, good and cut short, to fuzz).

Fuzzing wants files of a few kilobytes, so that a changed byte often matters: one of each family, type and tokenizer.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from tests.tiny import tiny_hyper, tiny_parameters, tiny_spm_parameters, tiny_tensors
from twofile.params.adapter import MATRICES, Adapter
from twofile.params.parameters import Parameters
from twofile.params.vocabulary import PRE_TOKENIZERS, TokenType, Vocabulary
from twofile.params.write import write


def seeds(folder: Path) -> None:
    letters = (*"abcehlnoprstu'1.,!?", "Ġ", "Ċ", "Ã", "©")
    words = ("he", "th", "the", "in", "Ġa", "Ġthe")
    merges = ("h e", "t h", "th e", "i n", "Ġ a", "Ġ the")
    control = ("<|end|>", "<|im_end|>")
    tokens = (*dict.fromkeys((*letters, "i", *words)), *control)
    types = (TokenType.NORMAL,) * (len(tokens) - 2) + (TokenType.CONTROL, TokenType.USER_DEFINED)
    for n, pre in enumerate(PRE_TOKENIZERS):
        vocabulary = Vocabulary("gpt2", pre, tokens, types, merges=merges, bos=len(tokens) - 2, eos=len(tokens) - 2)
        family, type = ("llama", "qwen2", "qwen3")[n % 3], ("F32", "F16", "Q8_0", "Q4_0", "BF16")[n % 5]
        small = {"dim": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "ffn_dim": 32}
        hyper = tiny_hyper(family, vocabulary, **small, tied=n % 2 == 0)
        write(folder / f"gpt2-{pre}.gguf", hyper, vocabulary, tiny_tensors(hyper, n), type=type)
    pieces = ("▁", "t", "h", "e", "a", "▁t", "he", "▁the", "é")
    spm = ("<unk>", "<s>", "</s>", "<0x0A>", "<0x41>", *pieces)
    types = (TokenType.UNKNOWN, *(TokenType.CONTROL,) * 2, *(TokenType.BYTE,) * 2, *(TokenType.NORMAL,) * len(pieces))
    scores = tuple(-float(n) for n in range(len(spm)))
    vocabulary = Vocabulary(
        "llama", "default", spm, types, scores=scores, bos=1, eos=2, unk=0, add_bos=True, add_space_prefix=True
    )
    for type in ("F32", "Q8_0"):
        hyper = tiny_hyper("llama", vocabulary, dim=32, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=16, ffn_dim=32)
        write(folder / f"spm-{type}.gguf", hyper, vocabulary, tiny_tensors(hyper, 1), type=type)
    for type in ("Q4_K", "Q5_K", "Q6_K"):
        hyper = tiny_hyper("llama", vocabulary, dim=256, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=16, ffn_dim=256)
        write(folder / f"spm-{type}.gguf", hyper, vocabulary, tiny_tensors(hyper, 1), type=type)


def models(folder: Path) -> None:
    for n, type in enumerate(("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K")):
        tiny_parameters(("llama", "qwen2", "qwen3")[n % 3], type, n, folder / f"tiny-{type}.gguf")
    tiny_spm_parameters("Q4_K_M", 1, folder / "spm-Q4_K_M.gguf", rope_factors=(1.0,) * 16 + (8.0,) * 16, n_heads=4)


def adapters(folder: Path) -> None:
    base = tiny_parameters("llama", "F32", 0, folder / "base.gguf", n_layers=1)
    draw = np.random.default_rng(1)
    with Parameters.open(base) as file:
        shapes = {
            n: s for n, s in file.hyper.shapes().items() if n.split(".")[-2] in MATRICES and n.endswith(".weight")
        }
    for number, names in enumerate((list(shapes), ["blk.0.attn_k.weight", "blk.0.ffn_up.weight"])):
        made = {n: (draw.standard_normal((3, shapes[n][1])), draw.standard_normal((shapes[n][0], 3))) for n in names}
        pairs = {n: (a.astype(np.float32), b.astype(np.float32)) for n, (a, b) in made.items()}
        whole = folder / f"adapter-{number}.gguf"
        Adapter("llama", 2.0, pairs, chat_template="x").write(whole)
        (folder / f"cut-{number}.gguf").write_bytes(whole.read_bytes()[: -64 - number])


if __name__ == "__main__":
    target = Path(sys.argv[-1])
    target.mkdir(parents=True, exist_ok=True)
    {"--models": models, "--adapters": adapters}.get(sys.argv[1], seeds)(target)
