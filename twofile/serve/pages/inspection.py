"""What the page "Inside" shows, computed: a reply as the model chose it, the frame it was said to, a file in a drawing.

The frame is made again from the log alone, as `kernel.process` makes it; whether it has as many tokens as were read
then is told, not assumed. Probabilities are the model's own: no temperature, no penalties, nothing left out. Cost: one
pass over the frame and the reply, in a session of its own; memory for a few megabytes of logits at once.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofile.engine.calls import as_calls
from twofile.engine.engine import Engine
from twofile.engine.sampler import Sampling
from twofile.errors import KernelError, TwofileError
from twofile.html.figures import quantity
from twofile.kernel.driver import Driver, Drivers
from twofile.kernel.kernel import RECALL, Kernel
from twofile.kernel.log import Event
from twofile.kernel.memory import Frame, Memory
from twofile.kernel.page import View, view_of
from twofile.kernel.process import Budget, Image
from twofile.kernel.recall import Index, Recall
from twofile.params.hyper import Hyperparameters
from twofile.params.parameters import TensorInfo

__all__ = [
    "MOST",
    "Choice",
    "Expected",
    "Reply",
    "Sizes",
    "choices",
    "diagram",
    "program",
    "replies",
    "reply_of",
    "shown",
    "sizes",
    "tensors",
    "visible",
]

MOST = 2000
"""Tokens of a reply that are looked at, its last ones."""

_TOP = 10
_NUMBERS = 1 << 23  # logits at once
_READ = 512  # tokens of a prompt read at a time
_SIGNS = {"\n": "↵", "\r": "␍", "\t": "⇥"}


@dataclass(frozen=True)
class Expected:
    """A token that could have come. `plain`: a reply can begin with it; a control token says something else."""

    token: int
    text: str
    probability: float
    plain: bool


@dataclass(frozen=True)
class Choice:
    """A token that came. `rank`: how many others were more likely; `entropy`: bits of doubt before it came; `top`: the
    most likely tokens, the most likely first; `control`: it is no text."""

    token: int
    text: str
    probability: float
    rank: int
    entropy: float
    top: tuple[Expected, ...]
    control: bool

    @property
    def bits(self) -> float:
        """How many bits it took to be told it."""
        return -math.log2(max(self.probability, 1e-30))


@dataclass(frozen=True)
class Reply:
    """A reply and what was before the model. `ids`: its tokens, where they come from by `source`: "sampled" as they
    were chosen, "text" of its text, "template" as the chat template writes it, where it made calls; `upto`: the last
    event before it; `then`: tokens that were read then, None where that is not known."""

    pid: int
    seq: int
    upto: int
    image: Image
    view: View
    frame: Frame
    ids: list[int]
    source: str
    then: int | None
    window: int
    sampling: Sampling
    tools: int = 0  # tokens of their descriptions

    @property
    def exact(self) -> bool:
        """Whether as many tokens are before the model as there were."""
        return self.then == len(self.frame.ids)


@dataclass(frozen=True)
class Sizes:
    """Bytes that a text takes: as it is, and packed."""

    raw: int
    gzip: int
    xz: int


def replies(events: Sequence[Event]) -> list[Event]:
    """What the model said in a process, in order."""
    spoken, found = False, []
    for event in events:
        spoken = spoken or event.kind == "user"
        if event.kind == "assistant" and spoken:
            found.append(event)
    return found


def reply_of(kernel: Kernel, find: Callable[[str], Driver], pid: int, seq: int | None = None) -> Reply:
    """A reply of a process, its last one where `seq` is None. `find`: a driver by its name. Opening a model takes its
    time. KernelError where there is no such reply, TwofileError where its model is gone."""
    kernel.beginning(pid)
    events = kernel.log.events(pid)
    said = [event for event in replies(events) if seq in (None, event.seq)]
    if not said:
        raise KernelError("the model has said nothing here yet" if seq is None else f"event {seq} is no reply")
    reply = said[-1]
    before = [event for event in events if event.seq < reply.seq]
    begun = next(dict(event.body) for event in before if event.kind == "begin")
    for event in before:
        begun |= event.body if event.kind == "changed" else {}
    image = kernel.image(str(begun["model"]), str(begun.get("adapter", "")))
    count = lru_cache(4096)(lambda words: len(image.engine.tokenize(words)))
    ids, source, then = _tokens(image, reply)
    made: list[tuple[View, Frame, int, Memory]] = []
    for known in _states(before):
        view = view_of(known, count)
        memory = _memory(kernel, find, image, view, begun, count)
        frame = memory.frame(view)
        described = len(frame.ids) - len(memory.render(frame.messages, ())) if memory.tools else 0
        made.append((view, frame, max(0, described), memory))
        if then in (None, len(frame.ids)):
            break
    view, frame, described, memory = next((one for one in made if len(one[1].ids) == then), made[0])
    if source == "template":
        ids = _written(image, memory, frame, reply) or ids
    room = max(0, image.engine.context_length - len(frame.ids))
    sampling = Sampling(**begun.get("sampling", {}))
    tail = (ids[:room], source, then, memory.window, sampling, described)
    return Reply(pid, reply.seq, before[-1].seq, image, view, frame, *tail)


def _states(before: list[Event]) -> list[list[Event]]:
    """What the log may have said when the frame was made: what the frame itself had written down comes last in it."""
    end = len(before)
    while before[end - 1].kind in ("memory", "paged"):
        end -= 1
    return [before[:end], before] if end < len(before) else [before]


def _tokens(image: Image, reply: Event) -> tuple[list[int], str, int | None]:
    """The tokens of a reply, where they come from, and how many were read before them."""
    body = reply.body
    text, calls = str(body["text"]), body.get("calls") or ()
    known = [int(token) for token in body.get("tokens") or () if 0 <= int(token) < image.engine.vocab_size]
    ids = known or image.engine.tokenize(text)
    usage: Mapping[str, Any] = body.get("usage") or {}
    then = int(usage["read"]) if "read" in usage else None
    if then is not None and known and not calls:
        then -= max(0, len(known) - int(usage.get("written", len(known))))  # it was begun with these
    return ids, "template" if calls else "sampled" if known else "text", then


def _written(image: Image, memory: Memory, frame: Frame, reply: Event) -> list[int]:
    """A reply that made calls as the template writes it, up to what ends it; nothing where that does not follow."""
    made = as_calls((call["name"], call["arguments"]) for call in reply.body["calls"])
    message = {"role": "assistant", "content": str(reply.body["text"]), "tool_calls": made}
    try:
        whole = image.template.render([*frame.messages, message], False, memory.tools or None)
    except (TwofileError, ValueError):
        return []
    if whole[: len(frame.ids)] != frame.ids:
        return []
    ids: list[int] = whole[len(frame.ids) :]
    end = next((i + 1 for i, token in enumerate(ids) if image.engine.ends(token)), len(ids))
    return ids[:end]


def _memory(
    kernel: Kernel,
    find: Callable[[str], Driver],
    image: Image,
    view: View,
    begun: Mapping[str, Any],
    count: Callable[[str], int],
) -> Memory:
    """The memory that a process had; without the tools that are not here any more."""
    index, mine = Index(image.engine), Drivers()
    for name in view.tools:
        try:
            mine.add(Recall(index, tuple) if name == RECALL and name not in kernel.drivers else find(name))
        except TwofileError:
            continue

    def render(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        found: list[int] = image.template.render(messages, tools=tools or None)
        return found

    length = image.engine.context_length
    window = min(int(begun.get("window") or length), length)
    reserve = min(Budget(**begun.get("budget", {})).reserve, window // 4)
    return Memory(render, count, window, reserve, index, mine.tools(mine.names))


def choices(engine: Engine, ids: Sequence[int], reply: Sequence[int], most: int = MOST) -> list[Choice]:
    """How the model chose the last `most` tokens of a reply to `ids`. They fit into the context together."""
    before, wanted = [*ids, *reply[: max(0, len(reply) - most)]], list(reply[-most:])
    if not wanted or not before:
        return []
    found: list[Choice] = []
    read = [*before[-1:], *wanted[:-1]]
    rows = max(1, min(256, _NUMBERS // engine.vocab_size))
    name = lru_cache(None)(lambda token: shown(engine, token))
    control = set(engine.control_tokens.values())
    with engine.session() as session:
        for start in range(0, len(before) - 1, _READ):
            session.append(before[start : min(start + _READ, len(before) - 1)], "none")
        for start in range(0, len(read), rows):
            logits_RV = session.append(read[start : start + rows], "all")
            for logits_V, token in zip(logits_RV, wanted[start : start + rows], strict=True):
                p_V, entropy = _softmax(logits_V)
                best = np.argpartition(-p_V, min(_TOP, len(p_V) - 1))[:_TOP]
                best = best[np.lexsort((best, -p_V[best]))]
                top = tuple(
                    Expected(i, name(i), float(p_V[i]), i not in control and not engine.ends(i)) for i in best.tolist()
                )
                rank = int((logits_V > logits_V[token]).sum())
                found.append(Choice(token, name(token), float(p_V[token]), rank, entropy, top, token in control))
    return found


def _softmax(logits_V: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Probabilities, and their entropy in bits."""
    x_V = logits_V.astype(np.float64)
    x_V -= x_V.max()
    p_V = np.exp(x_V)
    p_V /= p_V.sum()
    there_V = p_V[p_V > 0]
    return p_V, float(-(there_V * np.log2(there_V)).sum())


def shown(engine: Engine, token: int) -> str:
    """A token as text: bytes that are a part of a character in hexadecimal."""
    raw = engine.detokenize_bytes([token], special=True)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"‹{raw.hex(' ')}›"


def visible(text: str) -> str:
    """A text whose spaces at the ends, line ends and signs that cannot be seen show."""
    if not text.strip(" "):
        return "␣" * len(text)
    signs = [
        _SIGNS.get(sign, f"‹{ord(sign):x}›" if unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") else sign)
        for sign in text
    ]
    whole = "".join(signs)
    left, right = len(whole) - len(whole.lstrip(" ")), len(whole) - len(whole.rstrip(" "))
    return "␣" * left + whole.strip(" ") + "␣" * right


def sizes(text: str) -> Sizes:
    """What a text takes, and what the packers that everybody has make of it."""
    raw = text.encode("utf-8", errors="replace")
    return Sizes(len(raw), len(gzip.compress(raw, 9, mtime=0)), len(lzma.compress(raw, preset=9)))


def program() -> tuple[Path, int, int, str]:
    """The C file that runs the models: where it is, its bytes, its lines, its sha256."""
    import twofile

    path = Path(twofile.__file__).with_name("run.c")
    raw = path.read_bytes()
    return path, len(raw), raw.count(b"\n"), hashlib.sha256(raw).hexdigest()


def tensors(given: Sequence[TensorInfo]) -> str:
    """The tensors of a file as a table of HTML."""
    rows = "".join(
        f"<tr><td><code>{escape(one.name)}</code></td><td>{' × '.join(f'{n:,}' for n in one.shape)}</td>"
        f"<td>{escape(one.type)}</td><td>{escape(quantity(one.bytes, 'B'))}</td></tr>"
        for one in given
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Tensor", "Shape", "Type", "Size"))
    return (
        '<div class="table" tabindex="0" role="region" aria-label="The tensors">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


_MIDDLE, _WIDE = 190, 380  # of the drawing


def diagram(hyper: Hyperparameters) -> str:
    """A model drawn from its hyperparameters, as SVG."""
    sums: dict[str, int] = {}
    for name, shape in hyper.shapes().items():
        part = name.split(".")[2] if name.startswith("blk.") else name.split(".")[0]
        sums[part] = sums.get(part, 0) + math.prod(shape)
    attention = sum(n for name, n in sums.items() if name.startswith("attn") and name != "attn_norm")
    feed = sum(n for name, n in sums.items() if name.startswith("ffn") and name != "ffn_norm")
    heads = f"{hyper.n_heads} heads of {hyper.head_dim}, {hyper.n_kv_heads} of keys and values"
    more = {"qwen3": " · normed queries, keys", "qwen2": " · with biases"}.get(hyper.architecture, "")
    own = "the embedding again" if hyper.tied else f"{_count(sums.get('output', 0))} of its own"
    parts = [
        _box(
            10, 46, "Embedding", f"{hyper.vocab_size:,} tokens × {hyper.dim:,} · {_count(sums['token_embd'])}", "ends"
        ),
        _arrow(56, 100),
        '<rect x="24" y="84" width="332" height="312" rx="14" class="repeat"/>',
        f'<text x="346" y="389" text-anchor="end" class="times">× {hyper.n_layers} layers</text>',
        _box(100, 26, "Norm", "", "norm"),
        _arrow(126, 142),
        _box(142, 78, "Attention", heads, "attention", f"rotary positions{more}"),
        _heads(hyper, 206),
        f'<path d="M{_MIDDLE} 92 H44 V236 H{_MIDDLE - 11}" class="skip-line"/>',
        _arrow(220, 228),
        _plus(236),
        _arrow(247, 264),
        _box(264, 26, "Norm", "", "norm"),
        _arrow(290, 304),
        _box(304, 46, "Feed-forward, SwiGLU", f"{hyper.dim:,} → 2 × {hyper.ffn_dim:,} → {hyper.dim:,}", "feed"),
        f'<path d="M{_MIDDLE} 255 H44 V366 H{_MIDDLE - 11}" class="skip-line"/>',
        _arrow(350, 358),
        _plus(366),
        _arrow(377, 412),
        _box(412, 26, "Norm", "", "norm"),
        _arrow(438, 456),
        _box(456, 46, "Output", f"{hyper.dim:,} × {hyper.vocab_size:,} · {own}", "ends"),
        _arrow(502, 520),
        f'<text x="{_MIDDLE}" y="534" text-anchor="middle" class="fine">a probability of each of the tokens</text>',
    ]
    label = (
        f"Architecture: an embedding of {hyper.vocab_size} tokens in {hyper.dim} numbers, {hyper.n_layers} layers each "
        f"of attention ({heads}; {_count(attention)} parameters in all) and a SwiGLU feed-forward of {hyper.ffn_dim} "
        f"({_count(feed)} in all), a norm before each, then a norm and the output"
    )
    return (
        f'<svg class="diagram" viewBox="0 0 {_WIDE} 542" role="img" aria-label="{escape(label)}">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" class="tip"/></marker></defs>{"".join(parts)}</svg>'
    )


def _count(n: int) -> str:
    return quantity(n).replace(" ", " ")


def _box(y: int, height: int, title: str, line: str, kind: str, second: str = "") -> str:
    found = f'<rect x="58" y="{y}" width="264" height="{height}" rx="9" class="box {kind}"/>'
    at = y + (18 if line else height // 2 + 5)
    found += f'<text x="{_MIDDLE}" y="{at}" text-anchor="middle" class="title">{escape(title)}</text>'
    for number, text in enumerate(filter(None, (line, second)), 1):
        found += (
            f'<text x="{_MIDDLE}" y="{at + 15 * number + 2}" text-anchor="middle" class="fine">{escape(text)}</text>'
        )
    return found


def _arrow(top: int, bottom: int) -> str:
    return f'<line x1="{_MIDDLE}" y1="{top}" x2="{_MIDDLE}" y2="{bottom}" class="line" marker-end="url(#tip)"/>'


def _plus(y: int) -> str:
    return (
        f'<circle cx="{_MIDDLE}" cy="{y}" r="11" class="box"/>'
        f'<path d="M{_MIDDLE - 5} {y} H{_MIDDLE + 5} M{_MIDDLE} {y - 5} V{y + 5}" class="line"/>'
    )


def _heads(hyper: Hyperparameters, y: int) -> str:
    """A sign for each head, those that share keys and values in one colour."""
    n, group = hyper.n_heads, hyper.n_heads // hyper.n_kv_heads
    if n > 40:
        return ""
    step = min(14.0, 220 / n)
    left = _MIDDLE - step * n / 2
    return "".join(
        f'<rect x="{left + step * i + 1:.1f}" y="{y}" width="{step - 2:.1f}" height="8" rx="2" '
        f'class="head {"odd" if i // group % 2 else "even"}"/>'
        for i in range(n)
    )
