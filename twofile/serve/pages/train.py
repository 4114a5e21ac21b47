"""Train: a model from texts, then tuned on conversations, taught what people prefer, compared in an arena.

Everything that takes long is a job (`jobs`), so the page can be closed and the server started again; the page shows how
the jobs stand. `?stage=` shows a form, `?job=` a job: neither begins anything. What a model says is shown as text.
Cost: a look at the folders of the jobs every two seconds while the page is open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import app, ui
from nicegui.element import Element
from starlette.responses import HTMLResponse, Response

from twofile.errors import TwofileError
from twofile.html.figures import quantity, span
from twofile.serve.pages import training
from twofile.serve.pages.desk import Desk, Model
from twofile.serve.pages.frame import framed, guarded, in_thread, watch
from twofile.serve.pages.jobs import Job, State
from twofile.serve.pages.parts import Markup, button, el, link, table, words
from twofile.serve.pages.train_forms import FORMS, Pretrain, address, copied
from twofile.serve.pages.training import Reader, Standing

__all__ = ["add"]

_LOOP = (
    ("", "Texts", "files or folders of plain text"),
    ("/train", "Pretrain", "from texts, a model from nothing"),
    ("", "Conversations", "JSON lines of messages"),
    ("/train?stage=tune", "Tune", "a model and conversations: it learns to answer"),
    ("/label/", "Labels", "people choose the better of two replies"),
    ("/train?stage=prefer", "Prefer", "a model and pairs: it learns what is liked"),
    ("/train?stage=arena", "Arena", "two models or more: which is better"),
)
_TAGS: dict[State, str] = {"running": "warn", "done": "good", "failed": "bad", "stopped": ""}
_DOES = {"train": "pretraining", "tune": "tuning", "prefer": "preferences", "arena": "arena"}
_AXES = ("tokens", "time")
_TILES = ("left", "step", "loss", "bits per byte, held out", "tokens a second", "tokens seen")


def add(desk: Desk) -> None:
    """Make the page known, and the reports of runs at /train/report/NAME."""

    @ui.page("/train", title="Train - twofile")
    async def page(stage: str = "", job: str = "", kind: str = "train") -> None:
        models = [] if job or stage not in FORMS else await in_thread(desk.models)
        found = await in_thread(_any, desk, kind, job) if job else None
        with framed("/train", "plain train"):
            if found is not None:
                _Detail(desk, found)
            else:
                _front(desk, stage, models, job)

    @app.get("/train/report/{name}", response_model=None)
    def report(name: str) -> Response:
        from twofile.train.history import read
        from twofile.train.report.report import report

        try:
            html = report([read(desk.home / "runs" / training.checked_name(name))])
        except TwofileError:
            return Response("there is no such run", 404)
        return HTMLResponse(html)


def _any(desk: Desk, kind: str, name: str) -> Job | None:
    """The job of this kind and name, else one of the name."""
    return desk.jobs.get(kind, name) or next((job for job in desk.jobs.all() if job.name == name), None)


def _front(desk: Desk, stage: str, models: list[Model], lost: str) -> None:
    with el("div", "stack"):
        el("h1", text="Train")
        words("Make a model from texts of your own, on this machine, and make it better.", "soft")
        if lost:
            words(f"There is no job {lost}.", "card", role="alert")
        _loop(f"/train?stage={stage}" if stage in FORMS else "/train")
        if not training.can_train() and stage != "arena":
            _missing()
        with el("section", "card", aria_labelledby="form"):
            if stage in FORMS:
                FORMS[stage](desk, models)
            else:
                Pretrain(desk)
        el("h2", text="Jobs", id_="jobs")
        _List(desk)


def _loop(here: str) -> None:
    with el("ol", "loop", aria_label="From texts to a better model"):
        for address, name, needs in _LOOP:
            with el("li"):
                current = "step" if address == here else None
                where: dict[str, Any] = {"href": address, "aria_current": current} if address else {}
                with el("a" if address else "div", "step", **where):
                    el("strong", text=name)
                    el("span", "small", needs)


def _missing() -> None:
    with el("div", "card missing", role="note"):
        el("span", "grow", "Training needs PyTorch, which is not installed here. In a terminal:")
        copied(training.NEEDS)


def _acts(desk: Desk, job: Job, state: State, after: Callable[[], Any], *, forget: bool = True) -> None:
    """The buttons of a job: what can be done with it in its state."""

    @guarded
    async def stop() -> None:
        await in_thread(job.stop)
        await after()

    @guarded
    async def resume() -> None:
        await in_thread(training.resume, desk.jobs, job)
        await after()

    @guarded
    async def remove() -> None:
        await in_thread(desk.jobs.forget, job)
        await after()

    if state == "running":
        button("Stop", stop, "tiny", aria_label=f"Stop {job.name}")
    if state in ("stopped", "failed"):
        button("Resume", resume, "tiny", aria_label=f"Resume {job.name}")
    if job.kind == "arena" and state == "done":
        button("Count the labels again", resume, "tiny")
    if forget and state != "running":
        title = "The model and its run stay"
        button("Forget", remove, "quiet tiny", aria_label=f"Forget {job.name}", title=title)


class _List:
    """All jobs, those of earlier servers too."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._rows = el("div", "stack jobs")
        self._seen: list[tuple[Any, ...]] | None = None
        self._times: list[Element] = []
        watch(2.0, self.look)

    def _gather(self) -> list[tuple[Job, State, float | None, str]]:
        return [(job, job.state, job.ended, job.problem) for job in self.desk.jobs.all()]

    async def look(self) -> None:
        found = await in_thread(self._gather)
        seen = [(job.folder, job.begun, state, problem) for job, state, _, problem in found]
        if seen != self._seen:
            self._seen = seen
            self._rows.clear()
            self._times = []
            with self._rows:
                if not found:
                    words("Nothing has been begun yet.", "empty")
                for job, state, _, problem in found:
                    self._row(job, state, problem)
        for shown, (job, _, ended, _) in zip(self._times, found, strict=True):
            shown.set_text(training.elapsed(job, ended))  # type: ignore[attr-defined]

    def _row(self, job: Job, state: State, problem: str) -> None:
        with el("article", "card job"):
            with el("div", "row"):
                link(job.name, address(job), "title")
                el("span", f"tag {_TAGS[state]}", state)
                el("span", "soft small", _DOES.get(job.kind, job.kind))
                self._times.append(el("span", "soft small grow"))
                _acts(self.desk, job, state, self.look)
            if problem:
                words(problem, "problem small")
            with el("details", "small"):
                el("summary", "soft", "Command")
                copied(job.command, f"Copy the command of {job.name}")


@dataclass(frozen=True)
class _Seen:
    """A job at a moment."""

    job: Job
    state: State
    ended: float | None
    problem: str
    says: str
    standing: Standing | None
    made: bool  # the model is there


class _Detail:
    """One job: how far it is, its curves, what the model says by now; of an arena the table."""

    def __init__(self, desk: Desk, job: Job) -> None:
        self.desk, self.job = desk, job
        self.arena = job.kind == "arena"
        self._reader = Reader(desk.home / "runs" / job.name)
        self._shown: tuple[Any, ...] | None = None
        self._samples: tuple[tuple[int, str], ...] | None = None
        self._drawn = ""
        with el("div", "stack"):
            link("← Train", "/train", "small back")
            with el("div", "row head"):
                el("h1", text=job.name)
                self._tag = el("span", "tag")
                self._about = el("span", "soft small grow")
                self._buttons = el("div", "row")
            self._more = el("div", "stack")
            self._bar = el("progress", max="1", aria_label=f"How far {job.name} is")
            self._says = words("", "soft small mono says")
            if self.arena:
                self._table = el("div", "stack")
            else:
                self._figures()
            with el("details", "card small"):
                el("summary", text="Command")
                copied(job.command)
        watch(2.0, self.look)

    def _figures(self) -> None:
        with el("div", "tiles", role="group", aria_label="Figures") as self._group:
            self._tiles: dict[str, Any] = {}
            self._words: dict[str, Any] = {}
            for name in _TILES:
                with el("div", "tile"):
                    self._tiles[name] = el("b", text="–")
                    self._words[name] = el("span", text=name)
        self._group.set_visibility(False)
        with el("section", "curves", aria_label="Curves") as self._curves:
            with el("div", "row", role="group", aria_label="Against"):
                el("span", "soft small", "against")
                choices = {
                    name: button(name, None, "tiny", aria_pressed=str(name == "tokens").lower()) for name in _AXES
                }
            for name, made in choices.items():
                made.on("click", partial(self._against, name, choices), [])
            self._plots = Markup("", "plots")
        self._curves.set_visibility(False)
        with el("section", "stack", aria_labelledby="samples") as self._dreams:
            el("h2", text="What it says by now", id_="samples")
            self._list = el("ol", "samples", reversed=True)
        self._dreams.set_visibility(False)

    def _against(self, name: str, choices: dict[str, Any]) -> None:
        for one, made in choices.items():
            made.props["aria-pressed"] = str(one == name).lower()
            made.update()
        self._curves.classes(add="by-time") if name == "time" else self._curves.classes(remove="by-time")

    def _gather(self) -> _Seen | None:
        job = self.desk.jobs.get(self.job.kind, self.job.name)
        if job is None:
            return None
        state = job.state
        standing = None if self.arena else self._reader.look(state == "running")
        made = not self.arena and training.in_the_way(self.desk.home, job.name, runs=False) == "model"
        return _Seen(job, state, job.ended, job.problem, training.says(job), standing, made)

    async def look(self) -> None:
        """Show how it stands."""
        seen = await in_thread(self._gather)
        if seen is None:
            return ui.navigate.to("/train")
        self.job = seen.job
        texts = ", ".join(map(str, seen.job.about.get("texts") or seen.job.about.get("models") or ()))
        of = f"{_DOES.get(seen.job.kind, seen.job.kind)}{f', {texts}' if texts else ''}"
        self._about.set_text(f"{of} · {training.elapsed(seen.job, seen.ended)}")
        shown = (seen.job.begun, seen.state, seen.problem, seen.made)
        if shown != self._shown:
            self._shown = shown
            self._changed(seen)
        running = seen.state == "running"
        waits = running and (seen.standing is None or seen.standing.finished)
        self._says.set_text((seen.says or "beginning …") if waits else "")
        self._bar.set_visibility(seen.state != "done" and (running or seen.standing is not None))
        share = seen.standing.share if seen.standing is not None else None
        if self._bar.props.get("value") != share:
            self._bar.props["value"] = share
            self._bar.update()
        if seen.standing is not None:
            self._draw(seen.standing, running)
        return None

    def _changed(self, seen: _Seen) -> None:
        job, state = seen.job, seen.state
        self._tag.set_text(state)
        self._tag.classes(replace=f"tag {_TAGS[state]}")
        self._buttons.clear()
        with self._buttons:
            if not self.arena and (self.desk.home / "runs" / job.name / "log.jsonl").exists():
                address = f"/train/report/{quote(job.name)}"
                el("a", "button tiny", "The full report", href=address, target="_blank")
            _acts(self.desk, job, state, self.look)
        self._more.clear()
        with self._more:
            if seen.problem:
                words(seen.problem, "card problem", role="alert")
            if seen.made and state != "running":
                with el("div", "card done"):
                    said = "The model is there." if state == "done" else "It can be spoken with as far as it has come."
                    el("span", "grow", said)
                    link("Chat with it", f"/?model={quote(job.name)}", "button primary")
                    link("Look inside", "/inside", "button")
        if self.arena:
            self._rated(job, state)

    def _rated(self, job: Job, state: State) -> None:
        found, open_ = training.ratings(job), training.waiting(job)
        self._table.clear()
        with self._table:
            if open_:
                with el("div", "card done"):
                    el("span", "grow", f"{open_:,} comparisons wait for people.")
                    link("Judge them", "/label/", "button primary")
            if found:
                head = ("model", "rating", "95%", "wins", "of")
                rows = [
                    (
                        one.name,
                        f"{one.rating:.0f}",
                        f"{one.low:.0f} to {one.high:.0f}",
                        f"{one.wins:g}",
                        str(one.comparisons),
                    )
                    for one in found
                ]
                table(head, rows, "Ratings")
            elif state == "done":
                words("Nobody has judged yet. Judge some, then count the labels again.", "soft")

    def _draw(self, standing: Standing, running: bool) -> None:
        self._group.set_visibility(True)
        self._words["left"].set_text("left" if running else "trained")
        left = span(standing.seconds) if not running else "–" if standing.left is None else span(standing.left)
        bits, loss, speed = standing.bits, standing.loss, standing.speed
        values = (
            left,
            f"{standing.step:,}",
            "–" if loss is None else f"{loss:.3f}",
            "–" if bits is None else f"{bits:.3f}",
            "–" if speed is None else f"{speed:,.0f}",
            quantity(standing.tokens),
        )
        for name, value in zip(_TILES, values, strict=True):
            self._tiles[name].set_text(value)
        if standing.curves != self._drawn:
            self._drawn = standing.curves
            self._plots.show(standing.curves)
            self._curves.set_visibility(True)
        if standing.samples != self._samples:
            self._samples = standing.samples
            self._dreams.set_visibility(bool(standing.samples))
            self._list.clear()
            with self._list:
                for step, text in standing.samples:
                    with el("li", "card"):
                        el("span", "soft small", f"step {step:,}")
                        el("p", "said", training.plain(text) or "(nothing)")
