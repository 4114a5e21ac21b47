"""The scheduler: that no stream ever notices another, that nothing is lost, and that nobody waits without need."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twofile.engine import library
from twofile.engine import scheduler as scheduler_module
from twofile.engine.backend import Step
from twofile.engine.constraint import Constraint
from twofile.engine.engine import Engine
from twofile.engine.generate import Generation, Piece, generate
from twofile.engine.sampler import Sampling
from twofile.engine.scheduler import Scheduler, Stream
from twofile.errors import ContextError, EngineError

GREEDY = Sampling(temperature=0)
BLOCK = 16


class Stepped(Scheduler):
    """A scheduler whose passes the test makes, one by one."""

    def _run(self) -> None:
        pass

    def step(self) -> None:
        self._turn()

    def drain(self) -> None:
        while self._running or self._waiting:
            self._turn()

    def close(self) -> None:
        super().close()
        self._leave()


class Spy:
    """A backend that notes how many tokens each step of each pass has, and is slow or fails when told to."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.passes, self.fail, self.pause = backend, [], False, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def evaluate(self, steps: Sequence[Step]) -> NDArray[np.float32]:
        if self.fail:
            raise EngineError("out of memory for the KV cache") from OSError("no page")
        self.passes.append([len(tokens) for _, tokens, _ in steps])
        time.sleep(self.pause)
        return self._backend.evaluate(steps)


@pytest.fixture(scope="module")
def tiny(make: Callable[..., Path]) -> Engine:
    """A tiny model in the C program, whose logits have the same bits however texts are cut and batched."""
    try:
        library.load_program()
    except EngineError as error:
        pytest.skip(error.message)
    return Engine(make("qwen3"), threads=1, backend="c")


@pytest.fixture
def engine(tiny: Engine) -> Iterator[Engine]:
    """The tiny model; whatever a test does, in the end no memory is held."""
    gc.collect()
    assert tiny.backend.held() == 0
    yield tiny
    assert tiny.backend.held() == 0


@pytest.fixture
def spied(tiny: Engine, monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy = Spy(tiny.backend)
    monkeypatch.setattr(tiny, "_backend", spy)
    return spy


def alone(engine: Engine, prompt: Sequence[int], *settings: Any) -> list[Piece]:
    """What the text is when nothing else runs."""
    return list(generate(engine.session(), prompt, *settings))


def taken(stream: Stream) -> list[Piece]:
    """The pieces that are there already."""
    pieces = []
    while not stream.job.pieces.empty() and (piece := next(stream, None)):
        pieces.append(piece)
    return pieces


def prompt_of(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(256), k=length)


def test_streams_say_what_generate_says(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine("llama", vocabulary="llama")
    settings: list[tuple[list[int], tuple[Any, ...]]] = [
        (engine.prompt("Once upon a time"), (GREEDY, 20)),
        (engine.prompt("Once upon a time"), (Sampling(temperature=1.5, seed=3), 20, ["e"])),
        (engine.prompt("Once upon a day"), (Sampling(seed=4, repetition=1.5), 20, (), 3)),
        (engine.prompt("The"), (Sampling(seed=5),)),
    ]
    with Scheduler(engine, chunk=5) as scheduler:
        streams = [scheduler.submit(prompt, *rest) for prompt, rest in settings]
        for stream, (prompt, rest) in zip(streams, settings, strict=True):
            pieces, want = list(stream), alone(engine, prompt, *rest)
            assert [(p.token, p.text, p.finish) for p in pieces] == [(p.token, p.text, p.finish) for p in want]
            assert [p.logprob for p in pieces] == pytest.approx([p.logprob for p in want], abs=1e-4)
            assert stream.tokens == prompt + [piece.token for piece in pieces]
            assert next(stream, None) is None  # and again
    assert engine.backend.held() == 0


@dataclass
class Request:
    """A stream, what was asked for, and what it said."""

    stream: Stream
    prompt: list[int]
    settings: tuple[Any, ...]
    said: list[Piece] = field(default_factory=list)
    cancelled: bool = False

    def take(self) -> None:
        self.said += taken(self.stream)


class Schedule:
    """Requests that come, go, part and are forgotten, all by chance, in memory that is mostly short.

    Prompts begin alike more often than not. Settings are few, so that what is said alone is computed once for many."""

    alone: dict[tuple[Any, ...], list[Piece]] = {}  # noqa: RUF012
    counts: Counter[str] = Counter()  # noqa: RUF012

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.random = engine, random.Random(seed)
        choice = self.random.choice
        self.memory = choice((0, 2, 4, 8, 16, 1000)) * BLOCK * engine.info.token_bytes
        self.scheduler = Stepped(engine, choice((1, 2, 3, 8)), choice((1, 3, 8, 20, 64)), self.memory)
        self.requests: list[Request] = []

    def run(self) -> None:
        actions = [self.submit] * 7 + [self.cancel] * 2 + [self.fork] * 3 + [self.evict] * 2 + [self.step] * 6
        for _ in range(self.random.randrange(4, 16)):
            self.random.choice(actions)()
        whole = self.random.random() < 0.8
        while whole and (self.scheduler._running or self.scheduler._waiting):
            self.step()
        self.scheduler.close()  # or in the midst of it
        for request in self.requests:
            self.check(request, whole)

    def settings(self) -> tuple[Any, ...]:
        sampling = self.random.choice((GREEDY, Sampling(seed=0, temperature=1.0), Sampling(seed=1, presence=0.5)))
        return sampling, self.random.choice((1, 2, 7, 12)), self.random.choice(((), (), ("e", "th")))

    def submit(self) -> None:
        choice = self.random.choice
        prompt = prompt_of(0, 40)[: choice((1, 15, 16, 17, 31, 40))]
        prompt += prompt_of(choice((1, 2, 3)), 20)[: choice((0, 1, 9, 20))]
        settings, session, held = self.settings(), None, 0
        if self.random.random() < 0.2:
            session, held = self.engine.session(), self.random.randrange(len(prompt) + 1)
            session.append(prompt, "none")
            session.rewind(held)
        stream = self.scheduler.submit(prompt[held:], *settings, session=session)
        self.requests.append(Request(stream, prompt, settings))

    def cancel(self) -> None:
        if self.requests:
            request = self.random.choice(self.requests)
            request.cancelled = True
            request.stream.cancel()
            if self.random.random() < 0.5:  # nobody wants it any more
                request.take()
                self.check(request, False)
                self.requests.remove(request)

    def fork(self) -> None:
        if self.requests:
            parent, settings = self.random.choice(self.requests), self.settings()
            if self.random.random() < 0.7:
                parent.take()
            self.requests.append(Request(parent.stream.fork(*settings), parent.stream.tokens, settings))

    def evict(self) -> None:
        self.counts["evicted"] += self.scheduler._known.evict()

    def step(self) -> None:
        known = len(self.scheduler._known)
        running = {job: len(job.tokens) for job in self.scheduler._running if len(job.tokens) > job.prompt}
        running = {job: n for job, n in running.items() if job not in self.scheduler._cancelled}
        self.scheduler.step()
        assert all(len(job.tokens) == n + 1 for job, n in running.items())  # every stream, in every pass
        assert sum(job.unread > 1 for job in self.scheduler._running) <= 1
        assert self.engine.backend.held() <= self.memory or not self.scheduler._known
        self.counts["forgot"] += len(self.scheduler._known) < known

    def check(self, request: Request, whole: bool) -> None:
        request.take()
        key = (*request.prompt, repr(request.settings))
        if key not in self.alone:
            self.alone[key] = alone(self.engine, request.prompt, *request.settings)
        want = self.alone[key]
        assert request.said == (want if whole and not request.cancelled else want[: len(request.said)])
        assert request.stream.tokens == request.prompt + [piece.token for piece in request.said]
        self.counts["said"] += len(request.said)
        self.counts["whole"] += request.said == want
        self.counts["reused"] += request.stream.reused > 0


def test_a_thousand_schedules(engine: Engine) -> None:
    gc.disable()  # memory comes back without a collection
    try:
        for seed in range(1000):
            Schedule(engine, seed).run()
            assert engine.backend.held() == 0, seed
    finally:
        gc.enable()
    assert min(Schedule.counts[what] for what in ("whole", "reused", "forgot", "evicted")) > 100, Schedule.counts


def test_many_threads(engine: Engine) -> None:
    prompts = [prompt_of(0, n) + prompt_of(n, 9) for n in (1, 20, 33, 50)]
    want = [[piece.token for piece in alone(engine, prompt, Sampling(seed=1), 30)] for prompt in prompts]

    def use(seed: int) -> None:
        r = random.Random(seed)
        for _ in range(12):
            i = r.randrange(len(prompts))
            stream = scheduler.submit(prompts[i], Sampling(seed=1), 30)
            said = [next(stream).token for _ in range(r.randrange(len(want[i])))]
            assert said == want[i][: len(said)]
            if r.random() < 0.4:
                continue  # and loses it
            if r.random() < 0.4:
                tokens, fork = stream.tokens, stream.fork(GREEDY, 5)
                assert [piece.token for piece in fork] == [piece.token for piece in alone(engine, tokens, GREEDY, 5)]
            if r.random() < 0.4:
                threading.Timer(0.001, stream.cancel).start()
                assert said + [piece.token for piece in stream] == want[i][: len(stream.tokens) - len(prompts[i])]
            else:
                assert said + [piece.token for piece in stream] == want[i]

    with Scheduler(engine, 6, 16, 12 * BLOCK * engine.info.token_bytes) as scheduler, ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))


def test_a_long_prompt_keeps_nobody_waiting(engine: Engine, spied: Spy) -> None:
    with Stepped(engine, chunk=8) as scheduler:
        short = [scheduler.submit([i], GREEDY) for i in (1, 2)]
        scheduler.step()
        long = [scheduler.submit([i, *prompt_of(i, 59)], GREEDY, 3) for i in (3, 4)]
        scheduler.step()
        for stream in short:
            taken(stream)
        while scheduler._running[-1] is not long[1].job or long[1].job.unread > 1:
            scheduler.step()
            assert [len(taken(stream)) for stream in short] == [1, 1]
        first = [[1, 1, 8]] * 7 + [[1, 1, 4]]
        assert spied.passes == [[1, 1], *first, [1, 1, 1, 8], [1, 1, 1, 8], *first[2:]]


def test_what_was_read_is_not_read_again(engine: Engine, spied: Spy) -> None:
    system, question = prompt_of(1, 50), prompt_of(2, 10)
    with Stepped(engine) as scheduler:
        first = scheduler.submit(system + question, GREEDY, 5)
        scheduler.drain()
        said = [piece.token for piece in first]
        again = scheduler.submit(system + question, GREEDY, 5)
        other = scheduler.submit(system + question[::-1], GREEDY, 1)
        scheduler.drain()
        assert [piece.token for piece in again] == said
        assert (first.reused, again.reused, other.reused) == (0, 59, 50)
        further = scheduler.submit(system + question + said + question, GREEDY, 1)
        scheduler.drain()
        assert further.reused == 64  # the last token that was said was never read
        assert taken(further) == alone(engine, system + question + said + question, GREEDY, 1)


def test_prompts_that_come_together_are_read_once(engine: Engine, spied: Spy) -> None:
    with Stepped(engine, chunk=32) as scheduler:
        streams = [scheduler.submit(prompt_of(1, 90), Sampling(seed=i), 2) for i in range(4)]
        scheduler.drain()
        assert [stream.reused for stream in streams] == [0, 89, 89, 89]
        assert spied.passes == [[32], [32], [26], [1, 1, 1, 1], [1, 1, 1]]


def test_a_fork_of_a_running_stream_reads_nothing_anew(engine: Engine, spied: Spy) -> None:
    prompt = prompt_of(1, 50)
    with Stepped(engine) as scheduler:
        stream = scheduler.submit(prompt, GREEDY)
        for _ in range(9):
            scheduler.step()
        said = [next(stream).token for _ in range(3)]
        assert stream.tokens == prompt + said
        fork = stream.fork(Sampling(seed=1), 4)
        scheduler.step()
        assert spied.passes[-1] == [1, 1]
        stream.cancel()
        scheduler.drain()
        assert fork.reused == 52
        assert taken(fork) == alone(engine, prompt + said, Sampling(seed=1), 4)
        assert said + [piece.token for piece in taken(stream)] == [p.token for p in alone(engine, prompt, GREEDY, 10)]


def test_a_session_is_left_as_it_is(engine: Engine) -> None:
    session, tokens = engine.session(), prompt_of(1, 20)
    logits = session.append(tokens, "all")
    want = alone(engine, tokens, GREEDY, 5), alone(engine, [*tokens, 1], GREEDY, 5)
    with Scheduler(engine) as scheduler:
        streams = scheduler.submit([], GREEDY, 5, session=session), scheduler.submit([1], GREEDY, 5, session=session)
        assert tuple(map(list, streams)) == want
        assert [stream.reused for stream in streams] == [19, 20]
        stream = scheduler.submit([1], GREEDY, 5, session=session)
        session.rewind(10)
        assert np.array_equal(session.append(tokens[10:], "all"), logits[10:])
        session.close()
        assert list(stream) == want[1]


def test_cancelling_frees_memory(engine: Engine) -> None:
    held = engine.backend.held
    with Stepped(engine, streams=2, chunk=16, memory=0) as scheduler:
        for lose in (Stream.cancel, Stream.close, None):
            streams = [scheduler.submit(prompt_of(i, 40), GREEDY) for i in range(3)]
            for _ in range(2):  # running or half read, and waiting
                scheduler.step()
            assert held() > 0
            if lose is None:
                del streams
            else:
                for stream in streams:
                    lose(stream)
                del stream
            scheduler.step()
            assert held() == 0
            assert repr(scheduler) == "Scheduler(0 running, 0 waiting)"
        with scheduler.submit([1, 2, 3], GREEDY) as stream:
            for _ in range(3):
                scheduler.step()
        scheduler.step()
        assert len(list(stream)) == 3  # what was there is still there
        assert held() == 0


def test_memory_is_waited_for(engine: Engine) -> None:
    """Each text grows beyond the bound by itself: one at a time, in order."""
    want = [alone(engine, prompt_of(i, 40), GREEDY, 20) for i in range(3)]
    with Stepped(engine, memory=2 * BLOCK * engine.info.token_bytes) as scheduler:
        streams = [scheduler.submit(prompt_of(i, 40), GREEDY, 20) for i in range(3)]
        while scheduler._running or scheduler._waiting:
            scheduler.step()
            assert len(scheduler._running) <= 1
        assert list(map(taken, streams)) == want
        assert len(scheduler._known) == 0


def test_two_run_where_there_is_memory_for_two(engine: Engine) -> None:
    with Stepped(engine, memory=8 * BLOCK * engine.info.token_bytes) as scheduler:
        streams = [scheduler.submit(prompt_of(i, 40), GREEDY, 3) for i in range(3)]
        scheduler.step()
        assert repr(scheduler) == "Scheduler(2 running, 1 waiting)"
        scheduler.drain()
        assert all(taken(stream) for stream in streams)


def test_a_pass_that_fails(engine: Engine, spied: Spy) -> None:
    with Stepped(engine, streams=2) as scheduler:
        streams = [scheduler.submit([i, 2, 3], GREEDY, 4) for i in range(3)]
        scheduler.step()
        spied.fail = True
        scheduler.step()
        assert engine.backend.held() == 0  # also while the errors are about
        spied.fail = False
        scheduler.drain()
        errors = []
        for stream in streams[:2]:
            assert next(stream).token == alone(engine, stream.tokens, GREEDY, 1)[0].token
            with pytest.raises(EngineError, match="out of memory for the KV cache") as caught:
                next(stream)
            assert next(stream, None) is None
            errors.append(caught.value)
        assert any("evaluate" in note for note in errors[0].__notes__)
        assert taken(streams[2]) == alone(engine, [2, 2, 3], GREEDY, 4)


def test_a_choice_that_fails_is_one_streams_affair(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stepped(engine) as scheduler:
        streams = [scheduler.submit([i, 2, 3], GREEDY, 4) for i in range(3)]
        scheduler.step()
        monkeypatch.setattr(streams[1].job.generation, "pick", lambda logits_V: [][0])
        scheduler.drain()
        assert taken(streams[0]) == alone(engine, [0, 2, 3], GREEDY, 4)
        assert taken(streams[2]) == alone(engine, [2, 2, 3], GREEDY, 4)
        next(streams[1])
        with pytest.raises(IndexError):
            next(streams[1])


def test_requests_that_make_no_sense_are_refused_at_once(engine: Engine, make: Callable[..., Path]) -> None:
    context, vocab = engine.context_length, engine.vocab_size
    with Scheduler(engine) as scheduler:
        stream = scheduler.submit([1, 2], GREEDY, 100)
        with pytest.raises(ContextError, match=f"{context + 1} tokens does not fit: the context holds {context}"):
            scheduler.submit([1] * (context + 1))
        for token in (-1, vocab):
            with pytest.raises(ValueError, match=f"token {token} is outside the vocabulary"):
                scheduler.submit([1, token])
        with pytest.raises(ValueError, match="nothing to go on from"):
            scheduler.submit([])
        with pytest.raises(ValueError, match="max_tokens"):
            scheduler.submit([1], max_tokens=0)
        with pytest.raises(ValueError, match="another engine"):
            scheduler.submit([1], session=Engine(make("qwen3"), backend="numpy").session())
        full = list(scheduler.submit([1] * context, GREEDY))
        assert [piece.finish for piece in full] == ["length"]
        assert list(stream) == alone(engine, [1, 2], GREEDY, 100)
    with pytest.raises(EngineError, match="the scheduler is closed"):
        scheduler.submit([1])
    for wrong in ({"streams": 0}, {"chunk": 0}, {"memory": -1}):
        with pytest.raises(ValueError, match="must be at least"):
            Scheduler(engine, **wrong)


def test_constraints_are_prepared_in_another_thread_while_the_model_reads(
    engine: Engine, spied: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    read = threading.Event()

    class Prepared(Generation):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args[:-1])

        def prepare(self) -> None:
            assert read.wait(5)
            log.append(f"prepared in {threading.current_thread().name}")

        def pick(self, logits_V: NDArray[np.float32]) -> Piece:
            log.append("picked")
            return super().pick(logits_V)

    def evaluate(steps: Sequence[Step]) -> NDArray[np.float32]:
        read.set()
        return type(spied).evaluate(spied, steps)

    monkeypatch.setattr(scheduler_module, "Generation", Prepared)
    monkeypatch.setattr(spied, "evaluate", evaluate, raising=False)
    with Stepped(engine) as scheduler:
        constrained: Any = object()
        streams = [scheduler.submit([1, 2], GREEDY, 1, constraint=thing) for thing in (constrained, None)]
        scheduler.drain()
        assert log == ["prepared in twofile-constraints_0", "picked", "picked"]
        monkeypatch.setattr(Prepared, "prepare", lambda self: [][0])
        wrong = scheduler.submit([1, 2], GREEDY, 1, constraint=constrained)
        right = scheduler.submit([1, 2], GREEDY, 1)
        scheduler.drain()
        with pytest.raises(IndexError):
            next(wrong)
        assert taken(right) == taken(streams[1]) == alone(engine, [1, 2], GREEDY, 1)


def test_streams_with_constraints(engine: Engine) -> None:
    constraint = Constraint.regex(engine, "(once|upon|[0-9]{3})( the){2}")
    settings = [(Sampling(seed=seed), 30, (), None, thing) for seed in range(3) for thing in (constraint, None)]
    with Scheduler(engine, chunk=4) as scheduler:
        streams = [scheduler.submit(prompt_of(i, 9), *rest) for i, rest in enumerate(settings)]
        for i, (stream, rest) in enumerate(zip(streams, settings, strict=True)):
            assert list(stream) == alone(engine, prompt_of(i, 9), *rest)


def test_a_scheduler_with_nothing_to_do_uses_no_processor(engine: Engine) -> None:
    with Scheduler(engine) as scheduler:
        assert len(list(scheduler.submit([1, 2, 3], GREEDY, 10))) == 10
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.01


def test_closing_ends_everything(engine: Engine, spied: Spy) -> None:
    spied.pause = 0.005
    scheduler = Scheduler(engine, streams=2)
    streams = [scheduler.submit([i, 2, 3], GREEDY) for i in range(4)]  # two run, two wait
    next(streams[0])
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(list, stream) for stream in streams]
        scheduler.close()
        said = [reader.result(timeout=5) for reader in readers]
    assert all(not pieces or pieces[-1].finish is None for pieces in said)
    assert not scheduler._thread.is_alive()
    assert engine.backend.held() == 0
    scheduler.close()
    streams[0].cancel()


def test_a_program_ends_though_nobody_closed(make: Callable[..., Path], tiny: Engine) -> None:
    code = f"""
from twofile.engine.engine import Engine
from twofile.engine.scheduler import Scheduler
scheduler = Scheduler(Engine({str(make("qwen3"))!r}, threads=1, backend="c"), chunk=1)
streams = [scheduler.submit([1] * 100) for _ in range(20)]
print(next(streams[0]).token)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_waits_is_served_before_the_background(engine: Engine, spied: Spy) -> None:
    """Four long prompts in the background do not hold up one that somebody waits for; and they get on."""
    with Stepped(engine, chunk=16) as scheduler:
        behind = [scheduler.submit([i + 1] * 70, GREEDY, max_tokens=3, background=True) for i in range(4)]
        scheduler.step()
        asked = scheduler.submit([9] * 33, GREEDY, max_tokens=2)
        passes = 0
        while asked.job.pieces.empty():
            scheduler.step()
            passes += 1
        assert passes == 3  # as many as its prompt has chunks: it is read as if it were alone
        assert spied.passes[-3:] == [[16], [16], [1]]  # nothing of the others is computed beside the prompt
        assert all(stream.job.pieces.empty() for stream in behind)
        scheduler.drain()
        assert all(len(list(stream)) == 3 for stream in behind)
        assert len(list(asked)) == 2


def test_a_pass_reads_little_of_the_background(engine: Engine, spied: Spy) -> None:
    """Somebody may come who waits for the pass to end."""
    with Stepped(engine, chunk=64) as scheduler:
        behind = [scheduler.submit([i + 1] * 70, GREEDY, max_tokens=1, background=True) for i in range(2)]
        scheduler.drain()
    assert all(len(list(stream)) == 1 for stream in behind)
    assert max(map(sum, spied.passes)) <= 34  # 32 of prompts, and a token of each


@pytest.mark.parametrize("bound", ["streams", "memory"])
def test_the_background_makes_room(engine: Engine, bound: str) -> None:
    """Where no more can run, a text in the background is put aside for one that somebody waits for, and becomes what it
    would have become."""
    prompt = [int(token) for token in np.random.default_rng(4).integers(1, 200, 40)]
    wanted = [piece.token for piece in alone(engine, prompt, GREEDY, 20)]
    how: dict[str, int] = {"streams": 1} if bound == "streams" else {"memory": 5 * BLOCK * engine.info.token_bytes}
    with Stepped(engine, chunk=64, **how) as scheduler:
        behind = scheduler.submit(prompt, GREEDY, max_tokens=20, background=True)
        for _ in range(5):
            scheduler.step()
        asked = scheduler.submit([9] * 40, GREEDY, max_tokens=3)
        for _ in range(3):
            scheduler.step()
        assert len(taken(asked)) == 3
        early = taken(behind)
        assert 0 < len(early) < 10
        scheduler.drain()
        assert [piece.token for piece in (*early, *behind)] == wanted
        assert behind.reused == 0


def test_what_was_put_aside_stands_still(engine: Engine) -> None:
    """Also where the room that it left is not enough for the one that it made room for."""
    memory = 8 * BLOCK * engine.info.token_bytes
    with Stepped(engine, chunk=64, memory=memory) as scheduler:
        first = scheduler.submit([7] * 30, GREEDY, max_tokens=40)
        behind = scheduler.submit([8] * 30, GREEDY, max_tokens=40, background=True)
        while behind.job.pieces.empty():
            scheduler.step()
        asked = scheduler.submit([9] * 100, GREEDY, max_tokens=2)
        while behind.job in scheduler._running:
            scheduler.step()
        assert asked.job in scheduler._waiting
        assert behind.job.read == 0
        scheduler.drain()
        assert [len(list(stream)) for stream in (first, behind, asked)] == [40, 40, 2]


def test_the_background_is_not_starved(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "_PATIENCE", 0.0)
    with Stepped(engine, chunk=16, streams=1) as scheduler:
        behind = scheduler.submit([1] * 20, GREEDY, max_tokens=1, background=True)
        others = [scheduler.submit([2 + i] * 20, GREEDY, max_tokens=1) for i in range(3)]
        while behind.job.pieces.empty():
            scheduler.step()
        assert all(stream.job.pieces.empty() for stream in others)  # after its patience it is as any other
        scheduler.drain()


def test_what_left_memory_comes_back(engine: Engine, tmp_path: Path) -> None:
    """Bit for bit: the text goes on as it would have."""
    long = [int(token) for token in np.random.default_rng(2).integers(1, 200, 90)]

    def told(scheduler: Stepped, tokens: list[int]) -> tuple[list[tuple[int, float | None]], int]:
        stream = scheduler.submit(tokens, GREEDY, max_tokens=8, logprobs=1)
        scheduler.drain()
        pieces = list(stream)
        return [(piece.token, piece.logprob) for piece in pieces], stream.reused

    with Stepped(engine) as alone:
        wanted, _ = told(alone, [*long, 7, 8, 9])
    with Stepped(engine, memory=6 * BLOCK * engine.info.token_bytes, swap=tmp_path) as scheduler:
        told(scheduler, long)
        for i in range(4):
            told(scheduler, [10 + i] * 80)  # they take its place
        assert scheduler._known.find([*long, 7], 80) is None
        found, reused = told(scheduler, [*long, 7, 8, 9])
        assert found == wanted
        assert reused >= 88
        assert list(tmp_path.glob("*/*.kv"))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails(engine: Engine, tmp_path: Path) -> None:
    """What cannot be fetched is read again."""
    long = [int(token) for token in np.random.default_rng(2).integers(1, 200, 90)]
    with Stepped(engine, memory=0, swap=tmp_path) as scheduler:
        first = scheduler.submit(long, GREEDY, max_tokens=4)
        scheduler.drain()
        for path in tmp_path.glob("*/*.kv"):
            path.write_bytes(b"torn")
        second = scheduler.submit(long, GREEDY, max_tokens=4)
        scheduler.drain()
        assert [piece.token for piece in first] == [piece.token for piece in second]
