"""Talk to a model: conversations in versions, replies as they come, what the tools do, what is before the model.

The page is a view of the log and of the turn under way: opened again, or after the server was killed, it shows what was
said, and offers to finish a reply that was cut off. Nothing is said because an address was opened, and no model is
loaded for it. What cannot be sent is given back to who wrote it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nicegui import background_tasks, context, ui
from nicegui.element import Element

from twofile.engine.sampler import Sampling
from twofile.errors import KernelError, TwofileError
from twofile.kernel.conversations import Version
from twofile.kernel.label import Label
from twofile.kernel.log import Event
from twofile.kernel.memory import Frame
from twofile.kernel.page import Page, view_of
from twofile.kernel.process import Process
from twofile.serve.label.store import Item
from twofile.serve.pages.attached import said_with
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import framed, guarded, in_thread, notice
from twofile.serve.pages.listing import Listing
from twofile.serve.pages.markup import html_of, plain_of, think_parts
from twofile.serve.pages.messages import Actions, Exchange, LiveReply, exchanges, reply, user
from twofile.serve.pages.parts import Composer, Field, button, el, words
from twofile.serve.pages.settings import Settings, shortcuts
from twofile.serve.pages.turns import Live

__all__ = ["add"]

_PAUSE = 0.05  # seconds between two looks at a turn under way
_SHOWN = 100  # exchanges that are shown at first, the newest
_SPENT = 3.0  # seconds for the markup of a page; what comes after is plain


def add(desk: Desk) -> None:
    """Make the page known."""

    @ui.page("/", title="Chat - twofile")
    async def new(model: str = "") -> None:
        await _Chat(desk).begin(model)

    @ui.page("/chat/{pid}", title="Chat - twofile")
    async def old(pid: int) -> None:
        await _Chat(desk).open(pid)


@dataclass(frozen=True)
class _Found:
    """What is to be shown of a process: its exchanges, versions of its messages, and the markup of its replies."""

    exchanges: list[Exchange]
    versions: Mapping[int, list[Version]]
    html: Mapping[str, list[tuple[bool, str]]]
    last: int  # of all events
    elsewhere: bool = False  # another program speaks with it


class _Chat:
    """One open page."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.pid: int | None = None
        self.settings = Settings(desk)
        self.client = context.client
        self._lock = asyncio.Lock()  # one change of what is shown at a time
        self._starting = False  # a turn is about to begin
        self._most, self._last = _SHOWN, 0  # exchanges, and the newest event, that are shown
        self._live: LiveReply | None = None
        self._partial: Element | None = None  # a reply that was cut off
        self._unfinished: Element | None = None  # what says so
        self._following: asyncio.Task[None] | None = None
        self.client.on_delete(self._leave)
        self.actions = Actions(self._edit, self._again, self._branch, self._pin, self._bad, self._show)
        with framed("/", "chat"):
            self.listing = Listing(desk, lambda: self.pid, lambda: self.settings.path)
            with el("section", "pane", aria_label="Conversation"):
                with el("div", "head"):
                    button("☰", None, "quiet toggle-list", aria_label="Conversations", title="Conversations")
                    self.picker = Field("Model", "", self._model, "select", {})
                    self.picker.classes("picker")
                    el("span", "grow")
                    keys: dict[str, Any] = {"title": "New conversation (Alt+N)", "data_key": "alt+n"}
                    button("New", lambda: ui.navigate.to("/"), "quiet", **keys)
                    button("Settings", self._settings, "quiet", title="Settings (Alt+S)", data_key="alt+s")
                    keys = {"title": "Keyboard shortcuts (Ctrl+/)", "data_key": "ctrl+/"}
                    button("?", shortcuts, "quiet", aria_label="Keyboard shortcuts", **keys)
                self.talk = el("div", "talk", role="log", aria_label="Messages", tabindex="0")
                with el("div", "foot"):
                    self.banner = el("div", "banner", role="status")
                    self.composer = Composer(self._send, self._stop, "Message the model")
                    self.meter = el("div", "meter")

    def _leave(self) -> None:
        if self._following is not None:
            self._following.cancel()

    # What is shown.

    async def begin(self, model: str) -> None:
        """A page for a new conversation."""
        self.settings.choose(model)
        self._pickable()
        self._welcome()
        await self.listing.fill()

    def _welcome(self) -> None:
        self.talk.clear()
        with self.talk, el("div", "welcome"):
            el("h1", text="What would you like to know?" if self.settings.answers else "How does it begin?")
            words(self.settings.about, "soft")
            with el("div", "row suggestions"):
                for text in self.settings.suggestions:
                    button(text, None, "", data_compose=text)

    async def open(self, pid: int) -> None:
        """A page of a process; where there is none, that of a new conversation, which says so."""
        try:
            self.settings.of(pid)
        except KernelError as error:
            notice(f"{error.message}: this is a new conversation", "error")
            return await self.begin("")
        self._pickable()
        return await self._display(pid)

    @guarded
    async def _show(self, pid: int) -> None:
        """Another version of this conversation."""
        self.settings.of(pid)
        self._pickable()
        self.composer.at(f"/chat/{pid}")
        await self._display(pid)

    async def _display(self, pid: int) -> None:
        """Show a process from its beginning."""
        async with self._lock:
            self._leave()
            self.pid, self._last = pid, 0
            self._live = self._partial = self._unfinished = None
            live = self.desk.turns.speaking(pid)
            found = await in_thread(_found, self.desk, pid, live, 0, self._most)
            self.talk.clear()
            self.meter.clear()
            self.banner.clear()
            self.composer.busy(live is not None)
            self._append(found, live)
            if live is not None:
                self._follow(live)
        await self.listing.fill()
        if live is None:
            with self.client.content:
                ui.timer(0.05, self._measure, once=True)  # when somebody looks: not for an address alone

    def _append(self, found: _Found, live: Live | None) -> None:
        """Show what is not yet on the page."""
        assert self.pid is not None
        if self._unfinished is not None:
            self._unfinished.delete()
            self._unfinished = None
        with self.talk:
            if not self._last and len(found.exchanges) > self._most:
                button("Earlier messages", self._earlier, "quiet earlier")
            for exchange in found.exchanges[-self._most :] if not self._last else found.exchanges:
                if exchange.user.seq > self._last:
                    mine = found.versions.get(exchange.user.seq, ())
                    user(exchange.user, exchange.user.body, mine, self.actions)
                    self._last = exchange.user.seq
                going_on = live is not None and exchange is found.exchanges[-1] and not exchange.whole
                if exchange.reply and exchange.reply[-1].seq > self._last and not going_on:
                    if self._partial is not None:
                        self._partial.delete()
                    mine = found.versions.get(exchange.reply[0].seq, ())
                    shown = reply(exchange, mine, self.actions, self.pid, found.html)
                    self._partial = None if exchange.whole else shown
                    self._last = exchange.reply[-1].seq
            if live is not None and live.words and found.last <= live.since:
                user(None, live.words, (), None)
            if live is None and found.exchanges and not found.exchanges[-1].whole:
                self._cut_off(found)

    def _cut_off(self, found: _Found) -> None:
        with el("div", "unfinished") as self._unfinished:
            if found.elsewhere:
                words("Another program is speaking in this conversation.", "soft")
                return
            words("This reply was cut off.", "soft")

            async def finish() -> None:
                if self._partial is not None:
                    self._partial.delete()
                    self._partial, self._last = None, found.exchanges[-1].user.seq
                await self._begin(lambda process: process.go_on)

            button("Finish it", finish, "tiny")

    async def _earlier(self) -> None:
        self._most += _SHOWN
        if self.pid is not None:
            await self._display(self.pid)

    def _follow(self, live: Live) -> None:
        """Show a turn as it goes on, until it is over."""
        with self.talk:
            shown = self._live = LiveReply(live)
        self.composer.busy(True)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        leave = live.listen(lambda: loop.call_soon_threadsafe(changed.set))

        async def follow() -> None:
            seen: tuple[Any, ...] = ()
            try:
                while not live.done.is_set():
                    changed.clear()
                    if (now := (len(live.parts), live.asking)) != seen:
                        with self.client:
                            shown.update()
                            if not seen:
                                await self.listing.fill()  # the log has the user's words by now
                        seen = now
                        continue
                    await changed.wait()
                    await asyncio.sleep(_PAUSE)
                with self.client:
                    await self._over(live, shown)
            finally:
                leave()

        shown.update()
        self._following = background_tasks.create(follow())

    async def _over(self, live: Live, shown: LiveReply) -> None:
        """A turn has ended: what is in the log stands in its place."""
        async with self._lock:
            if self._live is not shown or shown.element.is_deleted:
                return
            found = await in_thread(_found, self.desk, live.process.pid, None, self._last, self._most)
            self._live = None
            for child in list(self.talk.default_slot.children):
                if child is shown.element or "passing" in child.classes:
                    child.delete()
            self._append(found, None)
            self.composer.busy(False)
            if live.error:
                notice(live.error, "error")
                if live.words and found.last <= live.since:
                    self.composer.give_back(str((live.words.get("shown") or live.words)["text"]), [])
        await self.listing.fill()
        await self._measure()

    async def _measure(self, load: bool = False) -> None:
        """Show what is before the model. `load`: also where its engine has to be opened for that."""
        pid = self.pid
        if pid is None or self.meter.is_deleted:
            return None
        if not load and str(self.settings.path) not in self.desk.kernel.opened:
            self.meter.clear()
            with self.meter:
                button("What is before the model?", lambda: self._measure(True), "quiet tiny", title="Loads the model")
            return None
        try:
            process, frame, cards = await in_thread(_frame, self.desk, pid)
        except (TwofileError, ValueError) as error:
            with self.client:
                return notice(str(error), "error")
        if pid != self.pid or self.meter.is_deleted:
            return None
        with self.client:
            self.meter.clear()
            self.banner.clear()
            if frame is None:
                return None
            with self.meter:
                _meter(process, frame, cards, self._unpin)
            if frame.out:
                some = f"{len(frame.out)} earlier page{'s' if len(frame.out) > 1 else ''}"
                told = f"{some} left the window. What fits a question is brought back; pin what must stay."
                with self.banner:
                    el("span", text=told)
        return None

    # What is done.

    def _pickable(self) -> None:
        self.picker.choose_from(self.settings.models, str(self.settings.path))

    async def _change(self) -> None:
        """Have the process go on with the settings. KernelError while it speaks."""
        if self.pid is not None:
            await in_thread(lambda: self.desk.change(self.pid or 0, **self.settings.changes()))

    @guarded
    async def _model(self, path: str) -> None:
        before, self.settings.path = self.settings.path, type(self.settings.path)(path)
        if self.pid is None:
            return self._welcome()
        try:
            await self._change()
        except TwofileError:
            self.settings.path = before
            self._pickable()
            raise
        return await self._measure()

    def _settings(self) -> None:
        self.settings.dialog(self.client.content, self._change)

    async def _send(self, text: str, files: list[dict[str, Any]]) -> None:
        """Say something; where that cannot be, it is given back."""
        self.composer.busy(True)

        @guarded
        async def work() -> bool:
            said, label, shown = await in_thread(said_with, self.desk, text, files)
            return await self._say(said, label, shown)

        with self.client:
            if not await work():
                self.composer.give_back(text, files)
                self.composer.busy(self._live is not None)

    async def _say(self, said: str, label: Label, shown: dict[str, Any], pid: int | None = None) -> bool:
        body: dict[str, Any] = {"text": said} | ({"shown": shown} if shown else {})
        return await self._begin(
            lambda process: lambda approve, how: process.say(said, approve, how, label, shown=shown or None), body, pid
        )

    async def _begin(
        self, how: Callable[[Process], Callable[..., Any]], body: dict[str, Any] | None = None, pid: int | None = None
    ) -> bool:
        """Begin a turn in this conversation's process, in another one, or in a new one; whether that went well."""
        if self._starting or self._live is not None:
            notice("a reply is under way", "error")
            return False
        self._starting = True
        waiting = None
        try:
            sampling = Sampling(**self.settings.sampling)
            if pid is None and self.pid is None:
                with self.talk:
                    waiting = el("p", "soft opening", f"Opening {self.settings.path.stem}…", role="status")
                process = await in_thread(self.settings.spawn)
            else:
                process = await in_thread(self.desk.process, pid or self.pid or 0)
            run = how(process)
            live = await in_thread(self.desk.turns.begin, process, lambda approve: run(approve, sampling), body)
        except (TwofileError, ValueError) as error:
            hint = error.hint if isinstance(error, TwofileError) else ""
            notice(f"{error}{f'. {hint}' if hint and hint not in str(error) else ''}", "error")
            return False
        finally:
            self._starting = False
            if waiting is not None:
                waiting.delete()
        if process.pid != self.pid:
            self.composer.at(f"/chat/{process.pid}")
            await self._display(process.pid)
            return True
        async with self._lock:
            found = await in_thread(_found, self.desk, process.pid, live, self._last, self._most)
            self._append(found, live)
            self._follow(live)
        return True

    def _stop(self) -> None:
        live = None if self.pid is None else self.desk.turns.speaking(self.pid)
        if live is not None:
            live.stop()

    @guarded
    async def _edit(self, event: Event, text: str) -> None:
        shown, label = dict(event.body.get("shown") or {}), Label.from_json(event.body.get("label", {}))
        attached = str(event.body["text"]).removeprefix(str(shown.get("text", ""))).lstrip("\n") if shown else ""
        said = "\n\n".join(part for part in (text.strip(), attached) if part)
        if not said:
            return notice("the message is empty", "error")
        events = await in_thread(self.desk.kernel.log.events, self.pid)
        before = [one.seq for one in events if one.seq < event.seq]
        branch = await self._branched(before[-1])
        if branch is not None:
            await self._say(said, label, {**shown, "text": text} if shown else {}, branch.pid)
        return None

    @guarded
    async def _again(self, event: Event) -> None:
        branch = await self._branched(event.seq)
        if branch is not None:
            await self._begin(lambda process: process.go_on, None, branch.pid)

    @guarded
    async def _branch(self, event: Event) -> None:
        branch = await self._branched(event.seq)
        if branch is not None:
            await self._show(branch.pid)
            notice("A branch: what you say now is said in it alone.")

    async def _branched(self, upto: int) -> Process | None:
        """A branch that goes on with the settings of now; None where another is just being made."""
        if self._starting or self._live is not None or self.pid is None:
            return None
        self._starting = True
        try:
            return await in_thread(self.desk.fork, self.pid, upto, self.settings.changes())
        finally:
            self._starting = False

    @guarded
    async def _pin(self, text: str, event: Event) -> None:
        process = await in_thread(self.desk.process, self.pid)
        await in_thread(process.pin, text, Label.from_json(event.body.get("label", {})))
        notice("Pinned: it stays before the model.")
        await self._measure()

    @guarded
    async def _unpin(self, card: int) -> None:
        process = await in_thread(self.desk.process, self.pid)
        await in_thread(process.unpin, card)
        await self._measure()

    @guarded
    async def _bad(self, event: Event) -> None:
        events = await in_thread(self.desk.kernel.log.events, self.pid)
        messages = view_of([one for one in events if one.seq <= event.seq], len).messages()
        item = Item(tuple(messages[:-1]), (messages[-1]["content"],), source="chat")
        await in_thread(self.desk.labels.add, [item])
        notice("Marked. On the label page (Train, Labels) it can be corrected.")


def _found(desk: Desk, pid: int, live: Live | None, last: int, most: int) -> _Found:
    """Read what is to be shown; markup is made of replies after `last`, of the newest `most` exchanges."""
    events = desk.kernel.log.events(pid)
    before = [one for one in events if live is None or one.seq <= live.since or one.kind == "user"]
    found = exchanges(before)
    html: dict[str, list[tuple[bool, str]]] = {}
    until = time.monotonic() + _SPENT
    for exchange in reversed(found[-most:]):
        for event in exchange.reply:
            if event.kind == "assistant" and event.seq > last:
                text = str(event.body["text"])
                html[text] = [
                    (thinking, html_of(part) if time.monotonic() < until else plain_of(part))
                    for thinking, part in think_parts(text)
                    if part.strip()
                ]
    elsewhere = bool(found) and not found[-1].whole and live is None and desk.kernel.log.busy(pid)
    return _Found(found, desk.conversations.versions(pid), html, before[-1].seq, elsewhere)


def _frame(desk: Desk, pid: int) -> tuple[Process, Frame | None, list[Page]]:
    process = desk.process(pid)
    view = process.look()
    return process, process.memory.frame(view) if view.turns else None, view.cards


def _meter(process: Process, frame: Frame, cards: list[Page], unpin: Callable[[int], Any]) -> None:
    """How full the window is, and with what."""
    window, used = process.memory.window, len(frame.ids)
    with el("details", "window"):
        with el("summary"):
            share = min(100, round(100 * used / window))
            el("progress", value=str(used), max=str(window), aria_label="Tokens before the model")
            pinned = f", {len(cards)} pinned" if cards else ""
            state = f"pages: {len(frame.resident)} in, {len(frame.out)} out{pinned}"
            el("span", "small soft", f"{used:,} of {window:,} tokens ({share}%) · {state}")
        with el("ul", "segments small"):
            for one in frame.segments:
                el("li", text=f"{one.kind}{f' {one.name}' if one.name else ''}: {one.size:,} tokens")
        for card in cards:
            with el("div", "row small"):
                el("span", "grow", card.text.strip()[:200])
                button("Unpin", lambda card=card: unpin(card.seq), "quiet tiny")
