"""What is shown of models alone: the two files, a dream, the surprise of a text; and how tokens and figures are shown.

Models are opened and asked in threads, each time in a session of their own; a dream ends with the page that asked for
it. What a file or a model says is shown as text.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nicegui import context, ui
from nicegui.element import Element

from twofile.engine.generate import generate
from twofile.engine.sampler import Sampling
from twofile.errors import TwofileError
from twofile.evaluate.surprise import first_token, surprises
from twofile.html.figures import quantity, span
from twofile.params.checksum import file_sha256
from twofile.params.parameters import Parameters
from twofile.params.show import Description, describe
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import guarded, in_thread
from twofile.serve.pages.inspection import diagram, program, sizes, tensors
from twofile.serve.pages.parts import Field, Markup, button, el, words

__all__ = ["Dream", "Files", "Surprise", "Tokens", "bar", "figures", "legend", "share"]

_BITS = (
    (1.0, "less than 1"),
    (2.0, "1 to 2"),
    (4.0, "2 to 4"),
    (7.0, "4 to 7"),
    (10.0, "7 to 10"),
    (math.inf, "10 or more"),
)
_SAMPLE = (
    "Once upon a time there was a little girl who lived near the forest with her mother and her dog. One day she went "
    "out to play, and she saw a big red ball under a tree. She liked quantum electrodynamics. “Can I play with "
    "you?” she said to the dog. The dog was happy, and they played together all day."
)
_LONGEST = 20_000  # characters of a text
_DREAM = 400  # tokens
_AT_ONCE = 200 << 20  # bytes of a file whose checksum nobody has to ask for


class Tokens(Element, component="assets/tokens.js"):
    """Tokens with their boundaries: [text, classes, what is said of it] of each. `pick` gets the index of one."""

    def __init__(
        self, tokens: list[list[str]], label: str, pick: Callable[[int], Any] | None = None, chosen: int = -1
    ) -> None:
        super().__init__()
        self.props["tokens"], self.props["label"], self.props["chosen"] = tokens, label, chosen
        self.props["pickable"], self.props["reveal"] = pick is not None, ".inside .detail"
        if pick is not None:
            self.on("pick", lambda event: pick(int(event.args)))


def share(part: float) -> str:
    """A probability as people read it."""
    if part >= 0.9995:
        return "100%" if part > 0.99995 else f"{part:.2%}"
    return f"{part:.0%}" if part >= 0.1 else f"{part:.1%}" if part >= 0.001 else f"1 in {1 / max(part, 1e-15):,.0f}"


def figures(given: Mapping[str, str]) -> None:
    with el("dl", "figures"):
        for name, value in given.items():
            with el("div"):
                el("dt", text=name)
                el("dd", text=value)


def legend(title: str, names: Sequence[str]) -> None:
    with el("div", "row small soft"):
        el("span", text=f"{title}:")
        for level, name in enumerate(names):
            el("span", f"token sample p{level}", name)


def bar(label: str, part: float, value: str) -> None:
    """A share of 1 as a bar; the value says it too."""
    el("span", "mono said name", label)
    with el("span", "track", aria_hidden="true"):
        el("span", "filled").style(f"width: {100 * max(0.0, min(1.0, part)):.2f}%")
    el("span", "value small", value)


def _model_field(desk: Desk, change: Callable[[Any], Any] | None = None, first: str = "assistant") -> Field:
    models = desk.models()
    chosen = next((one for one in models if one.name == first), models[0] if models else None)
    options = {str(one.path): f"{one.name} ({quantity(one.bytes, 'B')})" for one in models}
    return Field("Model", str(chosen.path) if chosen else "", change, "select", options)


def _known(desk: Desk, given: Any) -> Path:
    """A model of this machine. TwofileError for any other path."""
    path = next((one.path for one in desk.models() if str(one.path) == str(given)), None)
    if path is None:
        raise TwofileError("there is no such model here any more", "reload the page")
    return path


class Files:
    """The two files: parameters, and the program."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with el("div", "narrow"):
            self.field = _model_field(desk, self._show)
        self.first = el("div", "stack")
        with el("div", "card stack") as self.second:
            el("h2", text="The second file: run.c")
        ui.timer(0.02, self._begin, once=True)

    async def _begin(self) -> None:
        await self._show(self.field.value)
        path, size, lines, checksum = await in_thread(program)
        with self.second:
            words("All the arithmetic of a model, in one file of C, compiled where it runs.", "soft")
            _table({"file": str(path), "size": quantity(size, "B"), "lines": f"{lines:,}", "sha256": checksum})

    @guarded
    async def _show(self, given: Any) -> None:
        path = _known(self.desk, given)
        about, checksum = await in_thread(_described, path)
        if self.field.value != given or self.first.is_deleted:
            return
        hyper, lineage = about.hyper, about.provenance
        self.first.clear()
        with self.first:
            with el("div", "split even"):
                with el("div", "card stack"):
                    el("h2", "said", f"The first file: {path.name}")
                    if lineage.description:
                        words(lineage.description, "soft said")
                    _table(
                        {
                            "file": about.path,
                            "size": f"{quantity(about.bytes, 'B')}, {about.bits_per_weight:.2f} bits a parameter",
                            "sha256": checksum,
                            "parameters": f"{about.n_parameters:,}",
                            "family": hyper.architecture,
                            "layers": f"{hyper.n_layers}",
                            "numbers a token": f"{hyper.dim:,}",
                            "heads": f"{hyper.n_heads}, {hyper.n_kv_heads} of keys and values, of {hyper.head_dim}",
                            "feed-forward": f"{hyper.ffn_dim:,}",
                            "context": f"{hyper.context_length:,} tokens",
                            "rotary base": f"{hyper.rope_theta:,.0f}",
                            "tokenizer": about.tokenizer,
                            "chat template": about.chat_template,
                            "licence": lineage.license,
                        }
                    )
                    if not checksum:
                        self._ask_checksum(path)
                with el("div", "card"):
                    Markup(diagram(hyper))
            with el("div", "card stack"):
                el("h2", text="Where it comes from")
                if lineage.stages:
                    with el("ol", "stages"):
                        for number, stage in enumerate(lineage.stages):
                            cost = lineage.cost(number)
                            took = f" · {span(cost.seconds)}, {quantity(cost.tokens)} tokens" if cost else ""
                            with el("li"):
                                el("span", "said", stage)
                                el("span", "soft small", took)
                else:
                    words("The file does not say.", "soft")
                made = {"made from (sha256)": lineage.parent, "by twofile": lineage.version, "with": lineage.command}
                _table(made)
                if lineage.data:
                    with el("details"):
                        el("summary", text=f"The data ({len(lineage.data)})")
                        _table({name: checksum for name, _, checksum in (one.partition(" ") for one in lineage.data)})
            with el("details", "card"):
                types = ", ".join(f"{one.type} {share(one.bytes / about.bytes)}" for one in about.types)
                el("summary", text=f"The tensors ({len(about.tensors)}: {types})")
                Markup(tensors(about.tensors))

    def _ask_checksum(self, path: Path) -> None:
        with el("div", "row") as row:

            @guarded
            async def work() -> None:
                row.clear()
                with row:
                    words("Reading the file…", "soft small", role="status")
                found = await in_thread(file_sha256, path)
                row.clear()
                with row:
                    el("span", "mono said", f"sha256 {found}")

            button("Compute its sha256 (reads the whole file)", work, "tiny")


def _described(path: Path) -> tuple[Description, str]:
    with Parameters.open(path) as parameters:
        about = describe(parameters, checksum=path.stat().st_size <= _AT_ONCE)
    return about, about.sha256


def _table(given: Mapping[str, str]) -> None:
    with el("dl", "facts"):
        for name, value in given.items():
            if value:
                el("dt", text=name)
                el("dd", "said", value)


class Dream:
    """A text from nothing, as it comes."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._stop: threading.Event | None = None
        with el("div", "row fields"):
            self.model = _model_field(desk, None, "stories")
            self.temperature = Field("Temperature", "0.8", None, "number", at_once=True, min="0", max="2", step="0.1")
            button("Dream", self._dream, "primary")
            button("Stop", self._end, title="Stop dreaming")
        self.text = el("div", "card said dream", role="region", aria_label="The dream", tabindex="0")
        self.state = words("", "soft small", role="status")
        context.client.on_delete(self._end)

    def _end(self) -> None:
        if self._stop is not None:
            self._stop.set()

    @guarded
    async def _dream(self) -> None:
        self._end()
        stop = self._stop = threading.Event()
        path = _known(self.desk, self.model.value)
        sampling = Sampling(temperature=float(self.temperature.value or 0))
        pieces: list[str] = []
        self.text.set_text("")
        self.state.set_text(f"Opening {path.stem}…")
        job = asyncio.ensure_future(in_thread(_dreamt, self.desk, path, sampling, pieces, stop))
        while True:
            over = bool((await asyncio.wait({job}, timeout=0.1))[0])
            if self._stop is not stop or self.text.is_deleted:
                return  # another one has begun
            self.text.set_text("".join(pieces))
            if over:
                break
            if pieces:
                self.state.set_text(f"Dreaming: {len(pieces)} tokens…")
        self.state.set_text("")
        why, seconds = await job
        self.state.set_text(f"{len(pieces)} tokens, {len(pieces) / max(seconds, 1e-3):,.0f} a second: {why}.")


def _dreamt(desk: Desk, path: Path, sampling: Sampling, pieces: list[str], stop: threading.Event) -> tuple[str, float]:
    """Dream into `pieces`; why it is over, and the seconds it took."""
    engine = desk.engine(path)
    began, why = time.monotonic(), "as long as a dream may be here"
    with engine.session() as session:
        for piece in generate(session, [first_token(engine.info)], sampling, _DREAM):
            pieces.append(piece.text)
            if piece.finish == "end":
                why = "it came to its end"
            elif stop.is_set():
                why = "stopped"
                break
    return why, time.monotonic() - began


class Surprise:
    """How little of a text a model foresaw."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.text = Field("Text", _SAMPLE, None, "textarea", at_once=True, rows="5", maxlength=str(_LONGEST))
        with el("div", "row fields"):
            self.model = _model_field(desk, None)
            button("Measure", self._measure, "primary")
        self.state = words("", "soft small", role="status")
        self.out = el("div", "stack")

    @guarded
    async def _measure(self) -> None:
        text = str(self.text.value)
        if not text.strip() or len(text) > _LONGEST:
            raise ValueError(f"give a text of at most {_LONGEST:,} characters" if text.strip() else "there is no text")
        path = _known(self.desk, self.model.value)
        self.state.set_text(f"{path.stem} is reading…")
        try:
            found = await in_thread(lambda: surprises(self.desk.engine(path), text))
            packed = await in_thread(sizes, text)
        finally:
            self.state.set_text("")
        bits, n = sum(one.bits for one in found), sum(len(one.tokens) for one in found)
        self.out.clear()
        with self.out:
            figures(
                {
                    "tokens": f"{n:,}",
                    "bits a token": f"{bits / n:.2f}",
                    "bits a byte": f"{bits / packed.raw:.3f}",
                    "bits in all": f"{bits:,.0f}",
                }
            )
            legend("Bits a token", [name for _, name in _BITS])
            with el("div", "card"):
                shown = [[one.text, f"p{_level(one.bits)}", f"{one.bits:.2f} bits"] for one in found]
                Tokens(shown, "The text, token by token")
            with el("div", "card stack"):
                el("h2", text="What it would be packed to")
                rows = {"as it is": packed.raw, "gzip": packed.gzip, "xz": packed.xz, path.stem: math.ceil(bits / 8)}
                with el("ul", "alternatives wide"):
                    for name, size in rows.items():
                        with el("li"):
                            bar(name, size / max(rows.values()), f"{size:,} bytes ({size / packed.raw:.0%})")
                words("The model's own file is not counted: who unpacks needs it, too.", "soft small")


def _level(bits: float) -> int:
    return next((i for i, (most, _) in enumerate(_BITS) if bits < most), len(_BITS) - 1)
