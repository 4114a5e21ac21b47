"""The processes of the kernel: how each stands, what it called, was asked and granted, its pages, its events.

The page is a view of the log, and goes on showing what comes. Looking at an address changes nothing and opens no model.
Cost: a look a second, which reads what was written since.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from twofile.errors import KernelError, TwofileError
from twofile.html.figures import short_span
from twofile.kernel.capability import Grant
from twofile.kernel.log import Event
from twofile.kernel.looking import Glance, Looker, Mapped, kill, mapped, replayed, revoke, rules, traced
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import confirm, framed, guarded, in_thread, notice, watch
from twofile.serve.pages.parts import Markup, button, el, link, table, words

__all__ = ["add"]

_MOST = 200  # processes that are listed
_LINES = 500  # calls or events that are shown of what was before
_CHARACTERS = 4_000  # of an event, or of a call
_PATIENCE = 10.0  # seconds that a turn has to end before its process is killed
_STATES = {"speaking": "good", "interrupted": "warn", "killed": "bad", "ended": "bad"}
_DECISIONS = {"allow": "good", "deny": "bad", "ask": "warn"}
_PAGES = {"in": "good", "pinned": "good", "stub": "warn", "summary": "warn"}
_HEAD = ("Process", "From", "Model", "State", "Events", "Written", "Last active", "Last words")
_OVER = ("killed", "ended")


def add(desk: Desk) -> None:
    """Make the page known."""
    looker = Looker(desk.kernel.log)

    @ui.page("/processes", title="Processes - twofile")
    def page(pid: str = "") -> None:
        if pid.isdecimal() and len(pid) < 16:
            _One(desk, looker, int(pid))
        else:
            _All(desk, looker)


class _All:
    """One open page of all processes."""

    def __init__(self, desk: Desk, looker: Looker) -> None:
        self.desk, self.looker = desk, looker
        self._rows: dict[int, _Row] = {}
        self._order: list[int] = []
        with framed("/processes", "plain processes"):
            with el("div", "row top"):
                el("h1", "grow", "Processes")
                self.count = words("", "soft small")
            with (
                el("div", "table all", tabindex="0", role="region", aria_label="Processes") as self.table,
                el("table"),
            ):
                with el("thead"), el("tr"):
                    for name in _HEAD:
                        el("th", name.lower().replace(" ", "-"), name, scope="col")
                self.body = el("tbody")
            self.none = words("", "empty")
            self.granted = _Granted(desk)
        watch(1.0, self._look)

    async def _look(self) -> None:
        found = await in_thread(self.looker.look, _MOST)
        found.sort(key=lambda one: (one.at, one.pid), reverse=True)
        order = [one.pid for one in found]
        for pid in self._rows.keys() - set(order):
            self._rows.pop(pid).row.delete()
        self._order = [pid for pid in self._order if pid in self._rows]
        for place, one in enumerate(found):
            if one.pid not in self._rows:
                with self.body:
                    self._rows[one.pid] = _Row(one)
                self._order.append(one.pid)
            self._rows[one.pid].show(one)
            if self._order[place] != one.pid:
                self._order.remove(one.pid)
                self._order.insert(place, one.pid)
                self._rows[one.pid].row.move(target_index=place)
        speaking = sum(one.state == "speaking" for one in found)
        _put(self.count, f"{len(found)} {'newest' if len(found) == _MOST else 'in all'}, {speaking} speaking")
        _put(self.none, "" if found else "No process yet: a chat begins one.")
        self.table.set_visibility(bool(found))
        await self.granted.look()


class _Row:
    """A process in the table."""

    def __init__(self, one: Glance) -> None:
        self._shown: Glance | None = None
        with el("tr") as self.row:
            with el("td"):
                link(str(one.pid), f"/processes?pid={one.pid}", "open", aria_label=f"Process {one.pid}")
            self.cells = [el("td", name.lower().replace(" ", "-")) for name in _HEAD[1:3]]
            with el("td"):
                self.state = el("span", "tag")
            self.cells += [el("td", name.lower().replace(" ", "-")) for name in _HEAD[4:]]

    def show(self, one: Glance) -> None:
        """As it stands now."""
        _tag(self.state, one.state, _STATES)
        given = (str(one.parent or ""), one.model, f"{one.events:,}", f"{one.written:,}", _since(one.at), one.said)
        for cell, text in zip(self.cells, given, strict=True):
            _put(cell, text)


class _One:
    """One open page of one process."""

    def __init__(self, desk: Desk, looker: Looker, pid: int) -> None:
        self.desk, self.looker, self.pid = desk, looker, pid
        self._last, self._pages, self._replays, self._events = 0, False, False, list[Event]()
        self._calls = 0
        with framed("/processes", "plain processes"):
            link("← All processes", "/processes", "small")
            with el("div", "row top"):
                el("h1", "", f"Process {pid}")
                self.state = el("span", "tag", role="status")
                el("span", "grow")
                self.acts = el("div", "row")
            self.facts = el("dl", "facts small")
            with el("section", "card stack", aria_label="Calls"):
                with el("div", "row"):
                    el("h2", "grow", "Calls")
                    self.count = el("span", "soft small")
                self.calls = el("div", "lines trace", tabindex="0", role="log", aria_label="Calls, as they are made")
                self.no_calls = words("Nothing was called.", "soft small")
            with el("section", "card stack", aria_label="Pages"):
                el("h2", text="Pages")
                words("What was said, in pieces that are before the model or out of its window.", "soft small")
                self.pages = el("div", "stack")
                with self.pages, el("div", "row"):
                    button("Show the pages", self._show_pages)
            self.granted = _Granted(desk, pid)
            with el("section", "card stack", aria_label="Events"):
                el("h2", text="Events")
                self.replay = el("div", "lines")
                with el("div", "row") as self.open_replay:
                    button("Show all events", self._show_replay)
        self._facts: Any = None
        self._over: bool | None = None
        watch(1.0, self._look)

    async def _look(self) -> None:
        try:
            one, events, begun = await in_thread(self._seen)
        except KernelError as error:
            _put(self.state, error.message)
            self.facts.clear()
            self.acts.clear()
            return
        _tag(self.state, one.state, _STATES)
        self._show_facts(one, begun)
        self._show_acts(one)
        if events:
            self._last = events[-1].seq
            self._events += events
            self._show_calls(events)
            if self._replays:
                self._append(self.replay, [_event(event) for event in events])
        if self._pages and events and one.state != "speaking":
            await self._show_pages()
        await self.granted.look()

    def _seen(self) -> tuple[Glance, list[Event], dict[str, Any]]:
        one = self.looker.one(self.pid)
        events = self.desk.kernel.log.events(self.pid, after=self._last)
        return one, events, dict(self.desk.kernel.beginning(self.pid)) if events else {}

    def _show_facts(self, one: Glance, begun: dict[str, Any]) -> None:
        if begun:
            self._begun = begun
        known = self._begun
        shown = (one.parent, one.events, one.written, _since(one.at), known)
        if shown == self._facts:
            return
        self._facts = shown
        self.facts.clear()
        with self.facts:
            facts = {
                "Model": str(known.get("model", "?")).rpartition("/")[2],
                "Adapter": str(known.get("adapter") or "").rpartition("/")[2],
                "Tools": ", ".join(map(str, known.get("tools", ()))) or "none",
                "Can be granted": ", ".join(map(str, known.get("limit", ()))) or "nothing",
                "Events": f"{one.events:,} of its own",
                "Written": f"{one.written:,} tokens",
                "Last active": _since(one.at),
            }
            for name, value in facts.items():
                if value:
                    el("dt", "soft", name)
                    el("dd", "", value)
            if one.parent:
                el("dt", "soft", "Comes from")
                with el("dd"):
                    link(f"process {one.parent}", f"/processes?pid={one.parent}")

    def _show_acts(self, one: Glance) -> None:
        over = one.state in _OVER
        if over == self._over:
            return
        self._over = over
        self.acts.clear()
        with self.acts:
            link("Open in chat", f"/chat/{self.pid}", "button primary")
            link("Look inside", f"/inside?process={self.pid}", "button")
            button("Fork", self._fork)
            if not over:
                button("Kill…", self._kill, "danger")

    def _show_calls(self, events: Sequence[Event]) -> None:
        made = [one for event in events if event.pid == self.pid for one in traced(event)]
        self._calls += sum(one.kind == "call" for one in made)
        _put(self.count, f"{self._calls:,} made" if self._calls else "")
        self.no_calls.set_visibility(not self._calls)
        self.calls.set_visibility(bool(self._calls))
        lines = []
        for one in made:
            sign = {"call": "→", "result": "=", "asked": "?"}[one.kind]
            classes = f"line {one.kind}{'' if one.good else ' bad'}"
            text = escape(one.text if len(one.text) < _CHARACTERS else f"{one.text[:_CHARACTERS]}…")
            lines.append(f'<div class="{classes}"><time>{_clock(one.at)}</time><b>{sign}</b><code>{text}</code></div>')
        self._append(self.calls, lines)

    def _append(self, place: TextElement, lines: list[str]) -> None:
        if not lines:
            return
        with place:
            if len(lines) > _LINES:
                words(f"{len(lines) - _LINES:,} earlier ones are left out.", "soft small")
            Markup("".join(lines[-_LINES:]))

    @guarded
    async def _show_replay(self) -> None:
        self._replays = True
        self.open_replay.delete()
        self._append(self.replay, [_event(event) for event in self._events])

    @guarded
    async def _show_pages(self) -> None:
        if not self._pages:
            self.pages.clear()
            with self.pages:
                words("The model is opened, to count its tokens…", "soft small", role="status")
        problem, found = "", list[Mapped]()
        try:
            found = await in_thread(self._mapped)
        except (TwofileError, OSError) as error:
            problem = str(error)
        self._pages = not problem
        self.pages.clear()
        with self.pages:
            if problem:
                words(problem, "warning")
                with el("div", "row"):
                    button("Show the pages", self._show_pages)
                return
            inside = sum(page.size for page in found if page.state in ("in", "pinned"))
            total = sum(page.size for page in found)
            words(f"{len(found):,} pages of {total:,} tokens; {inside:,} tokens are before the model.", "small")
            head = ("Page", "Role", "Tokens", "State", "Brought back", "From", "Begins")
            table(head, [self._page(page) for page in found[-_LINES:]], "Pages")

    def _mapped(self) -> list[Mapped]:
        if self.desk.turns.speaking(self.pid):
            raise TwofileError("The process is speaking; its pages are shown when it is done")
        return mapped(self.desk.process(self.pid))

    @staticmethod
    def _page(page: Mapped) -> list[str | Callable[[], Any]]:
        used = "" if page.used is None else _since(page.used)
        state = partial(el, "span", f"tag {_PAGES.get(page.state, '')}", page.state)
        return [page.name, page.role, f"{page.size:,}", state, used, page.sources, page.begins]

    @guarded
    async def _fork(self) -> None:
        event = await in_thread(self.desk.kernel.log.fork, self.pid)
        ui.navigate.to(f"/processes?pid={event.pid}")

    def _kill(self) -> None:
        confirm(f"Kill process {self.pid}? Nothing more is said in it; it can be forked.", "Kill", self._killed)

    @guarded
    async def _killed(self) -> None:
        await in_thread(self._end)
        await self._look()

    def _end(self) -> None:
        if (live := self.desk.turns.speaking(self.pid)) is not None:
            live.stop()
            live.wait(_PATIENCE)
        kill(self.desk.kernel.log, self.pid)


class _Granted:
    """The rules that hold, of all processes or of one and everybody's, each with a button that revokes it."""

    def __init__(self, desk: Desk, pid: int | None = None) -> None:
        self.desk, self.pid = desk, pid
        self._shown: list[Grant] | None = None
        with el("section", "card stack", aria_label="What is granted"):
            el("h2", text="What is granted")
            words("What was allowed or denied for longer than once. Without a rule a process asks.", "soft small")
            self.list = el("ul", "grants")

    async def look(self) -> None:
        """Show the rules as they are now."""
        found = [
            rule
            for rule in await in_thread(rules, self.desk.kernel.log)
            if self.pid is None or rule.process in (0, self.pid)
        ]
        if found == self._shown:
            return
        self._shown = found
        self.list.clear()
        with self.list:
            for rule in found:
                with el("li", "row"):
                    el("span", f"tag {_DECISIONS.get(rule.decision, '')}", rule.decision)
                    el("code", "grow mono pattern", rule.pattern)
                    whose = "every process" if not rule.process else f"process {rule.process}"
                    how = {"always": "always, for ", "process": "for ", "once": "once, for "}[rule.lifetime]
                    el("span", "soft small", f"{how}{whose}")
                    label = f"Revoke {rule.decision} {rule.pattern} for {whose}"
                    button("Revoke", partial(self._revoke, rule), "tiny danger", aria_label=label)
            if not found:
                el("li", "soft small", "Nothing.")

    @guarded
    async def _revoke(self, rule: Grant) -> None:
        done = await in_thread(revoke, self.desk.kernel.log, rule)
        notice(f"{rule.pattern} is revoked" if done else f"{rule.pattern} was revoked before")
        await self.look()


def _event(event: Event) -> str:
    """An event as a line that opens. Safe."""
    body = dict(event.body)
    if isinstance(tokens := body.get("tokens"), list):
        body["tokens"] = f"{len(tokens)} of them"
    whole = json.dumps(body, ensure_ascii=False, indent=1)
    cut = f"{whole[:_CHARACTERS]}\n…" if len(whole) > _CHARACTERS else whole
    said = " ".join(replayed(event).split())[:160]
    return (
        f'<details class="event"><summary><span class="seq">{event.seq}</span> <time>{_clock(event.at)}</time> '
        f'<span class="tag">{escape(event.kind)}</span> <span class="words">{escape(said)}</span></summary>'
        f"<pre>{escape(cut)}</pre></details>"
    )


def _clock(at: float) -> str:
    there = time.localtime(at)
    today = there[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", there)


def _since(at: float) -> str:
    """How long ago, in whole units: what changes seldom is sent seldom."""
    seconds = int(max(0.0, time.time() - at))
    if seconds < 2:
        return "now"
    if seconds < 60:
        return f"{seconds // 5 * 5 or seconds} s ago"
    unit, name = next((unit, name) for unit, name in ((86400, "d"), (3600, "h"), (60, "min")) if seconds >= unit)
    return f"{short_span(float(seconds // unit * unit)) if unit < 86400 else f'{seconds // unit} {name}'} ago"


def _put(place: TextElement, text: str) -> None:
    """Show a text, where it is another one."""
    if place.text != text:
        place.set_text(text)


def _tag(place: TextElement, state: str, kinds: dict[str, str]) -> None:
    if place.text != state:
        place.set_text(state)
        place.classes(replace=f"tag {kinds.get(state, '')}".strip())
