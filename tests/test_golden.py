"""The real checkpoint stories260K, from its llama2.c file to its published text: the C program alone, the engine on
both backends, and what Q8_0 changes. (Each family against `transformers`: engine/test_reference.py and params/.)"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from twofile.engine.build import SOURCE
from twofile.engine.engine import Engine
from twofile.engine.generate import generate
from twofile.engine.sampler import Sampling
from twofile.params.llama2c import import_checkpoint
from twofile.params.quantise import quantise

GREEDY = Sampling(temperature=0)
N = 256


@pytest.fixture(scope="module")
def stories(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, path = shared_data / "models" / "stories260K", tmp_path_factory.mktemp("golden") / "stories260K.gguf"
    import_checkpoint(folder / "stories260K.bin", folder / "tok512.bin", path)
    return path


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> str:
    """The text that the model's README gives for greedy decoding."""
    parts = (shared_data / "models" / "stories260K" / "stories260K.md").read_text().split("```")
    text = next(part for part in parts if "little girl named Lily" in part)
    return text[text.index("Once upon a time, there was a little girl") :].strip()


def greedy(path: Path, backend: str) -> tuple[list[int], str]:
    with Engine(path, backend=backend) as engine:  # type: ignore[arg-type]
        pieces = list(generate(engine.session(), engine.prompt(""), GREEDY, N))
    return [piece.token for piece in pieces], "".join(piece.text for piece in pieces)


def test_engine_and_reference_give_the_published_text(stories: Path, golden: str) -> None:
    c_tokens, c_text = greedy(stories, "c")
    numpy_tokens, _ = greedy(stories, "numpy")
    assert c_text.startswith(golden)
    assert c_tokens == numpy_tokens


def test_the_program_by_itself_gives_the_published_text(stories: Path, golden: str, tmp_path: Path) -> None:
    """One C file, compiled as its head says, with no Python between it and the parameters file."""
    compiler = next((cc for cc in ("cc", "gcc", "clang") if shutil.which(cc)), None)
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path / "run"
    subprocess.run([compiler, "-O2", "-march=native", SOURCE, "-lm", "-lpthread", "-o", program], check=True)
    command = [program, stories, "-p", "", "-t", "0", "-n", str(N)]
    said = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert said.stdout.decode().startswith(golden)
    assert b"/s" in said.stderr


@pytest.mark.filterwarnings("ignore:.*kept as F16.*:UserWarning")  # its rows of 172 fill no block of Q8_0
def test_q8_0_says_the_same_for_a_while(stories: Path, tmp_path: Path) -> None:
    """Q8_0 rounds weights, and the C program what they are multiplied by, so greedy texts part sooner or later."""
    quantise(stories, tmp_path / "q8.gguf", "Q8_0")
    plain, _ = greedy(stories, "c")
    rounded, _ = greedy(tmp_path / "q8.gguf", "c")
    for backend, said in (("c", rounded), ("numpy", greedy(tmp_path / "q8.gguf", "numpy")[0])):
        first = next((i for i, (a, b) in enumerate(zip(plain, said, strict=False)) if a != b), N)
        print(f"Q8_0 by {backend} parts from F32 at token {first} of {N}")
        assert first >= 20
