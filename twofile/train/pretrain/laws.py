"""The words beside each derived number: which law it follows and who found it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twofile.html.figures import quantity

if TYPE_CHECKING:
    from twofile.train.loop import Plan
    from twofile.train.pretrain.dial import Course, Dial, Machine

__all__ = ["Line", "lines", "table"]


@dataclass(frozen=True)
class Line:
    """A number, the law it follows, and where the law comes from ("" where a person gave the number)."""

    name: str
    value: str
    law: str
    source: str = ""


_SIZE = {
    "minutes": (
        "the lowest expected loss for the time: 482/N^0.348 + 2085/D^0.366, repeats discounted",
        "arXiv:2203.15556 eq. 2, constants of arXiv:2404.10102; arXiv:2305.16264 eq. 5",
    ),
    "params": ("the nearest to the size asked for", ""),
    "depth": ("of the depth asked for", ""),
    "given": ("of the dim and n_layers given", ""),
}
_LENGTH = {
    "time": ("what the machine does in the time, less 5% for validation and checkpoints", ""),
    "steps": ("steps x batch", ""),
    "tokens": ("given", ""),
    "ratio": ("20 a parameter", "arXiv:2203.15556 table 3"),
    "text": ("16 times the text: more is learned by heart", "arXiv:2305.16264 figure 5"),
}
_SHAPE = "arXiv:2001.08361 figure 5"
_LAWS: dict[str, tuple[str, str]] = {
    "text": ("tokens a byte as fitted to V; the packed file says exactly", "arXiv:2407.13623 appendix"),
    "dim": ("64 a layer, within 48 to 80: the shape matters little", _SHAPE),
    "n_layers": ("dim / 64, within dim / 80 to dim / 48", _SHAPE),
    "head_dim": ("64; 32 where dim < 192, so that there are several heads", "arXiv:2001.08361 figure 5"),
    "n_heads": ("dim / head_dim", "arXiv:1706.03762"),
    "n_kv_heads": ("half of the heads where they are even", "arXiv:2305.13245"),
    "ffn_dim": ("8/3 dim, up to a multiple of 64: three matrices in place of two", "arXiv:2002.05202"),
    "vocab_size": (
        "V dim = 0.20 (N_layers / 0.08)^0.84, below 10 M 2048 to 4096; 95% of the tokens have 100 examples",
        "arXiv:2407.13623 section 3; arXiv:2004.02334",
    ),
    "context_length": ("2 dim, 256 to 1024: attention scores cost at most a fifth", "arXiv:2001.08361 table 1"),
    "tied": ("where a matrix of its own would be over 10% of the layers", "arXiv:2402.14905 section 2"),
    "batch": (
        "0.2920 C^0.3271 tokens, and at least 50 dim, where Muon costs 10%",
        "arXiv:2401.02954 eq. 1; K. Jordan 2024",
    ),
    "micro": ("a power of two in half of the memory: 10 bytes a logit, 34 a number a layer", "arXiv:2205.05198 eq. 2"),
    "within_documents": (
        "on a CPU: 5% fewer bits after as many steps, for 5% more time; on a GPU masks cost the fast kernel",
        "measured, docs/LOG.md",
    ),
    "epochs": ("tokens / text: 4 are as good as new text, 16 the most", "arXiv:2305.16264 figure 5"),
    "steps": ("tokens / (batch x context); the clock ends a run of minutes", ""),
    "operations": ("D (6 N, the head in it, + 6 n_layers T dim)", "arXiv:2001.08361 table 1"),
    "time": ("operations / the machine's rate, and compiling", ""),
    "warmup": ("3% of the steps, 10 to 300", "arXiv:2405.18392 section 3"),
    "decay": ("the last 40%; of 10,000 steps and more the last 20%", "arXiv:2405.18392 section 4"),
    "matrix_rate": (
        "0.02 at every width, as Muon's steps have one norm; sqrt(batch / its law) times that",
        "K. Jordan 2024, arXiv:2310.17813; arXiv:2205.10287",
    ),
    "vector_rate": ("0.3 / sqrt(steps), 0.003 to 0.03", "0.03 measured at 90 steps, docs/LOG.md; the fall is a guess"),
    "weight_decay": (
        "1 / (matrix_rate steps tau), tau = 1.084 (D/N)^-0.527; 0.2 the most; found for AdamW",
        "arXiv:2505.13738 eq. 3",
    ),
    "bfloat16": ("where its products are faster than those of float32, measured", ""),
    "compile": ("where it saves more time than it takes", ""),
    "validate_every": ("twelve times a run", ""),
}


def lines(
    course: Course, plan: Plan, within: bool, machine: Machine, dial: Dial, given: Mapping[str, Any]
) -> Iterator[Line]:
    """Every number of a course and its plan, in the order in which they follow from one another."""
    hyper = course.hyper
    size = "params" if dial.params else "depth" if dial.depth else "given" if "dim" in given else "minutes"
    yield Line("machine", quantity(machine.rate(hyper.dim), "FLOP/s"), machine.name)
    if course.unique < float("inf"):
        yield Line("text", quantity(course.unique), *_LAWS["text"])
    yield Line("parameters", quantity(hyper.n_parameters), *_SIZE[size])
    values: dict[str, Any] = {name: getattr(hyper, name) for name in _LAWS if hasattr(hyper, name)}
    values |= {"batch": f"{course.rows} rows", "micro": f"{course.micro} rows"}
    values["within_documents"] = within
    values["tokens"] = quantity(course.tokens)
    if course.unique < float("inf"):
        values["epochs"] = course.tokens / course.unique
    values |= {
        "steps": course.steps,
        "operations": quantity(course.operations),
        "time": f"{course.seconds / 60:.3g} min",
    }
    for name in ("warmup", "decay", "matrix_rate", "vector_rate", "weight_decay", "bfloat16", "compile"):
        values[name] = getattr(plan, name)
    values["validate_every"] = plan.validate_every
    for name, value in values.items():
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        stands = name in given and not (name == "steps" and given[name] != value)  # another end came first
        law = ("given", "") if stands else _LENGTH[course.ends] if name == "tokens" else _LAWS[name]
        yield Line(name, shown, *law)


def table(found: Iterable[Line]) -> str:
    """The lines for a terminal, in columns."""
    rows = list(found)
    name, value = (max(len(getattr(line, part)) for line in rows) for part in ("name", "value"))
    laws = (f"{line.law} [{line.source}]" if line.source else line.law for line in rows)
    return "\n".join(f"  {line.name:{name}}  {line.value:{value}}  {law}" for line, law in zip(rows, laws, strict=True))
