"""Speculative decoding: the text is what it is without, token for token, and no wrong guess stays anywhere."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import tiny_hyper, tiny_parameters, tiny_spm_parameters, tiny_tensors, tiny_vocabulary
from twofile.engine import library
from twofile.engine.constraint import Constraint
from twofile.engine.draft import Draft, DraftModel, PromptLookup
from twofile.engine.engine import Engine
from twofile.engine.generate import Piece, generate
from twofile.engine.pace import Pace
from twofile.engine.sampler import Sampling
from twofile.engine.session import Session
from twofile.errors import EngineError
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import TokenType
from twofile.params.write import write

VARIED = Sampling(temperature=0, presence=3)  # no randomness, and yet it does not repeat itself
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}, "ages": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name", "ages"],
    "additionalProperties": False,
}


class Eager(Pace):
    """Guesses always, and a random number of tokens: so that there is much to get wrong."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.random = random.Random(seed)

    def size(self, kind: int, room: int) -> int:
        return min(room, self.random.randint(0, 6))


class Oracle(Draft):
    """Knows a text, and errs now and then."""

    def __init__(self, text: Sequence[int], wrong: float = 0.0, vocab: int = 0) -> None:
        super().__init__()
        self._pace = Eager()
        self.known, self.wrong, self.vocab, self.random = list(text), wrong, vocab, random.Random(1)

    def _begin(self, text: Sequence[int]) -> None:
        self.at = len(text)

    def _take(self, tokens: Sequence[int]) -> None:
        self.at += len(tokens)

    def _find(self) -> int | None:
        return 0

    def _next(self, size: int) -> list[int]:
        right = self.known[self.at : self.at + size]
        return [self.random.randrange(self.vocab) if self.random.random() < self.wrong else token for token in right]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        library.load_program()
    except EngineError as error:
        pytest.skip(error.message)
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(tiny_parameters("llama", "F32", 1, folder / "big.gguf"), threads=1, backend="c") as found:
        yield found


@pytest.fixture(scope="module")
def rough(folder: Path, engine: Engine) -> Iterator[Engine]:
    """The same model, roughly: right about half of the time. Its context is shorter."""
    path = tiny_parameters("llama", "Q4_0", 1, folder / "rough.gguf", context_length=80)
    with Engine(path, threads=1, backend="c") as found:
        yield found


@pytest.fixture(scope="module")
def spm(folder: Path) -> Iterator[Engine]:
    with Engine(tiny_spm_parameters("F32", 1, folder / "spm.gguf"), threads=1, backend="c") as found:
        yield found


def drafts(engine: Engine, rough: Engine) -> list[Draft]:
    made: list[Draft] = [PromptLookup(), DraftModel(rough, engine), DraftModel(engine, engine)]
    for i, draft in enumerate(made):
        draft._pace = Eager(i)
    return made


def some_prompt(engine: Engine, chance: random.Random) -> list[int]:
    """With much that repeats, so that there is something to look up."""
    words = chance.choices(("once", " upon", " a", " time", " the", " little", "girl", "é", "\n", "7"), k=4)
    return engine.prompt("".join(chance.choices(words, k=chance.randint(1, 14))))


def some_sampling(engine: Engine, chance: random.Random) -> Sampling:
    ends = {i: float("-inf") for i in (engine.info.eos, engine.info.eot) if i >= 0}
    return Sampling(
        temperature=chance.choice((0, 0, 0.3, 0.8, 1.3)), top_p=chance.choice((1, 0.9)), top_k=chance.choice((0, 0, 5)),
        repetition=chance.choice((1, 1, 1.2)), presence=chance.choice((0, 0, 0.5)), window=chance.choice((3, 256)),
        logit_bias=chance.choice(({}, ends)), seed=chance.randrange(99),
    )  # fmt: skip


def test_the_text_is_the_same(engine: Engine, rough: Engine) -> None:
    """1,000 prompts, greedy and sampled, with each draft; what the session holds in the end is the same too."""
    chance, made = random.Random(5), drafts(engine, rough)
    guessed = 0
    for n in range(1000):
        prompt, sampling, length = some_prompt(engine, chance), some_sampling(engine, chance), chance.randint(1, 24)
        plain = engine.session()
        want = list(generate(plain, prompt, sampling, length))
        for draft in made:
            session = engine.session()
            assert list(generate(session, prompt, sampling, length, draft=draft)) == want, n
            assert session.tokens == plain.tokens
        if n % 25 == 0:
            logits = [s.append([5])[0] for s in (plain, session)]
            assert np.array_equal(*logits)
        guessed += len(want)
    assert guessed > 5000


def test_with_all_there_is(engine: Engine, rough: Engine, spm: Engine) -> None:
    """Stop strings, log-probabilities, constraints and a context that is nearly full, together with guesses."""
    chance = random.Random(6)
    for which, made in ((engine, drafts(engine, rough)), (spm, drafts(spm, spm))):
        forms = [None, Constraint.json_schema(which, SCHEMA), Constraint.regex(which, "(once upon |a time ){2,9}end")]
        finishes: dict[Any, int] = {}
        for n in range(60):
            prompt, sampling = some_prompt(which, chance), some_sampling(which, chance)
            settings: tuple[Any, ...] = (
                chance.choice((None, 20)), chance.choice(((), ("once u", "[1"), ("a",))), chance.choice((None, 0, 3)),
                forms[n % 3],
            )  # fmt: skip
            if n % 5 == 0:
                prompt = (prompt * 128)[-chance.randint(118, 128) :]
            plain = which.session()
            want = list(generate(plain, prompt, sampling, *settings))
            finishes[want[-1].finish] = finishes.get(want[-1].finish, 0) + 1
            for draft in made:
                session = which.session()
                assert list(generate(session, prompt, sampling, *settings, draft=draft)) == want, n
                assert session.tokens == plain.tokens == [*prompt, *(piece.token for piece in want[:-1])]
        assert min(finishes.get(finish, 0) for finish in ("end", "stop", "length")) > 2, finishes


def test_right_guesses_save_passes_and_wrong_ones_none(engine: Engine) -> None:
    sampling = Sampling(temperature=1, seed=2, logit_bias={engine.info.eos: float("-inf")})
    want = list(generate(engine.session(), [1, 2], sampling, 60))
    text = [1, 2, *(piece.token for piece in want)]
    for wrong, least, most in ((0.0, 10, 20), (0.4, 21, 50), (1.0, 58, 60)):
        session, passes = counted(engine)
        oracle = Oracle(text, wrong, engine.vocab_size)
        assert list(generate(session, [1, 2], sampling, 60, draft=oracle)) == want
        assert least <= len(passes) <= most


def counted(engine: Engine) -> tuple[Session, list[int]]:
    """A session, and how many tokens each of its passes reads."""
    session, passes = engine.session(), []
    append = session.append

    def counting(tokens: Sequence[int], want: Any = "last") -> Any:
        passes.append(len(tokens))
        return append(tokens, want)

    session.append = counting  # type: ignore[method-assign]
    return session, passes


def test_closed_midway(engine: Engine) -> None:
    """At every piece: what was not shown is not in the session, and it goes on as if there had been no guess."""
    want = list(generate(engine.session(), [1, 2], VARIED, 30))
    text = [1, 2, *(piece.token for piece in want)]
    for stop_after in range(1, len(want)):
        session = engine.session()
        pieces = generate(session, [1, 2], VARIED, 30, draft=Oracle(text))
        seen = [next(pieces) for _ in range(stop_after)]
        pieces.close()  # type: ignore[attr-defined]
        assert seen == want[:stop_after]
        assert session.tokens == text[: 1 + stop_after]
        rest = list(generate(session, [seen[-1].token], VARIED, 30 - stop_after, draft=Oracle(text)))
        assert [piece.token for piece in rest] == text[2 + stop_after :]


def test_closed_late(engine: Engine) -> None:
    """A forgotten iterator must not touch a session that others went on with."""
    want = [1, 2, *(piece.token for piece in generate(engine.session(), [1, 2], VARIED, 30))]
    for length in (0, 2, 3, 12):
        session = engine.session()
        pieces = generate(session, [1, 2], VARIED, 30, draft=Oracle(want))
        while len(session) < 12:
            next(pieces)
        held = session.tokens
        session.rewind(length)
        session.append([7] * (len(held) - length) if length < 12 else [7])
        now = session.tokens
        del pieces
        gc.collect()
        assert session.tokens == now
    session.close()


def test_interrupted_anywhere(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before or just behind any pass of the program: nothing that was guessed stays, and it can go on."""
    prompt = [1, 2, 3, 1, 2, 3]
    want = [piece.token for piece in generate(engine.session(), prompt, VARIED, 20)]
    text = [*prompt, *want]
    evaluate, calls, at, behind = engine.backend.evaluate, 0, 0, False

    def interrupted(steps: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and not behind:
            raise KeyboardInterrupt
        result = evaluate(steps)
        if calls == at:  # the program has read the tokens, and the session does not know
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(engine.backend, "evaluate", interrupted)
    for draft in (Oracle(text, 0.3, engine.vocab_size), DraftModel(engine, engine)):
        draft._pace = Eager()
        for when in product(range(1, 14), (False, True)):
            at, behind = when
            calls, session = 0, engine.session()
            said: list[int] = []
            with suppress(KeyboardInterrupt):
                said.extend(piece.token for piece in generate(session, prompt, VARIED, 20, draft=draft))
            calls = 100
            assert said == want[: len(said)]
            assert session.tokens == text[: len(session)]
            assert len(session) <= len(prompt) + max(len(said) - 1, 0)
            if said != want:
                read = text[len(session) : len(prompt) + len(said)]
                rest = generate(session, read, VARIED, 20 - len(said), draft=draft)
                assert said + [piece.token for piece in rest] == want


def test_a_session_in_use_before(engine: Engine) -> None:
    """A draft begins with everything the session holds, and an empty prompt goes on."""
    session, other = engine.session(), engine.session()
    for s in (session, other):
        s.append([1, 2, 3, 1, 2, 3, 1, 2])
    draft = PromptLookup()
    draft._pace = Eager()
    assert list(generate(session, [], VARIED, 20, draft=draft)) == list(generate(other, [], VARIED, 20))
    assert session.tokens == other.tokens
    assert list(generate(session, [4], VARIED, 20, draft=draft)) == list(generate(other, [4], VARIED, 20))


# --- prompt lookup


def looked_up(text: Sequence[int], size: int = 4) -> list[int]:
    lookup = PromptLookup()
    lookup.begin(text[:3])
    for token in text[3:]:
        lookup.take([token])
    return lookup._next(size) if lookup._find() is not None else []


def test_lookup_follows_the_longest_run() -> None:
    assert looked_up([1, 2, 3, 4, 5, 6, 1, 2]) == [3, 4, 5, 6]
    assert looked_up([1, 2, 3, 9, 8, 2]) == []
    assert looked_up([1, 2]) == []
    assert looked_up([5, 1, 2, 3, 4, 7, 7, 6, 3, 4, 8, 8, 1, 2, 3, 4]) == [7, 7, 6, 3]  # not what follows the last 3, 4
    assert looked_up([3, 4, 7, 0, 3, 4, 8, 0, 3, 4]) == [8, 0, 3, 4]  # the later of two equals
    assert looked_up([9, 1, 2, 3, 1, 2, 3, 1, 2], 7) == [3, 1, 2, 3, 1, 2, 3]  # what repeats itself
    assert looked_up([6, 6, 6, 6], 3) == [6, 6, 6]


def test_lookup_does_not_slow_down() -> None:
    lookup = PromptLookup()
    chance = random.Random(1)
    lookup.begin([1])
    for _ in range(20000):
        lookup.take([chance.randrange(50)])
        lookup._find()
    assert sum(len(after) for after in lookup._after.values()) < 3 * 20001


# --- a second model


def test_different_vocabularies_are_refused(engine: Engine, spm: Engine, folder: Path) -> None:
    with pytest.raises(EngineError, match=r"spm.gguf cannot draft for big.gguf: their vocabularies differ"):
        DraftModel(spm, engine)
    vocabulary = tiny_vocabulary()
    renamed = replace(vocabulary, tokens=(*vocabulary.tokens[:-1], "<|im_stop|>"))
    swapped = replace(vocabulary, tokens=("%", '"', *vocabulary.tokens[2:]))
    for other, at in ((renamed, len(vocabulary.tokens) - 1), (swapped, 0)):
        hyper = tiny_hyper("qwen3", other)
        path = folder / "other.gguf"
        write(path, hyper, other, tiny_tensors(hyper, 1), type="F32", provenance=Provenance(name="x"))
        with Engine(path, backend="c") as smaller, pytest.raises(EngineError, match=f"first at token {at} "):
            DraftModel(smaller, engine)


def test_padding_at_the_end_of_a_vocabulary_is_no_difference(engine: Engine, folder: Path) -> None:
    vocabulary, n = tiny_vocabulary(), 40
    padded = replace(
        vocabulary, tokens=(*vocabulary.tokens, *(f"[PAD{i}]" for i in range(n))),
        types=(*vocabulary.types, *[TokenType.UNUSED] * n),
    )  # fmt: skip
    hyper = tiny_hyper("qwen3", padded)
    path = folder / "padded.gguf"
    write(path, hyper, padded, tiny_tensors(hyper, 1), type="F32", provenance=Provenance(name="x"))
    with Engine(path, threads=1, backend="c") as larger:
        for target, smaller in ((engine, larger), (larger, engine)):
            draft = DraftModel(smaller, target)
            draft._pace = Eager()
            for seed in range(20):
                hot = Sampling(temperature=2, top_p=1, seed=seed)
                want = list(generate(target.session(), [1], hot, 40))
                assert list(generate(target.session(), [1], hot, 40, draft=draft)) == want


def test_a_draft_model_reads_only_what_is_new(engine: Engine) -> None:
    draft = DraftModel(engine, engine)
    draft._pace = Eager()
    session, passes = counted(engine)
    draft._session = session
    want = list(generate(engine.session(), [1, 2, 3] * 20, VARIED, 20, draft=draft))
    assert max(passes) >= 60
    assert sum(sorted(passes)[:-1]) < 45  # each token once, but for what was guessed wrongly
    text = [1, 2, 3] * 20 + [piece.token for piece in want]
    passes.clear()
    list(generate(engine.session(), [*text, 5, 6], VARIED, 20, draft=draft))
    assert max(passes) < 12


@pytest.mark.parametrize("sampling", [VARIED, Sampling(temperature=1, seed=3)])
def test_a_draft_model_says_what_it_finds_most_likely(engine: Engine, rough: Engine, sampling: Sampling) -> None:
    """Behind right guesses, wrong ones and none, what it has read is the text as it came."""
    draft = DraftModel(rough, engine)
    draft._pace = Eager()
    make, guesses = draft._next, 0

    def checked(size: int) -> list[int]:
        nonlocal guesses
        guess = make(size)
        guesses += 1
        fresh, want = rough.session(), []
        logits_V = fresh.append(draft._text)[0]
        while len(want) < size and not rough.ends(token := int(np.argmax(logits_V))) and fresh.room:
            want.append(token)
            logits_V = fresh.append([token])[0]
        assert guess == want
        return guess

    draft._next = checked  # type: ignore[method-assign]
    for prompt in ([1, 2, 3], [1, 2, 9, 9]):
        list(generate(engine.session(), prompt, sampling, 60, draft=draft))
    assert guesses > 20


def test_no_draft_is_longer_than_asked(engine: Engine) -> None:
    text = [1, 2, *(piece.token for piece in generate(engine.session(), [1, 2], VARIED, 50))]
    session, passes = counted(engine)
    short = PromptLookup(longest=2)
    short._pace.time(0, 1.0)
    list(generate(session, (text * 3)[:90], VARIED, 30, draft=short))
    assert max(passes[1:]) <= 3
    assert all(isinstance(piece, Piece) for piece in generate(engine.session(), [1], VARIED, 1, draft=short))
