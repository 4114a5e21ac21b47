"""One dial: from minutes, or parameters, or depth, to every number that a training run needs, each with its law.

Pure functions of the dial, the size of the text, what the machine does in a second, and what the person gives, which
always wins. The laws are fits of others, most of them to models a hundred times as large and to AdamW; none knows the
text. They are a place to start: `twofile train --ladder` measures what holds for a text.

N parameters, D tokens, C floating-point operations, V vocabulary, T context, B tokens a step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from twofile.errors import TrainError, TwofileError
from twofile.params.hyper import Hyperparameters
from twofile.train.loop import Plan
from twofile.train.model import operations
from twofile.train.pretrain.laws import Line, lines
from twofile.train.pretrain.tokenizer import BYTES

__all__ = ["MODEL", "PLAN", "Derived", "Dial", "Line", "Machine", "derive", "expected_loss", "tokens_in"]

MODEL = tuple(field.name for field in dataclasses.fields(Hyperparameters) if field.name != "architecture")
PLAN = tuple(field.name for field in dataclasses.fields(Plan))

DEFAULT_MINUTES = 10.0
RATIO = 20.0  # tokens a parameter, where nothing else says how long
MOST_EPOCHS = 16.0
_FEWEST = 4.0  # tokens a parameter: the laws were found above, and an odd measurement must not lead below
_SMALLEST = 320  # tokens: the 256 bytes, the control tokens, some merges
_COMPILING = {"cpu": (0.35, 30.0), "cuda": (0.50, 60.0)}  # what is gained in speed, and the seconds that it takes first
_SMALL = 1e7  # parameters in the layers: below, the law of vocabularies is extrapolated
_AT_WORK = 0.95  # of the time is training; the rest is validation and checkpoints


Ends = Literal["time", "steps", "tokens", "ratio", "text"]


@dataclass(frozen=True)
class Machine:
    """What trains. `rates`: (width of the model, floating-point operations a second that its training steps reach in
    one process), widths ascending. Between them rates are interpolated; below, where the machine waits for its own
    calls, they fall with the width."""

    name: str
    device: Literal["cpu", "cuda"]
    rates: tuple[tuple[int, float], ...]
    memory: float  # bytes that weights, gradients and activations of one process may take
    compiles: bool = True  # torch.compile has what it needs
    bfloat16: bool = True  # faster than float32 here
    processes: int = 1

    def rate(self, dim: int) -> float:
        """Operations a second at a width, of all processes together."""
        widths, rates = zip(*self.rates, strict=True)
        inside = math.exp(np.interp(math.log(dim), np.log(widths), np.log(rates)))
        return float(self.processes * inside * min(1.0, dim / widths[0]))


@dataclass(frozen=True)
class Dial:
    """How large and how long. `minutes` alone chooses the size too; without, `tokens` or a ratio says how long."""

    minutes: float | None = None
    params: float | None = None
    depth: int | None = None
    tokens: float | None = None

    def __post_init__(self) -> None:
        if self.params is not None and self.depth is not None:
            raise TrainError("params and depth both say how large the model is", "give one of them")
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not value > 0:
                raise TrainError(f"{name} is {value}: it must be more than nothing")


@dataclass(frozen=True)
class Derived:
    """A run, before it is run."""

    hyper: Hyperparameters
    plan: Plan
    batch: int  # rows a step
    micro: int  # rows at a time
    within_documents: bool  # attention begins anew with each document
    tokens: float  # that the run is expected to see
    operations: float  # that it is expected to take
    seconds: float  # that it is expected to take
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]  # what was asked for and cannot be had


def tokens_in(text_bytes: float, vocabulary: int) -> float:
    """How many tokens a text becomes: arXiv:2407.13623 (appendix, the fit of tokens a character); down to one a byte
    for a vocabulary that is hardly more than the bytes."""

    def fit(v: float) -> float:
        return 0.00639222 * math.log(v) ** 2 - 0.15811069 * math.log(v) + 1.20470122

    if vocabulary >= 1024:
        return text_bytes * fit(min(vocabulary, 200_000))
    small = max(0.0, math.log(vocabulary / BYTES) / math.log(1024 / BYTES))
    return text_bytes * (1 + small * (fit(1024) - 1))


def expected_loss(params: float, tokens: float, unique: float = math.inf) -> float:
    """Nats a token above what no model learns: arXiv:2203.15556 eq. 2 with the constants of arXiv:2404.10102, and
    repeated tokens discounted as in arXiv:2305.16264 eq. 5. For comparing, not for foretelling.

    (That paper discounts parameters beyond what the distinct tokens would train, too. At a million tokens its law
    would have models of a hundred thousand parameters, and larger ones do learn more there: left out.)"""
    unique = min(unique, tokens)
    worth = unique * (1 + 15.4 * (1 - math.exp(-(tokens / unique - 1) / 15.4)))
    return float(482.01 / params**0.3478 + 2085.43 / worth**0.3658)


def _vocabulary(layers: float, dim: int, text_bytes: float) -> int:
    """By the model, N_v = 0.20 (N / 0.08)^0.84, a power of two; for a small one 2048 to 4096, fewer where that would be
    over half of what the layers have. By the text, at most what leaves 95% of the tokens with 100 examples or more,
    were their frequencies 1 / rank."""
    by_model = 0.20 * (layers / 0.08) ** 0.84 / dim
    least = max(9, min(11, int(math.log2(layers / dim / 2))))
    rounded = 1 << min(12 if layers < _SMALL else 16, max(least, round(math.log2(by_model))))
    if text_bytes and rounded * math.log(rounded) * 100 > tokens_in(text_bytes, rounded):
        fits = (v for v in range(rounded, _SMALLEST, -64) if v * math.log(v) * 100 <= tokens_in(text_bytes, v))
        return next(fits, _SMALLEST)
    return rounded


def _hyper(dim: int, layers: int, text_bytes: float, given: Mapping[str, Any]) -> Hyperparameters:
    head_dim = given.get("head_dim", 64 if dim >= 192 else 32)
    heads = given.get("n_heads", max(1, dim // head_dim))
    kv_heads = given.get("n_kv_heads", heads // 2 if heads % 2 == 0 else heads)
    ffn = given.get("ffn_dim", math.ceil(8 / 3 * dim / 64) * 64)
    in_layers = layers * dim * (2 * head_dim * (heads + kv_heads) + 3 * ffn)
    vocabulary = given.get("vocab_size", _vocabulary(in_layers, dim, text_bytes))
    derived = {
        "vocab_size": vocabulary,
        "context_length": 2 ** min(10, max(8, int(math.log2(2 * dim)))),
        "dim": dim,
        "n_layers": layers,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "ffn_dim": ffn,
        "norm_eps": 1e-6,
        "tied": vocabulary * dim > 0.1 * in_layers,
    }
    return Hyperparameters(architecture="qwen3", **(derived | {key: given[key] for key in MODEL if key in given}))


def _shapes(dial: Dial, given: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """The widths and depths to choose from."""
    grid = (64, 96, 128, 160, *range(192, 1025, 64), *range(1152, 4097, 128))
    if dial.depth is not None and "dim" not in given:
        dims: tuple[int, ...] = (64 * given.get("n_layers", dial.depth),)
    else:
        dims = (given["dim"],) if "dim" in given else grid
    for dim in dims:
        by_aspect = {dial.depth} if dial.depth else {max(2, round(dim / aspect)) for aspect in (48, 64, 80)}
        for layers in {given["n_layers"]} if "n_layers" in given else by_aspect:
            yield dim, layers


@dataclass(frozen=True)
class Course:
    """A model and how it is trained; `unique` tokens of text, and what ends it."""

    hyper: Hyperparameters
    rows: int
    micro: int
    steps: int
    tokens: float
    operations: float
    seconds: float
    compiled: bool
    unique: float
    ends: Ends


def _muon(dim: int, tokens: float) -> float:
    """How much dearer a step becomes by turning the momentum: 5 m / B (K. Jordan 2024, section on cost)."""
    return 1 + 5 * dim / tokens


def _best_batch(total: float) -> float:
    """Tokens a step: 0.2920 C^0.3271 (arXiv:2401.02954 eq. 1)."""
    return float(0.2920 * total**0.3271)


def _rows(best: float, hyper: Hyperparameters, machine: Machine, given: Mapping[str, Any]) -> tuple[int, int]:
    """Rows a step and rows at a time; the steps of all processes together make a step."""
    T, dim = hyper.context_length, hyper.dim
    # 10 bytes for a logit (2 computed, 4 as float32, 4 of gradient), 34 for each number of each layer
    each = T * (10 * hyper.vocab_size + 34 * dim * hyper.n_layers * (1 if machine.bfloat16 else 2))
    room = max(0.0, machine.memory - 16 * hyper.n_parameters)
    most = max(1, min(32, int(0.5 * room / each), (1 << 13) // T if machine.device == "cpu" else 32))
    wanted: int = given.get("batch", max(1, round(max(best, 50 * dim) / T)))
    if "micro" in given:
        micro: int = given["micro"]
    elif "batch" in given:
        fits = [n for n in range(1, most + 1) if wanted % (n * machine.processes) == 0]
        micro = max(fits, default=1)
    else:
        micro = 2 ** int(math.log2(min(most, max(1, wanted // machine.processes))))
    together = micro * machine.processes
    return (wanted if "batch" in given else max(1, round(wanted / together)) * together), micro


def _course(
    hyper: Hyperparameters, dial: Dial, text_bytes: float, machine: Machine, given: Mapping[str, Any]
) -> Course:
    per_token, T = operations(hyper), hyper.context_length
    gain, first = _COMPILING[machine.device]
    unique = tokens_in(text_bytes, hyper.vocab_size) if text_bytes else math.inf
    minutes, steps = dial.minutes, given.get("steps")
    ends: Ends
    asked = dial.tokens or RATIO * hyper.n_parameters
    rate = machine.rate(hyper.dim)
    if minutes is not None:
        pays = machine.compiles and 60 * minutes * gain / (1 + gain) > first
        compiled = given.get("compile", pays)
        seconds = max(30 * minutes, 60 * _AT_WORK * minutes - first * compiled)
        total = seconds * rate * (1 + gain * compiled)
        rows, micro = _rows(_best_batch(total), hyper, machine, given)
        tokens, ends = total / (per_token * _muon(hyper.dim, rows * T)), "time"
    else:
        if steps:  # B = 0.2920 (operations a token * steps * B)^0.3271, solved for B
            best = (0.2920 * (per_token * steps) ** 0.3271) ** (1 / (1 - 0.3271))
        else:
            best = _best_batch(per_token * asked)
        rows, micro = _rows(best, hyper, machine, given)
        tokens, ends = (steps * rows * T, "steps") if steps else (asked, "tokens" if dial.tokens else "ratio")
        pays = machine.compiles and per_token * tokens / rate * gain / (1 + gain) > first
        compiled = given.get("compile", pays)
    if steps and steps * rows * T < tokens:
        tokens, ends = steps * rows * T, "steps"
    if dial.tokens and dial.tokens < tokens:
        tokens, ends = dial.tokens, "tokens"
    if ends in ("time", "ratio") and tokens > MOST_EPOCHS * unique:
        tokens, ends = MOST_EPOCHS * unique, "text"
    count = max(1, round(tokens / (rows * T)))
    spent = count * rows * T * per_token
    seconds = spent * _muon(hyper.dim, rows * T) / (rate * (1 + gain * compiled)) / _AT_WORK + first * compiled
    return Course(hyper, rows, micro, count, count * rows * T, spent, seconds, compiled, unique, ends)


def _off_aspect(hyper: Hyperparameters) -> float:
    return math.log(hyper.dim / hyper.n_layers / 64) ** 2


def _models(dial: Dial, text_bytes: float, given: Mapping[str, Any]) -> list[Hyperparameters]:
    """What there is to choose from, narrowed to what can come near the size asked for."""
    shapes = list(_shapes(dial, given))
    if dial.params is not None:
        shapes = [(dim, n) for dim, n in shapes if 0.2 < 11 * n * dim**2 / dial.params < 5] or shapes
    try:
        return [_hyper(dim, layers, text_bytes, given) for dim, layers in shapes]
    except (ZeroDivisionError, TypeError, ValueError, TwofileError) as error:
        raise TrainError(f"no model can be made of these numbers: {error}") from error


def _choose(dial: Dial, text_bytes: float, machine: Machine, given: Mapping[str, Any]) -> Course:
    """The course with the lowest loss for the time, or the nearest to the size asked for."""
    models = _models(dial, text_bytes, given)
    sized, length = dial, {}
    if dial.params is None and dial.depth is None and dial.minutes is None:
        sized = Dial(minutes=DEFAULT_MINUTES)
        length = {"steps": None}  # a number of steps or of tokens says nothing about the size
    if dial.params is not None:
        wanted = math.log(dial.params)
        hyper = min(models, key=lambda h: abs(math.log(h.n_parameters) - wanted) + 0.05 * _off_aspect(h))
    elif len(models) == 1:
        hyper = models[0]
    else:
        held = [hyper for hyper in models if 16 * hyper.n_parameters < machine.memory]
        courses = [_course(hyper, sized, text_bytes, machine, {**given, **length}) for hyper in held]
        if not courses:
            raise TrainError("the machine has no memory for even the smallest model")
        taught = [one for one in courses if one.tokens >= _FEWEST * one.hyper.n_parameters] or courses[:1]

        def loss(one: Course) -> float:
            expected = expected_loss(one.hyper.n_parameters, one.tokens, one.unique)
            return expected * (1 + 0.01 * _off_aspect(one.hyper))

        hyper = min(taught, key=loss).hyper
    return _course(hyper, dial if given.get("steps") or dial.tokens else sized, text_bytes, machine, given)


def derive(dial: Dial, text_bytes: float, machine: Machine, given: Mapping[str, Any] | None = None) -> Derived:
    """Everything, from the dial. `text_bytes`: of distinct training text, 0 where nobody knows; `given`: numbers that a
    person has chosen, by the names of Hyperparameters and Plan, and `batch`, `micro` and `within_documents`.

    TrainError where the numbers given make no model."""
    given = dict(given or {})
    if "minutes" in given:
        dial = dataclasses.replace(dial, minutes=given.pop("minutes"))
    remarks = []
    if {"dim", "n_layers"} <= given.keys():
        for name in ("params", "depth"):
            if getattr(dial, name) is not None:
                remarks.append(f"{name} is ignored: dim and n_layers are given and say how large the model is")
        dial = dataclasses.replace(dial, params=None, depth=None)
    elif dial.depth is not None and "n_layers" in given:
        remarks.append("depth is ignored: n_layers is given")
        dial = dataclasses.replace(dial, depth=given["n_layers"])
    if given.get("compile") and not machine.compiles:
        remarks.append("compile is ignored: there is no compiler here that torch.compile can use")
        given["compile"] = False
    course = _choose(dial, text_bytes, machine, given)
    if course.ends == "tokens" and given.get("steps"):
        given.pop("steps")
        course = _choose(dial, text_bytes, machine, given)
        remarks.append(f"steps are ignored: the tokens asked for end the run before, at {course.steps}")
    if course.ends in ("time", "text") and dial == Dial():
        dial = Dial(minutes=DEFAULT_MINUTES)
    return _written(course, dial, machine, given, remarks)


def _written(course: Course, dial: Dial, machine: Machine, given: Mapping[str, Any], remarks: list[str]) -> Derived:
    """The rest of the plan, and the law of every number."""
    hyper, steps, B = course.hyper, course.steps, course.rows * course.hyper.context_length
    best = max(_best_batch(course.operations), 50.0 * hyper.dim)
    off = math.sqrt(B / best) if "batch" in given else 1.0
    matrix_rate = given.get("matrix_rate", 0.02 * min(2.0, off))
    timescale = 1.084 * (course.tokens / hyper.n_parameters) ** -0.527
    derived: dict[str, Any] = {
        "steps": None if course.ends == "time" else steps,
        "minutes": dial.minutes,
        "warmup": min(300, max(10, round(0.03 * steps))),
        "decay": 0.4 if steps < 10_000 else 0.2,
        "matrix_rate": matrix_rate,
        "vector_rate": min(0.03, max(0.003, 0.3 / math.sqrt(steps))),
        "weight_decay": min(0.2, 1 / (matrix_rate * timescale * steps)),
        "bfloat16": machine.bfloat16,
        "compile": course.compiled,
        "validate_every": max(10, round(steps / 12)),
    }
    rounded: dict[str, Any] = {
        key: _three(value) if isinstance(value, float) else value for key, value in derived.items()
    }
    plan = Plan(**(rounded | {key: given[key] for key in PLAN if key in given}))
    within = given.get("within_documents", machine.device == "cpu")
    if course.ends == "text":
        remarks.append(
            f"the text is learned {MOST_EPOCHS:.0f} times over in {steps} steps; more would only be learned by heart"
            + (f", so the run ends before {dial.minutes:g} minutes do" if dial.minutes else "")
        )
    return Derived(
        hyper,
        plan,
        course.rows,
        course.micro,
        within,
        course.tokens,
        course.operations,
        course.seconds,
        tuple(lines(course, plan, within, machine, dial, given)),
        tuple(remarks),
    )


def _three(value: float) -> float:
    """Three digits, as a person would write it."""
    return float(f"{value:.3g}")
