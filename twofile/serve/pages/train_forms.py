"""The forms of the page `train`: what a model learns from, how long, what it is called. None begins anything by itself.

What is given is checked where it is begun (`training.begin_*`), so that a form that somebody else fills in can do no
more than these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from twofile.errors import TwofileError
from twofile.serve.pages import training
from twofile.serve.pages.desk import Desk, Model
from twofile.serve.pages.frame import guarded, in_thread
from twofile.serve.pages.jobs import Job
from twofile.serve.pages.parts import Field, File, button, el, table, words
from twofile.serve.pages.training import StartedError, Texts

__all__ = ["FORMS", "Pretrain", "address", "copied"]

_PAUSE = 0.5  # seconds after the last key until a path is looked at
_TIMES = {"1": "1 min", "10": "10 min", "30": "30 min", "60": "1 h"}
_SAID = {"parameters": "parameters", "tokens": "tokens", "steps": "steps", "epochs": "times through the texts"}


def address(job: Job) -> str:
    """Where a job is shown."""
    return f"/train?job={quote(job.name)}" + ("" if job.kind == "train" else f"&kind={job.kind}")


def copied(command: str, say: str = "Copy the command") -> None:
    with el("div", "command"):
        el("code", text=command, tabindex="0", role="group", aria_label="Command")
        button("Copy", None, "quiet tiny", aria_label=say, data_copy=command)


def _number(field: Field, what: str) -> float:
    try:
        return float(str(field.value).replace(",", "."))
    except ValueError:
        raise TwofileError(f"{what}: {str(field.value)!r} is no number") from None


class _Source:
    """Where data are given: files that are dropped or chosen, or a path. `named` gets the name of what was given."""

    def __init__(
        self, drop: str, path: str, named: Callable[[str], None], *, multiple: bool = False, folders: bool = False
    ) -> None:
        self._uploads: list[tuple[str, str]] = []
        self._named, self._multiple, self._folders = named, multiple, folders
        File(drop, self._sent, multiple=multiple)
        self._chosen = el("ul", "chosen", aria_label="Chosen files")
        example = "/home/me/texts" if folders else "/home/me/rows.jsonl"
        self._path = Field(path, "", self._typed, at_once=True, spellcheck="false", placeholder=example)
        self._about = words("", "soft small", role="status")

    def texts(self, separator: str = "") -> Texts:
        return Texts(tuple(self._uploads), str(self._path.value or ""), separator)

    def _sent(self, said: dict[str, Any]) -> None:
        id, name = str(said.get("id")), str(said.get("name"))
        if not self._multiple:
            self._uploads.clear()
            self._chosen.clear()
        if any(known == id for known, _ in self._uploads):
            return
        self._uploads.append((id, name))
        with self._chosen, el("li") as row:
            el("span", "name", name)
            el("span", "soft small", training.bytes_of(said.get("bytes")))

            def drop() -> None:
                self._uploads = [(known, called) for known, called in self._uploads if known != id]
                row.delete()

            button("×", drop, "quiet tiny", aria_label=f"Leave {name} out")
        self._named(name)

    async def _typed(self, text: str) -> None:
        await asyncio.sleep(_PAUSE)
        if text != self._path.value or self._about.is_deleted:
            return
        try:
            self._about.set_text(await in_thread(training.about_path, text, self._folders) if text.strip() else "")
            if text.strip():
                self._named(text.rstrip("/ "))
        except TwofileError as error:
            self._about.set_text(f"{error.message}: {error.hint}")


class _Form:
    """What the forms have in common: a name that follows from what is chosen until somebody types one, and a start."""

    def __init__(self, desk: Desk, title: str, about: str, suffix: str = "") -> None:
        self.desk, self._suffix, self._own = desk, suffix, False
        el("h2", text=title, id_="form")
        words(about, "soft small")

    def name_field(self, label: str = "Name of the new model") -> None:
        self.name = Field(label, "", self._typed, at_once=True, spellcheck="false", maxlength=100)

    def named(self, file: str) -> None:
        """Something was chosen."""
        if not self._own:
            self.name.set(training.free_name(self.desk.home, training.name_of(file) + self._suffix))

    def _typed(self, text: str) -> None:
        self._own = bool(text.strip())

    def buttons(self, act: str, begin: Callable[[], Job], *, trains: bool = True) -> None:
        """The button that begins; `begin` is called in a thread."""
        self._offer = el("div")

        @guarded
        async def start() -> None:
            self._offer.clear()
            try:
                job = await in_thread(begin)
            except StartedError as error:
                self._there(error)
            else:
                ui.navigate.to(address(job))

        with el("div", "row"):
            button(act, start, "primary", disabled=trains and not training.can_train())

    def _there(self, error: StartedError) -> None:
        """There is a run of this name: go on with it, or call it something else."""
        name = str(self.name.value).strip()
        other = training.free_name(self.desk.home, name)

        @guarded
        async def go_on() -> None:
            ui.navigate.to(address(await in_thread(training.go_on, self.desk.jobs, self.desk.home, name)))

        def rename() -> None:
            self.name.set(other)
            self._offer.clear()

        with self._offer, el("div", "card offer", role="alert"):
            words(f"{error.message[0].upper()}{error.message[1:]}.")
            with el("div", "row"):
                button("Go on with it", go_on)
                button(f"Call it {other}", rename)


class Pretrain(_Form):
    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, "A model from texts", "It begins with nothing, and learns from your texts alone.")
        with el("div", "halves"):
            with el("div", "stack"):
                drop, path = "Drop text files here, or choose them", "Or a file or folder on this machine"
                self.source = _Source(drop, path, self.named, multiple=True, folders=True)
                separators = {key: said for key, (said, _) in training.SEPARATORS.items()}
                self.separator = Field("Documents are separated by", "blank", None, "select", separators)
            with el("div", "stack"):
                self.minutes = Field(
                    "Minutes to train", "10", None, "number", at_once=True, min="0.05", max="10080", step="any"
                )
                with el("div", "row chips", role="group", aria_label="Usual times"):
                    for value, said in _TIMES.items():
                        button(said, partial(self.minutes.set, value), "tiny")
                self.name_field()
                with el("details", "foretold") as fold:
                    el("summary", text="What this would train")
                    self.told = el("div", role="status")
                fold.on("toggle", self._foretell, ["newState"])
        self.buttons("Start training", self._begin)

    def _begin(self) -> Job:
        texts, minutes = self.source.texts(str(self.separator.value)), _number(self.minutes, "minutes")
        return training.begin_training(self.desk.jobs, self.desk.home, texts, minutes, str(self.name.value))

    async def _foretell(self, event: Any) -> None:
        if event.args.get("newState") == "closed":
            return
        self.told.clear()
        with self.told:
            words("Measuring this machine, a few seconds …", "soft small")
        try:
            texts, minutes = self.source.texts(str(self.separator.value)), _number(self.minutes, "minutes")
            found = await in_thread(training.foretell, self.desk.home, texts, minutes)
        except (TwofileError, OSError) as error:
            self.told.clear()
            with self.told:
                words(str(error), "small")
            return
        known = {one.name: one.value for one in found}
        self.told.clear()
        with self.told:
            said = (f"{known[name]} {word}" for name, word in _SAID.items() if name in known)
            words(", ".join(said), "headline")
            table(("number", "value", "why"), [(one.name, one.value, one.law) for one in found], "Numbers of the run")


class _Further(_Form):
    """Tuning on conversations, and learning what people prefer: they differ in words."""

    def __init__(self, desk: Desk, models: list[Model], kind: str, title: str, about: str, rows: str) -> None:
        super().__init__(desk, title, about, "-tuned" if kind == "tune" else "-preferred")
        self.kind = kind
        with el("div", "halves"):
            with el("div", "stack"):
                options = {str(model.path): f"{model.name} ({model.where})" for model in models}
                first = next(iter(options), "")
                self.base = Field("Model to begin with", first, self._based, "select", options)
                given = {"file": "A file", "labels": "What was labelled here"}
                self.given = Field(f"{rows} from", "file", self._shown, "select", given)
                with el("div", "stack") as self.files:
                    self.source = _Source(f"Drop a file of {rows.lower()} (JSON lines)", "Or its path", lambda _: None)
            with el("div", "stack"):
                with el("div", "row pair"):
                    self.length = Field("Length", "10", None, "number", at_once=True, min="0.05", step="any")
                    units = {"minutes": "minutes", "steps": "steps"}
                    self.unit = Field("Counted in", "minutes", None, "select", units)
                self.name_field()
        self._based(first)
        self.buttons("Start tuning" if kind == "tune" else "Start learning", self._begin)

    def _based(self, path: str) -> None:
        if path:
            self.named(path)

    def _shown(self, given: str) -> None:
        self.files.set_visibility(given == "file")

    def _begin(self) -> Job:
        data = self.desk.labels if self.given.value == "labels" else self.source.texts()
        length, unit = _number(self.length, "length"), str(self.unit.value)
        said = self.kind, str(self.base.value), data, length, unit, str(self.name.value)
        return training.begin_learning(self.desk.jobs, self.desk.home, *said)


class _Tune(_Further):
    def __init__(self, desk: Desk, models: list[Model]) -> None:
        about = (
            "It learns to say what the assistant says in the conversations. Small changes (LoRA): twofile tune --lora."
        )
        super().__init__(desk, models, "tune", "Tune a model on conversations", about, "Conversations")


class _Prefer(_Further):
    def __init__(self, desk: Desk, models: list[Model]) -> None:
        about = "It learns to say what was chosen rather than what was not (DPO). With a reward: twofile reinforce."
        super().__init__(desk, models, "prefer", "Teach a model what people prefer", about, "Pairs")


class _Arena(_Form):
    def __init__(self, desk: Desk, models: list[Model]) -> None:
        about = (
            "The models answer the same questions; people say on the page Labels which answer is better, without "
            "knowing whose it is. A program or a reward model judges with twofile arena --judge."
        )
        super().__init__(desk, "Which model is better", about)
        options = {"": "–"} | {str(model.path): f"{model.name} ({model.where})" for model in models}
        with el("div", "halves"):
            with el("div", "stack"):
                chosen = [*(str(model.path) for model in models), "", ""][:2]
                given = (("First model", chosen[0]), ("Second model", chosen[1]), ("Third model, if any", ""))
                self.models = [Field(said, value, None, "select", options) for said, value in given]
            with el("div", "stack"):
                drop = f"Drop a file of questions (JSON lines); without one, {len(training.EVERYDAY)} everyday ones"
                self.source = _Source(drop, "Or its path", lambda _: None)
                self.longest = Field(
                    "Tokens of an answer, at most", "128", None, "number", at_once=True, min="1", max="4096"
                )
                self.name_field("Name of the arena")
                self.name.set("arena")
        self.buttons("Start the arena", self._begin, trains=False)

    def _begin(self) -> Job:
        models, longest = [str(field.value) for field in self.models], int(_number(self.longest, "tokens"))
        said = models, self.source.texts(), longest, str(self.name.value)
        return training.begin_arena(self.desk.jobs, self.desk.home, *said)


FORMS: dict[str, Callable[[Desk, list[Model]], object]] = {"tune": _Tune, "prefer": _Prefer, "arena": _Arena}
