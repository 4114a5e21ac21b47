"""Decompress(compress(x)) = x, whatever x is, and a refusal with a reason where that cannot be promised."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.tiny import WORDS, tiny_parameters, tiny_spm_parameters
from twofile.engine import library
from twofile.engine.backend import Backend
from twofile.engine.build import KERNELS
from twofile.engine.engine import Engine
from twofile.errors import EngineError, NotFoundError, TwofileError
from twofile.evaluate import compress as module
from twofile.evaluate.archive import Archive, Form, Part
from twofile.evaluate.bits import nats
from twofile.evaluate.compress import compress, decompress
from twofile.evaluate.exact import fingerprint, open_exact
from twofile.evaluate.surprise import first_token
from twofile.params.names import resolve

ROOT = Path(__file__).resolve().parents[2]
REAL = ("README.md", "LICENSE", "twofile/run.c", "twofile/models/stories.gguf", "twofile/engine/sampler.py")
SOME = " ".join(WORDS * 12).encode()
STORY = (
    b"Once upon a time there was a little girl named Lily. She loved to play outside in the park with her mom. "
    b"One day, she saw a big dog.\nThe dog was very happy to see her. \xff\x00 \"Hello!\" said Lily.\n"
)  # fmt: skip
SHORTEST: Callable[..., Part] = module._shortest
X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.fixture(scope="module", autouse=True)
def program(own_cache: Path) -> None:
    try:
        library.load_program()
    except EngineError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_parameters("qwen3", "Q8_0", 1, tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_spm_parameters("F32", 1, tmp_path_factory.mktemp("models") / "spm.gguf")


@pytest.fixture
def opened_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model stays open from one file to the next: a thousand files would be opened two thousand times."""
    known: dict[Any, Backend] = {}

    def open_once(path: Path, kernels: str, threads: int) -> Backend:
        if (path, threads) not in known:
            known[path, threads] = open_exact(path, kernels, threads)
        return known[path, threads]

    monkeypatch.setattr(module, "open_exact", open_once)
    yield
    known.clear()


@pytest.fixture(autouse=True)
def by_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model can keep it keeps, also where that is longer: random weights foresee nothing."""

    def forced(piece: bytes, text: Any, payload: bytes) -> Part:
        if len(text) > 1:
            return Part(Form.MODEL, len(piece), len(text) - 1, payload)
        return SHORTEST(piece, text, payload)

    monkeypatch.setattr(module, "_shortest", forced)


def some_bytes(random: Random, files: list[bytes]) -> bytes:
    """Words, control tokens' names, bytes that are no text, zeros, or a stretch of a real file; often several."""
    pieces = []
    for _ in range(random.randint(0, 4)):
        n, file = random.randint(0, 60), random.choice(files)
        at = random.randrange(len(file))
        pieces.append(
            random.choice(
                [
                    random.randbytes(n),
                    bytes(n),
                    " ".join(random.choices(WORDS, k=n // 4)).encode(),
                    random.choice((b"<|endoftext|>", b"<|im_start|>", b"<s>", b"</s>", b"<unk>", b"<0x41>")),
                    random.choice(("\u2581", "é", "你好", "\U0001f600", "\r\n\n  ")).encode()[: random.randint(1, 9)],
                    file[at : at + n],
                ]
            )
        )
    return b"".join(pieces)


@pytest.mark.parametrize("vocabulary", ["bytes", "sentencepiece"])
@pytest.mark.usefixtures("opened_once")
def test_a_thousand_inputs(vocabulary: str, tiny: Path, spm: Path) -> None:
    random, files = Random(vocabulary), [(ROOT / name).read_bytes() for name in REAL]
    path, forms, tokens = (tiny if vocabulary == "bytes" else spm), set(), 0
    for n in range(500):
        data = some_bytes(random, files)
        archive = compress(
            data, path, parts=random.choice((0, 1, 2, 3, 7)), window=random.choice((2, 3, 16, 0)), threads=1 + n % 2
        )
        found = Archive.from_bytes(archive.to_bytes(), "x")
        assert found == archive
        assert decompress(found, path, threads=1 + n // 2 % 2) == data
        forms |= {part.form for part in found.parts}
        tokens += sum(part.tokens for part in found.parts)
    assert tokens > 10_000
    # byte-level tokens give any bytes back; SentencePiece's do not
    assert (forms == {Form.MODEL}) == (vocabulary == "bytes")


def test_a_real_text_with_the_bundled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shortest", SHORTEST)
    path = resolve("stories")
    archive = compress(STORY * 3, path, parts=3)
    assert {part.form for part in archive.parts} == {Form.MODEL}
    assert len(archive.to_bytes()) < len(STORY) + 150
    assert decompress(archive, path) == STORY * 3


@pytest.mark.parametrize("window", [3, 16, 400])
def test_what_it_takes_is_what_the_model_did_not_foresee(window: int) -> None:
    path, text = resolve("stories"), STORY * 2
    (part,) = compress(text, path, parts=1, window=window).parts
    with Engine(path) as engine:
        bits = nats(engine, [first_token(engine.info), *engine.tokenize(text)], window).sum() / math.log(2)
    assert 0.98 * bits < 8 * len(part.payload) < bits + 9  # what a text cannot have has no chance: a little less


@pytest.mark.parametrize("kernels", KERNELS if X86 else ("native",))
def test_kernels_threads_and_windows(kernels: str, tiny: Path) -> None:
    if kernels == "avx2" and " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    made = [
        compress(SOME, tiny, kernels=kernels.replace("native", ""), threads=threads, window=16, parts=2)
        for threads in (1, 2)
    ]
    assert made[0] == made[1]
    assert kernels in ("native", made[0].kernels)
    assert made[0].longest > 3 * 16  # more than one window
    for threads in (1, 2):
        assert decompress(made[0], tiny, threads=threads) == SOME


@pytest.mark.skipif(not X86, reason="one kind of kernels")
def test_the_environment_does_not_choose_for_a_file(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = compress(SOME, tiny)
    monkeypatch.setenv("TWOFILE_KERNELS", "c")
    assert compress(SOME, tiny).kernels == "c"
    assert decompress(archive, tiny) == SOME


def test_parts_are_near_in_size_and_end_with_lines_and_characters() -> None:
    text = "".join(f"line {i} é你\n" for i in range(400)).encode()
    for n in (1, 2, 5, 32):
        pieces = list(module._pieces(text, n))
        assert b"".join(pieces) == text
        assert n - n // 4 - 1 <= len(pieces) <= n
        assert all(piece.endswith(b"\n") for piece in pieces)
    for data in ("你" * 50).encode(), b"\x80" * 50, b"\n" * 9, b"a", b"":
        pieces = list(module._pieces(data, 7))
        assert b"".join(pieces) == data
        assert all(pieces)
    assert all(piece.decode() for piece in module._pieces(("é你" * 50).encode(), 7))


def test_a_window_of_one_token(tiny: Path) -> None:
    with pytest.raises(ValueError, match="foresees nothing"):
        compress(SOME, tiny, window=1)


def test_nothing_grows_by_more_than_the_header(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shortest", SHORTEST)
    for data in (b"", b"x", Random(1).randbytes(5000)):
        archive = compress(data, tiny, parts=3)
        assert len(archive.to_bytes()) < len(data) + 150
        assert (archive.longest, len(archive.parts)) == (0, min(1, len(data)))
        assert decompress(archive) == data  # no model is asked for


def test_more_parts_than_are_read_at_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PARTS", 2)
    archive = compress(SOME, tiny, parts=5)
    assert len(archive.parts) >= 4
    assert decompress(archive, tiny) == SOME


def test_progress(tiny: Path) -> None:
    seen: list[tuple[int, int]] = []
    archive = compress(SOME, tiny, progress=lambda *at: seen.append(at))
    assert seen[-1] == (len(SOME), len(SOME))
    seen.clear()
    decompress(archive, tiny, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert seen[-1] == (len(SOME), len(SOME))


def test_another_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    archive = compress(SOME, tiny, name="mine")
    other = tiny_parameters("qwen3", "Q8_0", 2, tmp_path / "other.gguf")
    with pytest.raises(NotFoundError, match=r"'mine', whose sha256 is .*that of .*other\.gguf is"):
        decompress(archive, other)
    with pytest.raises(NotFoundError, match="none is given"):
        decompress(archive)


def test_other_arithmetic_is_refused(tiny: Path) -> None:
    archive = compress(SOME, tiny)
    with pytest.raises(EngineError, match="give other bits than where it was compressed, by twofile"):
        decompress(replace(archive, fingerprint=bytes(16)), tiny)
    with pytest.raises(EngineError, match="the kernels sve are needed, and this machine has"):
        decompress(replace(archive, kernels="sve"), tiny)
    with pytest.raises(EngineError, match="a window of 4096 tokens"):
        decompress(replace(archive, window=4096), tiny)


@pytest.mark.skipif(not X86, reason="x86")
def test_wider_kernels_than_there_are(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with plain x86-64 must not even load what would stop it."""
    narrow = open_exact(tiny, "c")
    monkeypatch.setattr("twofile.evaluate.exact.load_program", lambda: narrow._library)  # type: ignore[attr-defined]
    for kernels in ("avx2", "avx512"):
        with pytest.raises(EngineError, match=f"kernels {kernels} are needed, and this machine has c") as error:
            open_exact(tiny, kernels)
        assert "--kernels c" in error.value.hint


def test_no_compiler_no_promise(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFILE_CC", "no-such-compiler")
    with pytest.raises(EngineError, match="NumPy, which could run the model, does not keep bits"):
        compress(SOME, tiny)


def test_a_payload_that_is_not_its_own_is_found(tiny: Path) -> None:
    """As it were after arithmetic that differs somewhere the fingerprint does not look."""
    archive = compress(SOME, tiny, parts=2)
    assert {part.form for part in archive.parts} == {Form.MODEL}
    first, *others = archive.parts
    for payload in (b"", first.payload[::-1], b"\xff" * 99):
        with pytest.raises(EngineError, match="not what was compressed"):
            decompress(replace(archive, parts=(replace(first, payload=payload), *others)), tiny)
    lzma = Part(Form.LZMA, 10, 0, b"\xff\xfe no stream")
    with pytest.raises(EngineError, match="not what was compressed"):
        decompress(replace(archive, parts=(lzma,)))


@pytest.mark.usefixtures("opened_once")
def test_changed_files_never_give_other_content(tiny: Path) -> None:
    archive, random = compress(SOME, tiny, parts=2), Random(3)
    raw = archive.to_bytes()
    for _ in range(300):
        at = random.randrange(len(raw))
        changed = random.choice((raw[:at], raw[:at] + random.randbytes(3) + raw[at + 3 :]))
        if changed != raw:
            with pytest.raises(TwofileError):
                decompress(Archive.from_bytes(changed, "x"), tiny)
    assert decompress(Archive.from_bytes(raw, "x"), tiny) == SOME


def test_fingerprints(tiny: Path, tmp_path: Path) -> None:
    one, two = open_exact(tiny, threads=1), open_exact(tiny, threads=2)
    assert len({fingerprint(one, n) for n in (0, 1, 2, 63, 64, 65, 128)}) == 7
    for n in (1, 64, 100):
        assert fingerprint(one, n) == fingerprint(two, n)
    other = open_exact(tiny_parameters("qwen3", "Q8_0", 2, tmp_path / "other.gguf"))
    assert fingerprint(other, 10) != fingerprint(one, 10)


def test_a_last_bit_changes_the_fingerprint(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_exact(tiny)
    before, evaluate = fingerprint(backend, 100), backend.evaluate

    def elsewhere(steps: Any) -> Any:
        logits_RV = evaluate(steps)
        logits_RV[-1, -1] = np.nextafter(logits_RV[-1, -1], np.float32(np.inf))
        return logits_RV

    monkeypatch.setattr(backend, "evaluate", elsewhere)
    assert fingerprint(backend, 100) != before
