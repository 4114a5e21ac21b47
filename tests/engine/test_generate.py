"""Streaming: whole characters, stop strings, finish reasons and log-probabilities."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from twofile.engine.backend import Info, Step
from twofile.engine.engine import Engine
from twofile.engine.generate import Generation, Piece, generate
from twofile.engine.sampler import Sampler, Sampling
from twofile.engine.session import Session
from twofile.errors import ContextError
from twofile.params.llama2c import import_checkpoint

GREEDY = Sampling(temperature=0)


class Script:
    """A backend that says what it is told: token i + 1 is the i-th piece, 0 ends."""

    def __init__(self, pieces: Sequence[bytes], context: int = 1000) -> None:
        self.pieces = pieces
        self.read: list[int] = []
        n = len(pieces) + 1
        self.info = Info("script", "", "none", n, context, *[1] * 6, *[-1] * 5, False, False, 1, 0, 0)

    def text(self, key: str) -> str | None:
        return None

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        raise NotImplementedError

    def detokenize(self, tokens: Sequence[int], special: bool, skip_space: bool) -> bytes:
        text = b"".join(self.pieces[token - 1] for token in tokens)
        return text.removeprefix(b" ") if skip_space else text

    def attribute(self, token: int) -> int:
        return 1

    def ends(self, token: int) -> bool:
        return token == 0

    def cache(self) -> Script:
        return self

    def fork(self) -> Script:
        return self

    def rewind(self, length: int) -> None:
        pass

    def evaluate(self, steps: Sequence[Step]) -> NDArray[np.float32]:
        (_, tokens, want), *_ = steps
        self.read += tokens.tolist()
        rows = np.zeros(((0, 1, len(tokens))[want], self.info.vocab), np.float32)
        rows[..., (tokens[-1] + 1) % self.info.vocab] = 5
        return rows

    def picker(self, sampling: Sampling) -> Sampler:
        return Sampler(self.info.vocab, sampling)


def run(
    pieces: Sequence[bytes], stop: Sequence[str] = (), max_tokens: int | None = None, context: int = 1000
) -> list[Piece]:
    """Everything that follows token 0, which is the prompt."""
    return list(generate(Session(Script(pieces, context)), [0], GREEDY, max_tokens, stop))


def shown(pieces: list[Piece]) -> list[str]:
    return [piece.text for piece in pieces]


def test_it_ends_at_an_end_token() -> None:
    pieces = run([b"a", b"b", b" c"])
    assert [piece.token for piece in pieces] == [1, 2, 3, 0]
    assert shown(pieces) == ["a", "b", " c", ""]
    assert [piece.finish for piece in pieces] == [None, None, None, "end"]


def test_characters_are_whole() -> None:
    assert shown(run([b"\xe4", b"\xbd", b"\xa0!", b"\xf0\x9f", b"\x99\x82"])) == ["", "", "你!", "", "🙂", ""]
    assert shown(run([b"a\xff", b"\xe4\xbd", b"b"])) == ["a\ufffd", "", "\ufffdb", ""]
    assert shown(run([b"a\xe4\xbd"])) == ["a", "\ufffd"]
    assert shown(run([b"a\xe4", b"\xbd\xa0"], max_tokens=1)) == ["a\ufffd"]


def test_stop_strings_are_never_shown() -> None:
    pieces = run([b"one", b" E", b"N", b"D two"], ["END"])
    assert shown(pieces) == ["one", " ", "", ""]
    assert pieces[-1].finish == "stop"
    assert shown(run([b"one", b" E", b"N", b"N", b"D"], ["END"])) == ["one", " ", "", "ENN", "D", ""]
    assert shown(run([b"xEN"], ["END"])) == ["x", "EN"]  # held back, and shown when it ends otherwise
    assert shown(run([b"xEN", b"D"], ["END"], max_tokens=1)) == ["xEN"]
    assert shown(run([b"abcabcd"], ["d", "bc"])) == ["a"]
    assert shown(run([b"aab"], ["ab"])) == ["a"]
    assert shown(run([b"a", b"\xe4\xbd", b"\xa0b"], ["你"])) == ["a", "", ""]


def test_stop_strings_in_any_cutting() -> None:
    random.seed(2)
    for _ in range(500):
        text, *stops = ("".join(random.choices("ab你", k=k)) for k in [30, *random.choices((1, 2, 3, 4), k=2)])
        raw, cuts = text.encode(), sorted(random.choices(range(90), k=12))
        pieces = run([raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)], stops)
        whole = "".join(shown(pieces))
        assert text.startswith(whole)
        if pieces[-1].finish == "stop":
            assert not any(stop in whole for stop in stops)
            assert any(text[len(whole) :].startswith(stop) for stop in stops)
        else:
            assert whole == text
            assert not any(stop in text for stop in stops)


def test_length() -> None:
    pieces = run([b"a", b"b", b"c"], max_tokens=2)
    assert shown(pieces) == ["a", "b"]
    assert pieces[-1].finish == "length"
    pieces = run([b"a", b"b", b"c", b"d"], context=3)  # the prompt, two that were read, one that no longer can be
    assert shown(pieces) == ["a", "b", "c"]
    assert pieces[-1].finish == "length"


def test_the_session_holds_what_was_read() -> None:
    session = Session(Script([b"a", b"b", b"c"]))
    pieces = generate(session, [0], GREEDY)
    assert len(session) == 0
    assert next(pieces).token == 1
    assert session.tokens == [0]
    assert next(pieces).token == 2
    assert session.tokens == [0, 1]
    pieces.close()  # type: ignore[attr-defined]
    assert session.tokens == [0, 1]
    assert [piece.token for piece in generate(session, [], GREEDY)] == [2, 3, 0]  # goes on
    assert session.tokens == [0, 1, 2, 3]


def test_a_long_prompt_is_read_in_parts() -> None:
    script = Script([b"a"], 5000)
    session = Session(script)
    assert [piece.token for piece in generate(session, [1] * 2000 + [0], GREEDY)] == [1, 0]
    assert session.tokens == [*[1] * 2000, 0, 1]


def test_what_makes_no_sense_is_refused_at_once() -> None:
    session = Session(Script([b"a"], 10))
    with pytest.raises(ContextError, match=r"^a prompt of 11 tokens does not fit: the context holds 10 tokens$"):
        generate(session, [0] * 11)
    session.append([0, 0])
    with pytest.raises(ContextError, match="2 are there already"):
        generate(session, [0] * 9)
    assert len(session) == 2
    with pytest.raises(ValueError, match="nothing to go on from"):
        generate(Session(Script([b"a"])), [])
    with pytest.raises(ValueError, match="max_tokens"):
        generate(session, [0], max_tokens=0)
    for stop in ("END", ["a", ""]):
        with pytest.raises(ValueError, match="stop"):
            generate(session, [0], stop=stop)
    for logprobs in (-1, 3):
        with pytest.raises(ValueError, match="logprobs"):
            generate(session, [0], logprobs=logprobs)


def test_a_generation_needs_no_session() -> None:
    script = Script([b"a", b" EN", b"D", b"b"], context=6)
    logits_V = np.zeros(5, np.float32)

    def picked(generation: Generation, *tokens: int) -> list[Piece]:
        pieces = []
        for token in tokens:
            generation.prepare()
            logits_V[:] = 0
            logits_V[token] = 1
            pieces.append(generation.pick(logits_V))
        return pieces

    generation = Generation(script, [1, 2, 3], GREEDY, stop=("END",))
    assert generation.left == 4  # three that fit, and one that need not be read
    pieces = picked(generation, 2, 1, 2, 4)
    assert shown(pieces) == [" ", "ENa", " ", "ENb"]
    assert [piece.finish for piece in pieces] == [None, None, None, "length"]
    assert picked(Generation(script, [1], GREEDY, stop=("END",)), 2, 3)[-1] == Piece(3, "", finish="stop")
    assert picked(Generation(script, [1] * 6, GREEDY), 1) == [Piece(1, "a", finish="length")]
    assert picked(Generation(script, [1], GREEDY, 2), 1, 0)[-1].finish == "end"
    assert generation.certain() == []
    assert Generation(script, [1], GREEDY).possible([1, 2, 0, 3]) == [1, 2]
    assert script.read == []
    with pytest.raises(ValueError, match="nothing to go on from"):
        Generation(script, [], GREEDY)
    with pytest.raises(ValueError, match="logit_bias"):
        generate(Session(script), [1], Sampling(logit_bias={5: 1.0}))


def test_two_at_once_are_as_each_alone(open_engine: Callable[..., Engine], backend: str) -> None:
    """One pass for both, as a scheduler makes them."""
    if backend == "numpy":
        pytest.skip("a batch has the bits of its parts in the program alone")
    engine = open_engine()
    prompts = engine.tokenize("Once upon a time"), engine.tokenize("a little")
    samplings = Sampling(seed=1, presence=1.0), Sampling(seed=2, temperature=1.5)
    sessions = [engine.session() for _ in prompts]
    generations = [Generation(engine.backend, p, s, 20) for p, s in zip(prompts, samplings, strict=True)]
    pieces: list[list[Piece]] = [[], []]
    read: list[list[int]] = list(prompts)
    while live := [i for i in (0, 1) if not pieces[i] or not pieces[i][-1].finish]:
        rows_RV = engine.evaluate([(sessions[i], read[i], "last") for i in live])
        for i, logits_V in zip(live, rows_RV, strict=True):
            pieces[i].append(generations[i].pick(logits_V))
            read[i] = [pieces[i][-1].token]
    for i in (0, 1):
        assert pieces[i] == list(generate(engine.session(), prompts[i], samplings[i], 20))


def test_a_text_that_begins_here_has_no_space_in_front() -> None:
    script = Script([b" a", b" b"])
    script.info = replace(script.info, bos=0)
    assert shown(list(generate(Session(script), [0], GREEDY, 2))) == ["a", " b"]


def test_penalties_know_the_prompt() -> None:
    sampling = Sampling(temperature=0, presence=100)
    assert [p.token for p in generate(Session(Script([b"a", b"b"])), [1, 0], sampling)] == [2, 0]
    assert [p.token for p in generate(Session(Script([b"a", b"b"])), [1, 0], replace(sampling, window=0), 1)] == [1]


def test_logprobs_are_those_of_the_model(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    prompt = engine.tokenize("Once upon a time")
    sampling = Sampling(temperature=2, seed=4, presence=3, logit_bias={5: 4.0})
    pieces = list(generate(engine.session(), prompt, sampling, 12, logprobs=5))
    tokens = [piece.token for piece in pieces]
    rows = engine.session().append([*prompt, *tokens], "all")[len(prompt) - 1 : -1].astype(np.float64)
    logs = rows - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True)) - rows.max(1, keepdims=True)
    for piece, log in zip(pieces, logs, strict=True):
        assert piece.logprob == pytest.approx(log[piece.token], abs=1e-4)
        assert [a.logprob for a in piece.alternatives] == pytest.approx(np.sort(log)[::-1][:5], abs=1e-4)
    assert next(generate(engine.session(), prompt, sampling)).logprob is None
    piece = next(generate(engine.session(), prompt, sampling, logprobs=0))
    assert piece.logprob is not None
    assert piece.alternatives == ()
    piece = next(generate(engine.session(), prompt, sampling, logprobs=engine.vocab_size))
    assert len(piece.alternatives) == engine.vocab_size


@pytest.mark.parametrize("vocabulary", ["gpt2", "llama"])
def test_pieces_are_the_text_of_their_tokens(open_engine: Callable[..., Engine], vocabulary: str) -> None:
    engine = open_engine("llama", vocabulary=vocabulary)
    for seed in range(5):
        sampling = Sampling(temperature=1.5, top_p=1, seed=seed, logit_bias={engine.info.eos: -np.inf})
        pieces = list(generate(engine.session(), engine.prompt("Once"), sampling, 60))
        tokens = [piece.token for piece in pieces if piece.finish != "end"]
        assert "".join(shown(pieces)) == engine.detokenize_bytes(tokens).decode(errors="replace")
        again = generate(engine.session(), engine.prompt("Once"), sampling, 60)
        assert list(again) == pieces


def test_the_golden_text_of_stories260k(shared_data: Path, tmp_path: Path, backend: Literal["c", "numpy"]) -> None:
    folder = shared_data / "models" / "stories260K"
    import_checkpoint(folder / "stories260K.bin", folder / "tok512.bin", tmp_path / "stories.gguf")
    golden = (folder / "stories260K.md").read_text().split("```")
    text = next(part for part in golden if "little girl named Lily" in part)
    text = text[text.index("Once upon a time, there was a little girl") :].strip()
    with Engine(tmp_path / "stories.gguf", backend=backend) as engine:
        pieces = generate(engine.session(), engine.prompt(""), GREEDY, 256)
        assert "".join(piece.text for piece in pieces).startswith(text)


def test_both_backends_say_the_same(open_engine: Callable[..., Engine], backend: str) -> None:
    if backend == "numpy":
        pytest.skip("the reference is what it is compared with")
    ours = open_engine("qwen2")
    with Engine(ours.path, backend="numpy") as reference:
        for sampling in (GREEDY, Sampling(seed=3)):
            prompt = ours.tokenize("Once upon a time")
            said = [[p.token for p in generate(e.session(), prompt, sampling, 40)] for e in (ours, reference)]
            assert said[0] == said[1]
