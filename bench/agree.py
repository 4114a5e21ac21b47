"""Does llama.cpp read our parameters files, and say the same? Tokens of a text, then greedy decoding, file by file.

    .venv/bin/python bench/agree.py FILE... [--lora ADAPTER]    # needs llama-cpp-python: pip install 'twofile[bench]'

Exit status 1 when llama.cpp refuses a file, cuts a text into other tokens, or parts from us where it is not a near tie:
llama.cpp rounds activations to 8 bits under quantised weights, so two tokens less than 1 % of the spread of the logits
apart may change places. After such a place the texts have nothing to do with each other, and the comparison ends.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import llama_cpp
import numpy as np

from twofile import Engine

TEXT = "Once upon a time, there was a little girl named Lily. She didn't have 1234 naïve dragons 🐉!\n\n"
N = 64


def agree(path: Path, adapter: Path | None = None) -> str:
    """What was found, beginning with "same" where all is well."""
    with Engine(path, adapter=adapter) as engine:
        # f32 cache, and no flash attention: what is compared is the file, not the precision of a cache
        llama = llama_cpp.Llama(
            str(path), n_ctx=min(512, engine.context_length), n_threads=engine.info.threads, verbose=False,
            type_k=0, type_v=0, flash_attn=False, lora_path=None if adapter is None else str(adapter),
        )  # fmt: skip
        prompt = engine.prompt(TEXT)
        theirs = llama.tokenize(TEXT.encode(), add_bos=True, special=False)
        if prompt != theirs:
            return f"other tokens: {prompt} here, {theirs} there"
        session = engine.session()
        prompt = prompt[: engine.context_length - N]
        llama.eval(prompt)
        row = session.append(prompt)[0]
        for i in range(N):
            other = np.array(llama._ctx.get_logits_ith(-1)[: engine.vocab_size])
            ours, their = int(row.argmax()), int(other.argmax())
            if ours != their:
                gap = float(row[ours] - row[their]) / float(row.std())
                return f"{'same' if gap < 0.01 else 'PARTS'} for {i} tokens, then a gap of {gap:.2%} of the spread"
            llama.eval([ours])
            row = session.append([ours])[0]
    return f"same {N} tokens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--lora", type=Path, metavar="ADAPTER")
    given = parser.parse_args()
    found = {name: agree(Path(name), given.lora) for name in given.files}
    for name, words in found.items():
        print(f"{Path(name).name}: {words}")
    sys.exit(any(not words.startswith("same") for words in found.values()))


if __name__ == "__main__":
    main()
