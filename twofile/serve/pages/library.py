"""The models of this machine: what each is and needs; pulled, imported, quantised, exported, deleted.

What takes its time is a job, which goes on when the page is closed or the server is ended; it is found again, and one
that was stopped can be begun again: a pull goes on where it was. Nothing is loaded because it is listed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nicegui import context, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from twofile.errors import TwofileError
from twofile.html.figures import quantity, span
from twofile.params.mixture import FILE_TYPES
from twofile.serve.pages import shelf
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import confirm, framed, guarded, in_thread, notice, watch
from twofile.serve.pages.parts import Dialog, Field, File, button, el, link, words
from twofile.serve.pages.shelf import Details, Entry, Shelf, Standing

__all__ = ["add"]

_DOES = {"pull": "Pull", "quantise": "Quantise", "import": "Import", "export": "Export"}
_STATES = {"running": "", "done": "good", "failed": "bad", "stopped": "warn"}
_WHERE = {"bundled": "came with the program", "local": "made here", "pulled": "from a hub"}


def add(desk: Desk) -> None:
    """Make the page known."""
    known = Shelf()

    @ui.page("/library", title="Library - twofile")
    def page() -> None:
        _Library(desk, known)


class _Library:
    """One open page."""

    def __init__(self, desk: Desk, known: Shelf) -> None:
        self.desk, self.known = desk, known
        self._jobs: list[_Row] = []
        self._shown: Any = None
        self._free = (0, 0)
        with framed("/library", "plain library"):
            with el("div", "row top"):
                el("h1", text="Library")
                el("span", "grow")
                self.room = words("", "soft small")
            self._pull_form()
            self.jobs = el("section", "stack", aria_label="Jobs")
            self.models = el("section", "stack", aria_label="Models")
        watch(1.0, self._look)

    async def _look(self) -> None:
        """Show what is here by now."""
        entries, standings, room = await in_thread(self._seen)
        self._free = room
        self.room.set_text(f"{quantity(room[0], 'B')} of memory and {quantity(room[1], 'B')} of disk are free")
        self._show_jobs(standings)
        opened = set(self.desk.kernel.opened)
        tight = {one.path for one in entries if one.details is not None and one.details.need.total > room[0] > 0}
        shown = (entries, {str(one.path) for one in entries} & opened, tight)
        if shown != self._shown:
            self._shown = shown
            self._show_models(entries, opened, tight)

    def _seen(self) -> tuple[list[Entry], list[Standing], tuple[int, int]]:
        return self.known.entries(), shelf.standings(self.desk.jobs), self.desk.room()

    # What comes in.

    def _pull_form(self) -> None:
        with el("section", "card get stack", aria_label="Get a model"):
            with _form(self._pull) as form, el("div", "row bottom"):
                field = Field("Pull a model from a hub", placeholder="hf:user/repo or hf:user/repo:file.gguf")
                field.classes("grow")
                _submit("Pull")
                button("Import…", self._import)
            form.field = field  # type: ignore[attr-defined]
            self.field = field
            self.problem = words("", "shelf-problem", role="alert")
            hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
            words(
                f"From {hub}. What has come stays when a pull is stopped, and is checked when it is whole.",
                "soft small",
            )

    async def _pull(self) -> None:
        await _told(self.problem, self._begin_pull)

    async def _begin_pull(self) -> None:
        name = shelf.hub_name(str(self.field.value))
        await self._begin("pull", shelf.job_name(name), ["pull", "--", name], model=name, title=name)
        self.field.set("")

    async def _begin(self, kind: str, name: str, argv: Any, **about: Any) -> None:
        await in_thread(self.desk.jobs.begin, kind, name, list(argv), about)
        await self._look()

    def _import(self) -> None:
        with _dialog("Import a model") as dialog:
            words(
                "A Hugging Face folder (config.json, safetensors, tokenizer.json), a checkpoint of llama2.c, or a "
                ".gguf file, which is copied.",
                "soft small",
            )
            path = Field("Path on this machine", placeholder="/home/…/model")

            async def sent(given: dict[str, Any]) -> None:
                await _told(problem, take, given)

            async def take(given: dict[str, Any]) -> None:
                if given.get("kind") != "gguf":
                    raise TwofileError(f"{given.get('name')} is no .gguf file")
                upload = self.desk.home / "uploads" / Path(str(given.get("id"))).name
                path.set(str(upload))
                if not str(name.value).strip():
                    name.set(Path(str(given.get("name"))).stem)
                said.set_text(f"{given.get('name')} is here.")

            File("Or send a .gguf file (200 MB at the most)", sent, ".gguf")
            said = words("", "soft small", role="status")
            name = Field("Name of the model here")
            with el("details"):
                el("summary", text="More")
                with el("div", "stack more"):
                    types = {"": "as they are"} | dict.fromkeys(FILE_TYPES, "")
                    kind = Field("Type of the matrices", "", None, "select", {t: w or t for t, w in types.items()})
                    tokenizer = Field("llama2.c: tokenizer.bin, where it is not beside the checkpoint")
            problem = words("", "shelf-problem", role="alert")

            async def begin() -> None:
                await _told(problem, do)

            async def do() -> None:
                found = shelf.source(str(path.value))
                wanted = shelf.new_name(str(name.value))
                if found.suffix == ".gguf":
                    said.set_text("It is checked and copied…")
                    await in_thread(shelf.adopt, found, wanted)
                    notice(f"{wanted} is here")
                    await self._look()
                else:
                    extra = shelf.source(str(tokenizer.value)) if str(tokenizer.value).strip() else None
                    argv = shelf.imported(found, wanted, str(kind.value), extra)
                    await self._begin("import", wanted, argv, title=f"{found} as {wanted}")
                dialog.close()

            _ends(dialog, "Import", begin)

    # The jobs.

    def _show_jobs(self, standings: list[Standing]) -> None:
        if [row.key for row in self._jobs] == [_key(one) for one in standings]:
            for row, one in zip(self._jobs, standings, strict=True):
                row.show(one, self._free[1])
            return
        self._jobs = []
        self.jobs.clear()
        with self.jobs:
            if standings:
                el("h2", text="Jobs")
            for one in standings:
                row = _Row(one, self._act)
                row.show(one, self._free[1])
                self._jobs.append(row)

    @guarded
    async def _act(self, what: str, one: Standing) -> None:
        job = one.job
        if what == "stop":
            await in_thread(job.stop)
        elif what == "again":
            await in_thread(self.desk.jobs.begin, job.kind, job.name, job.argv, job.about)
        elif one.left:
            confirm(
                f"Forget it, and delete the {quantity(one.left, 'B')} that came?", "Delete", partial(self._drop, one)
            )
            return
        else:
            await in_thread(self.desk.jobs.forget, job)
        await self._look()

    @guarded
    async def _drop(self, one: Standing) -> None:
        await in_thread(self.desk.jobs.forget, one.job)
        await in_thread(shelf.forget_parts, str(one.job.about.get("model", "")))
        await self._look()

    # The models.

    def _show_models(self, entries: list[Entry], opened: set[str], tight: set[Path]) -> None:
        self.models.clear()
        with self.models:
            el("h2", text="Models")
            with el("div", "grid"):
                for one in entries:
                    if not one.adapter:
                        self._card(one, str(one.path) in opened, one.path in tight)
            if adapters := [one for one in entries if one.adapter]:
                el("h2", text="Adapters")
                words("Changes to a model, chosen beside it in a chat's settings.", "soft small")
                with el("div", "grid"):
                    for one in adapters:
                        self._card(one, False, False)

    def _card(self, one: Entry, opened: bool, tight: bool) -> None:
        with el("article", "card model", aria_label=one.name):
            with el("div", "row head"):
                el("h3", "grow name", one.name)
                if opened:
                    el("span", "tag good", "loaded")
                if one.details is not None:
                    el("span", "tag", "assistant" if one.details.chat else "base")
            if one.details is not None:
                self._facts(one, one.details)
                self._memory(one.details, tight, opened)
            else:
                words(f"{one.adapter or 'A file'}, {quantity(one.bytes, 'B')}, {_WHERE[one.where]}.", "soft small")
            if one.problem:
                words(f"It cannot be used: {one.problem}", "shelf-problem")
            self._acts(one, opened)

    def _acts(self, one: Entry, opened: bool) -> None:
        details = one.details
        if details is not None:
            name = quote(one.name, safe="")
            with el("div", "row acts"):
                link("Chat", f"/?model={name}", "button primary", aria_label=f"Chat with {one.name}")
                link("Inside", f"/inside?model={name}", "button", aria_label=f"Look inside {one.name}")
                if opened:
                    button("Unload", partial(self._unload, one), aria_label=f"Unload {one.name}")
        with el("div", "row more"):
            if details is not None:
                label = f"Quantise {one.name}"
                button("Quantise…", partial(self._quantise, one, details), "quiet tiny", aria_label=label)
                button("Export…", partial(self._export, one), "quiet tiny", aria_label=f"Export {one.name}")
            if one.where != "bundled":
                el("span", "grow")
                button("Delete…", partial(self._delete, one), "quiet tiny danger", aria_label=f"Delete {one.name}")

    def _facts(self, one: Entry, details: Details) -> None:
        facts = {
            "Size": f"{quantity(one.bytes, 'B')} on disk",
            "Parameters": quantity(details.parameters),
            "Type": f"{details.type}, {details.bits:.1f} bits a weight",
            "Context": f"{details.context:,} tokens",
            "Family": details.family,
            "From": _WHERE[one.where],
        }
        if details.license:
            facts["Licence"] = details.license[:60]
        with el("dl", "facts small"):
            for name, value in facts.items():
                el("dt", "soft", name)
                el("dd", "", value)

    def _memory(self, details: Details, tight: bool, opened: bool) -> None:
        need = details.need
        free = f"{quantity(self._free[0], 'B')} is free"
        with el("details", "memory small"):
            with el("summary"):
                el("span", "", f"Memory: {quantity(need.total, 'B')} ")
                if not opened:
                    el("span", "tag warn" if tight else "tag good", "does not fit" if tight else "fits")
            with el("dl", "facts"):
                for name, value in (
                    ("Weights", need.weights),
                    (f"Keys and values of {details.context:,} tokens", need.cache),
                    ("Working space", need.work),
                ):
                    el("dt", "soft", name)
                    el("dd", "", quantity(value, "B"))
        if tight and not opened:
            words(
                f"It needs {quantity(need.total, 'B')} of memory, and {free}: a smaller type may fit.", "warning small"
            )

    @guarded
    async def _unload(self, one: Entry) -> None:
        await in_thread(self.desk.release, one.path)
        await self._look()

    def _delete(self, one: Entry) -> None:
        confirm(f"Delete {one.name}, {quantity(one.bytes, 'B')}?", "Delete", partial(self._deleted, one))

    @guarded
    async def _deleted(self, one: Entry) -> None:
        await in_thread(self.desk.release, one.path)
        await in_thread(shelf.delete, one)
        notice(f"{one.name} is deleted")
        await self._look()

    def _quantise(self, one: Entry, details: Details) -> None:
        sizes = dict(details.types)
        with _dialog(f"Quantise {one.name}") as dialog:
            words(
                "The same model with its matrices in fewer bits. Q8_0 is nearly without loss, Q4_K_M loses a little.",
                "soft small",
            )
            first = "Q4_K_M" if details.type != "Q4_K_M" else "Q8_0"

            def chosen(type: str) -> None:
                if name.value in [f"{one.short}-{other}" for other in sizes]:
                    name.set(f"{one.short}-{type}")
                show(type)

            def show(type: str) -> None:
                room = (
                    ""
                    if sizes[type] < self._free[1]
                    else f" The disk has room for {quantity(self._free[1], 'B')} only."
                )
                said.set_text(f"{quantity(one.bytes, 'B')} becomes {quantity(sizes[type], 'B')}.{room}")

            options = {type: f"{type}, {quantity(bytes, 'B')}" for type, bytes in details.types}
            kind = Field("Type", first, chosen, "select", options)
            name = Field("Name of the new model", f"{one.short}-{first}")
            said = words("", "small", role="status")
            show(first)
            problem = words("", "shelf-problem", role="alert")

            async def begin() -> None:
                await _told(problem, do)

            async def do() -> None:
                wanted, type = shelf.new_name(str(name.value)), str(kind.value)
                if type not in sizes:
                    raise TwofileError(f"there is no type {type}")
                title = f"{one.name} to {type}, as {wanted}"
                await self._begin("quantise", wanted, shelf.quantised(one, type, wanted), title=title)
                dialog.close()

            _ends(dialog, "Quantise", begin)

    def _export(self, one: Entry) -> None:
        with _dialog(f"Export {one.name}") as dialog:
            words("A Hugging Face folder, which transformers and vLLM load.", "soft small")
            folder = Field("Folder", str(self.desk.home / "exports" / one.short))
            types = {"": "as they are, or F32", "F32": "F32", "F16": "F16", "BF16": "BF16"}
            kind = Field("Type of the matrices", "", None, "select", types)
            problem = words("", "shelf-problem", role="alert")

            async def begin() -> None:
                await _told(problem, do)

            async def do() -> None:
                path, argv = shelf.exported(one, str(folder.value), str(kind.value))
                path.parent.mkdir(parents=True, exist_ok=True)
                await self._begin("export", one.short[:90], argv, title=f"{one.name} to {path}")
                dialog.close()

            _ends(dialog, "Export", begin)


class _Row:
    """A job, shown."""

    def __init__(self, one: Standing, act: Callable[[str, Standing], Awaitable[None]]) -> None:
        self.key, self._one = _key(one), one
        self._since: tuple[float, int] | None = None
        job = one.job
        title = str(job.about.get("title", job.name))

        def press(words: str, what: str, classes: str = "") -> None:
            button(words, lambda: act(what, self._one), f"tiny {classes}", aria_label=f"{words} {job.kind} {title}")

        with el("article", "card job", aria_label=f"{_DOES[job.kind]} {title}"):
            with el("div", "row"):
                el("span", "tag " + _STATES[one.state], one.state)
                el("span", "grow title", f"{_DOES[job.kind]} {title}")
                if one.state == "running":
                    press("Stop", "stop")
                else:
                    if one.state != "done":
                        press("Go on" if one.left else "Again", "again")
                    press("Forget", "forget", "quiet")
            self.bar: Element | None = None
            if one.state == "running":
                self.bar = el("progress", max=1, aria_label=f"Progress of {title}")
            self.said = words("", "soft small")
            if one.problem:
                words(one.problem, "shelf-problem")
            with el("details", "small"):
                el("summary", "soft", "Command")
                el("code", "target", job.command)

    def show(self, one: Standing, free: int) -> None:
        """As it stands now."""
        self._one = one
        self.said.set_text(self._words(one, free))
        if self.bar is not None and one.progress is not None:
            value = round(one.progress[0] / one.progress[1], 3)
            if self.bar.props.get("value") != value:
                self.bar.props["value"] = value
                self.bar.update()

    def _words(self, one: Standing, free: int) -> str:
        if one.job.kind != "pull" or one.state in ("done", "failed"):
            return f"{quantity(one.left, 'B')} of it are here." if one.left else ""
        if one.progress is None:
            have = f", {quantity(one.left, 'B')} are here" if one.left else ""
            return f"The hub is asked{have}…" if one.state == "running" else have.removeprefix(", ")
        done, total = one.progress
        text = f"{quantity(done, 'B')} of {quantity(total, 'B')}"
        if one.state != "running":
            return f"{text} are here."
        if done == total:
            return f"{text}; its checksum is taken…"
        if total - done > free:
            return f"{text}. The disk has room for {quantity(free, 'B')} only."
        now = time.monotonic()
        self._since = self._since or (now, done)
        seconds, came = now - self._since[0], done - self._since[1]
        if seconds > 2 and came > 0:
            text += f", {quantity(came / seconds, 'B/s')}, {span((total - done) * seconds / came)} left"
        return text


def _key(one: Standing) -> tuple[Any, ...]:
    """What a row has to be made anew for."""
    return one.job.folder, one.job.begun, one.state, one.problem, bool(one.left) and one.state != "running"


def _form(done: Callable[[], Any]) -> TextElement:
    made = el("form", "stack")
    made.on("submit.prevent", lambda: done(), [])
    return made


def _submit(text: str) -> None:
    el("button", "button primary", text, type="submit")


def _dialog(title: str) -> Dialog:
    """A dialog, open, gone once it is closed."""
    with context.client.content:
        dialog = Dialog(title, lambda: dialog.delete())
    dialog.open()
    return dialog


def _ends(dialog: Dialog, act: str, press: Callable[[], Any]) -> None:
    with el("div", "row end"):
        button("Cancel", dialog.close)
        button(act, press, "primary")


async def _told(problem: TextElement, do: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Do something, and say beside what was filled in why it could not be done."""
    try:
        await do(*args)
    except (TwofileError, OSError, ValueError) as error:
        hint = error.hint if isinstance(error, TwofileError) else ""
        problem.set_text(f"{error}{f': {hint}' if hint else ''}")
    else:
        if not problem.is_deleted:
            problem.set_text("")
