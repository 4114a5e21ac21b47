"""Constraints: what finishes is valid whatever the model, control tokens never come, and errors say why."""

from __future__ import annotations

import gc
import json
import math
import re
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.tiny import tiny_hyper, tiny_parameters, tiny_spm_parameters, tiny_tensors, tiny_vocabulary
from twofile.engine import library
from twofile.engine.constraint import Constraint
from twofile.engine.engine import Engine
from twofile.engine.generate import Generation, Piece, generate
from twofile.engine.sampler import Sampling
from twofile.engine.texts import token_texts
from twofile.errors import EngineError
from twofile.params.parameters import read_vocabulary
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import TokenType, Vocabulary
from twofile.params.write import write

Open = Callable[..., Engine]
HOT = Sampling(temperature=1, top_p=1, seed=0)
GREEDY = Sampling(temperature=0)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog", None, 7]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SMALL = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}
NESTED = {
    "type": "object",
    "properties": {"a": SMALL, "b": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[a-c]{2}$"}]}},
    "required": ["b", "a"],
    "additionalProperties": False,
}


def is_person(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"name", "age"} <= value.keys() <= {"name", "age", "kind"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 6
        and type(value["age"]) is int
        and 0 <= value["age"] <= 120
        and value.get("kind", 7) in ("cat", "dog", None, 7)
    )


def is_small(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 3 and all(type(item) is bool for item in value)


def is_nested(value: Any) -> bool:
    good = isinstance(value, dict) and value.keys() == {"a", "b"} and is_small(value["a"])
    return good and (value["b"] is None or re.fullmatch("[a-c]{2}", value["b"]) is not None)


# how to make it, from what, and whether a text is one
FORMS: list[tuple[Callable[..., Constraint], Any, Callable[[str], Any]]] = [
    (Constraint.json_schema, PERSON, lambda text: is_person(json.loads(text))),
    (Constraint.json_schema, json.dumps(SMALL), lambda text: is_small(json.loads(text))),
    (Constraint.json_schema, NESTED, lambda text: is_nested(json.loads(text))),
    (Constraint.json_schema, {"type": "integer"}, lambda text: type(json.loads(text)) is int),
    (Constraint.regex, "[a-f]{3,8}(once|upon)?!", re.compile("[a-f]{3,8}(once|upon)?!").fullmatch),
    (Constraint.regex, r" ?(é|你好|\x07)x*", re.compile(r" ?(é|你好|\x07)x*").fullmatch),
    (Constraint.regex, "[^a-z]{1,9}", re.compile("[^a-z]{1,9}").fullmatch),
    (Constraint.grammar, 'start: "(" start ")" | "day" " time"*', re.compile(r"\(*day( time)*\)*").fullmatch),
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    found = [tiny_parameters("qwen3", "F32", seed, folder / f"b{seed}.gguf", n_layers=1) for seed in (1, 2)]
    return [*found, *(tiny_spm_parameters("F32", seed, folder / f"s{seed}.gguf", n_layers=1) for seed in (3, 4))]


@pytest.fixture(scope="module")
def program() -> None:
    try:
        library.load_program()
    except EngineError as error:
        pytest.skip(error.message)


def custom(path: Path, vocabulary: Vocabulary) -> Path:
    hyper = tiny_hyper("qwen3", vocabulary, n_layers=1)
    write(path, hyper, vocabulary, tiny_tensors(hyper, 1), type="F32", provenance=Provenance(name="x"))
    return path


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_whatever_finishes_is_valid(models: list[Path], backend: Literal["c", "numpy"]) -> None:
    finished = dict.fromkeys(range(len(FORMS)), 0)
    for path in models if backend == "c" else models[::3]:
        with Engine(path, threads=1, backend=backend) as engine:
            for i, (make, form, valid) in enumerate(FORMS):
                constraint = make(engine, form)
                for seed in range(25 if backend == "c" else 3):
                    sampling = replace(HOT, seed=seed, repetition=1.1 if seed % 2 else 1.0)
                    pieces = list(
                        generate(engine.session(), engine.prompt("Once"), sampling, 60, constraint=constraint)
                    )
                    assert all(engine.backend.attribute(p.token) != TokenType.CONTROL for p in pieces[:-1])
                    if pieces[-1].finish == "end":
                        finished[i] += 1
                        assert valid(text_of(pieces)), text_of(pieces)
                    else:
                        assert pieces[-1].finish == "length"
    assert backend == "numpy" or min(finished.values()) >= 5, finished


@pytest.mark.usefixtures("program")
def test_one_token_after_another_is_the_same(models: list[Path]) -> None:
    """As the scheduler does it: no token is read before it was picked, and the mask is made in another thread."""
    with Engine(models[0], threads=1, backend="c") as engine, ThreadPoolExecutor(1) as other:
        for make, form, _ in FORMS:
            constraint = make(engine, form)
            for seed in range(5):
                sampling, prompt = replace(HOT, seed=seed, presence=0.3), engine.prompt("Once")
                there = engine.session()
                want = list(generate(there, prompt, sampling, 40, (), 2, constraint))
                here = engine.session()
                generation = Generation(engine.backend, prompt, sampling, 40, (), 2, constraint)
                found: list[Piece] = []
                read = prompt
                while not found or not found[-1].finish:
                    ready = other.submit(generation.prepare)
                    logits_V = here.append(read)[0]
                    ready.result()
                    found.append(generation.pick(logits_V))
                    read = [found[-1].token]
                assert found == want
                assert here.tokens == there.tokens


@pytest.mark.usefixtures("program")
def test_control_tokens_never_come(models: list[Path]) -> None:
    for path in models[::3]:
        with Engine(path, threads=1, backend="c") as engine:
            control = [i for i, text in enumerate(token_texts(engine.backend)) if not text]
            names = [engine.detokenize_bytes([i], special=True).decode() for i in control]
            ends = {i for i in control if engine.ends(i)}
            likely_V = np.zeros(engine.vocab_size, np.float32)
            likely_V[control] = 50
            for form in ("(?s:.)*", "|".join(map(re.escape, names)), r"[<a-z|/_>]{4,20}"):
                matcher = Constraint.regex(engine, form).start()
                for _ in range(12):
                    masked_V = matcher.apply(likely_V)
                    may_end = np.isfinite(masked_V[sorted(ends)])
                    assert may_end.all() == may_end.any() == (form == "(?s:.)*" or matcher._matcher.is_accepting())
                    assert not np.isfinite(masked_V[[i for i in control if i not in ends]]).any()
                    masked_V[sorted(ends)] = -np.inf
                    if matcher.done or not np.isfinite(masked_V).any():
                        break
                    matcher.accept(int(np.flatnonzero(np.isfinite(masked_V))[-1]))


def test_a_grammar_cannot_ask_for_control_tokens(models: list[Path]) -> None:
    with Engine(models[0], backend="numpy") as engine:
        token = engine.control_tokens["<|im_start|>"]
        with pytest.raises(ValueError, match="allows no text"):
            Constraint.grammar(engine, f'start: <[{token}]> "a"')
        constraint = Constraint.grammar(engine, f'start: "a" (<[{token}]> | "b")')
        for seed in range(9):
            assert (
                text_of(list(generate(engine.session(), [1], replace(HOT, seed=seed), constraint=constraint))) == "ab"
            )


def test_penalties_know_what_left_no_choice(models: list[Path]) -> None:
    with Engine(models[0], backend="numpy") as engine:
        for first, other in ("ab", "ba"):
            constraint = Constraint.regex(engine, f"{first}[ab]")
            sampling = Sampling(temperature=0, presence=100)
            assert text_of(list(generate(engine.session(), [1], sampling, constraint=constraint))) == first + other


def test_both_spellings_of_a_byte_may_come(models: list[Path]) -> None:
    """SentencePiece has a letter as itself and as a byte: a mask with one of them alone would bend the model."""
    with Engine(models[3], backend="numpy") as engine:
        mask_V = Constraint.regex(engine, "a|b").start().apply(np.zeros(engine.vocab_size, np.float32))
        texts = token_texts(engine.backend)
        assert sorted(texts[i] for i in np.flatnonzero(np.isfinite(mask_V))) == [b"a", b"a", b"b", b"b"]


@pytest.mark.usefixtures("program")
def test_what_leaves_no_choice_is_read_at_once(models: list[Path]) -> None:
    for path in models[::3]:
        with Engine(path, threads=1, backend="c") as engine:
            session, passes = engine.session(), []
            append = session.append

            def counted(*args: Any, passes: list[Any] = passes, append: Any = append) -> Any:
                passes.append(args[0])
                return append(*args)

            session.append = counted  # type: ignore[method-assign]
            sentence = "once upon a time there was a little girl"
            pieces = list(generate(session, engine.prompt("x"), HOT, constraint=Constraint.regex(engine, sentence)))
            assert text_of(pieces) == sentence
            assert pieces[-1].finish == "end"
            assert not engine.ends(pieces[-1].token)
            assert len(passes) == 2 < len(pieces)
            # the words are cut as the model is used to
            if engine.info.add_bos:
                assert [p.token for p in pieces][1:] == engine.tokenize(sentence)[1:]
            else:
                assert [p.token for p in pieces] == engine.tokenize(sentence)
            assert session.tokens == [*engine.prompt("x"), *(p.token for p in pieces[:-1])]


def test_a_space_in_front_is_kept(models: list[Path]) -> None:
    with Engine(models[2], backend="numpy") as engine:
        for form in (" once", "once"):
            pieces = list(generate(engine.session(), [engine.info.bos], HOT, constraint=Constraint.regex(engine, form)))
            assert text_of(pieces) == form


def test_a_text_that_may_end_or_go_on(models: list[Path]) -> None:
    with Engine(models[0], backend="numpy") as engine:
        constraint = Constraint.regex(engine, "a+")
        ends = {i: 90.0 for i in range(engine.vocab_size) if engine.ends(i)}
        pieces = list(generate(engine.session(), [1], replace(HOT, logit_bias=ends), constraint=constraint))
        assert text_of(pieces) == "a"
        assert engine.ends(pieces[-1].token)
        never = dict.fromkeys(ends, -math.inf)
        pieces = list(generate(engine.session(), [1], replace(HOT, logit_bias=never), 9, constraint=constraint))
        assert text_of(pieces) == "a" * 9
        assert pieces[-1].finish == "length"
        stopped = list(generate(engine.session(), [1], replace(HOT, logit_bias=never), 9, ["aaa"], None, constraint))
        assert (text_of(stopped), stopped[-1].finish) == ("", "stop")


def test_a_vocabulary_without_an_end(tmp_path: Path) -> None:
    tiny = tiny_vocabulary()
    types = (*tiny.types[:-3], *[TokenType.NORMAL] * 3)
    tokens = (*tiny.tokens[:-3], "ĠA", "ĠB", "ĠC")
    bare = replace(tiny, tokens=tokens, types=types, bos=None, eos=None, eot=None, pad=None, chat_template=None)
    with Engine(custom(tmp_path / "a.gguf", bare), backend="numpy") as engine:
        pieces = list(generate(engine.session(), [1], HOT, constraint=Constraint.regex(engine, "ab?")))
        assert text_of(pieces) in ("ab", "a")
        pieces = list(generate(engine.session(), [1], HOT, 5, constraint=Constraint.regex(engine, "ab*")))
        assert (text_of(pieces), pieces[-1].finish) == ("abbbb", "length")
        pieces = list(generate(engine.session(), [1], HOT, constraint=Constraint.json_schema(engine, {"const": "x"})))
        assert (text_of(pieces), pieces[-1].finish) == ('"x"', "end")


def test_an_end_with_a_text_is_no_text(tmp_path: Path) -> None:
    """Where a file names a letter as its end, that letter ends; it must not count as part of the text."""
    careless = replace(tiny_vocabulary(), eos=ord("a"), eot=None)
    with Engine(custom(tmp_path / "a.gguf", careless), backend="numpy") as engine:
        assert engine.ends(ord("a"))
        with pytest.raises(ValueError, match="cannot be written with this vocabulary"):
            Constraint.regex(engine, "a+")
        for seed in range(9):
            constraint = Constraint.regex(engine, "[ab]{4}")
            pieces = list(generate(engine.session(), [1], replace(HOT, seed=seed), constraint=constraint))
            assert text_of(pieces) == "bbbb"


def test_a_vocabulary_without_some_bytes(tmp_path: Path) -> None:
    tiny = tiny_vocabulary()
    types = tuple(TokenType.UNUSED if i in (ord("q"), 0xFF) else kind for i, kind in enumerate(tiny.types))
    with Engine(custom(tmp_path / "a.gguf", replace(tiny, types=types)), backend="numpy") as engine:
        assert token_texts(engine.backend)[ord("q")] == b""
        pieces = list(generate(engine.session(), [1], HOT, constraint=Constraint.regex(engine, "[p-r]{6}")))
        assert set(text_of(pieces)) <= {"p", "r"}
        with pytest.raises(ValueError, match="cannot be written with this vocabulary"):
            Constraint.regex(engine, "q")
        constraint = Constraint.regex(engine, "[ab]q")  # seen late, but never passed over
        with pytest.raises(EngineError, match="cannot be written with this vocabulary"):
            list(generate(engine.session(), [1], HOT, constraint=constraint))
        for form in ("aq*", "aq?b*", "[ab]q*"):
            pieces = list(generate(engine.session(), [1], HOT, 20, constraint=Constraint.regex(engine, form)))
            assert re.fullmatch(form, text_of(pieces))


def test_logprobs_are_of_the_model_alone(models: list[Path]) -> None:
    with Engine(models[0], backend="numpy") as engine:
        constraint = Constraint.regex(engine, "[ab]c")
        piece = next(generate(engine.session(), [1], HOT, logprobs=3, constraint=constraint))
        plain = next(generate(engine.session(), [1], GREEDY, logprobs=3))
        assert piece.alternatives == plain.alternatives
        assert piece.logprob is not None
        assert piece.logprob < plain.alternatives[0].logprob


def test_when_nothing_is_left(models: list[Path]) -> None:
    with Engine(models[0], backend="numpy") as engine:
        constraint = Constraint.regex(engine, "[ab]c")
        bias = {ord("a"): -math.inf, ord("b"): -math.inf}
        session = engine.session()
        for temperature in (0, 1):
            with pytest.raises(EngineError, match="logit_bias"):
                next(generate(session, [1], Sampling(temperature, logit_bias=bias), constraint=constraint))
        assert session.tokens == []


def test_an_error_of_the_library_is_no_end(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has given up, its mask says that the text may end: that must not pass for a valid end."""
    with Engine(models[0], backend="numpy") as engine:
        matcher = Constraint.regex(engine, "[ab]{3}").start()
        matcher.accept(ord("a"))
        matcher._matcher.consume_token(ord("z"))  # breaks it
        with pytest.raises(EngineError, match="cannot go on"):
            matcher.apply(np.zeros(engine.vocab_size, np.float32))
        with pytest.raises(EngineError, match="cannot go on"):
            matcher.accept(engine.info.eos)
        assert not matcher.done


@pytest.mark.parametrize(
    ("make", "form", "words"),
    [
        (Constraint.regex, "[a", "the pattern cannot be used: .*unclosed character class"),
        (Constraint.regex, "(?=a)b", "look-around"),
        (Constraint.regex, "", "allows no text"),
        (Constraint.json_schema, "{", "is not JSON: .*line 1"),
        (Constraint.json_schema, "[]", "an object, not list"),
        (Constraint.json_schema, 3, "an object, not int"),
        (Constraint.json_schema, {"type": "objekt"}, "the JSON Schema cannot be used: .*objekt"),
        (Constraint.json_schema, {"not": {}}, "not"),
        (Constraint.json_schema, {"enum": []}, "Unsatisfiable"),
        (Constraint.json_schema, {"$ref": "#/nowhere"}, "nowhere"),
        (Constraint.grammar, "start: nothing", "the grammar cannot be used: .*nothing"),
        (Constraint.grammar, "", "Empty grammar"),
        (Constraint.grammar, "begin: /a/", "start"),
    ],
)  # fmt: skip
def test_errors_say_why(models: list[Path], make: Any, form: Any, words: str) -> None:
    with Engine(models[0], backend="numpy") as engine, pytest.raises(ValueError, match=f"(?s){words}"):
        make(engine, form)


def test_a_constraint_belongs_to_an_engine(models: list[Path]) -> None:
    with Engine(models[0], backend="numpy") as one, Engine(models[1], backend="numpy") as other:
        constraint = Constraint.regex(one, "a")
        with pytest.raises(ValueError, match="another engine"):
            generate(other.session(), [1], constraint=constraint)


@pytest.mark.usefixtures("program")
def test_one_constraint_for_many_at_once(models: list[Path]) -> None:
    with Engine(models[0], threads=1, backend="c") as engine:
        constraint = Constraint.json_schema(engine, PERSON)

        def said(seed: int) -> str:
            return text_of(list(generate(engine.session(), [1], replace(HOT, seed=seed), 50, constraint=constraint)))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(said, range(24))) == [said(seed) for seed in range(24)]


def test_a_vocabulary_is_read_once_and_keeps_no_model_open(models: list[Path]) -> None:
    engine = Engine(models[0], backend="numpy")
    one, two = Constraint.regex(engine, "a"), Constraint.regex(engine, "b")
    assert one._tokens is two._tokens
    backend = weakref.ref(engine.backend)
    engine.close()
    gc.collect()
    assert backend() is None
    assert one.start().only is None  # what is left of it breaks nothing


@pytest.mark.parametrize("name", ["llama-spm", "starcoder"])
@pytest.mark.usefixtures("program")
def test_real_vocabularies(shared_data: Path, name: str) -> None:
    path = shared_data / "models" / "ggml_vocab" / f"ggml-vocab-{name}.gguf"
    vocabulary = read_vocabulary(path)
    with Engine(path, backend="c") as engine:
        texts = token_texts(engine.backend)
        assert texts == [engine.detokenize_bytes([i]) for i in range(engine.vocab_size)]
        assert texts == [vocabulary.token_bytes(i) for i in range(engine.vocab_size)]
        random = np.random.default_rng(0)
        constraint = Constraint.json_schema(engine, PERSON)
        for _ in range(20):
            matcher, said = constraint.start(), []
            while not matcher.done:
                said.append(int(np.argmax(matcher.apply(random.standard_normal(engine.vocab_size, np.float32)))))
                matcher.accept(said[-1])
            assert is_person(json.loads(engine.detokenize_bytes(said)))


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The library writes to stderr when it is unhappy: it should not be, and we say what is wrong ourselves."""
    yield
    written = capfd.readouterr().err
    assert not [line for line in written.splitlines() if line and not line.startswith("twofile: compiling")]
