"""Talk to a model: conversations in versions, replies as they come, what the tools do, what is before the model.

The page is a view of the log and of the turn under way: opened again, or after the server was killed, it shows what was
said, and offers to finish a reply that was cut off. Nothing is said because an address was opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicegui import background_tasks, context, ui
from nicegui.element import Element

from twofile.engine.sampler import Sampling
from twofile.errors import KernelError, TwofileError
from twofile.kernel.label import Label
from twofile.kernel.log import Event
from twofile.kernel.memory import Frame
from twofile.kernel.process import Process
from twofile.serve.pages.attached import said_with
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import ago, confirm, framed, guarded, in_thread, notice
from twofile.serve.pages.messages import Actions, LiveReply, exchanges, reply, user
from twofile.serve.pages.parts import Composer, Dialog, Field, File, button, el, link, words
from twofile.serve.pages.settings import Settings, shortcuts
from twofile.serve.pages.turns import Live

__all__ = ["add"]

_PAUSE = 0.05  # seconds between two looks at a turn under way


def add(desk: Desk) -> None:
    """Make the page known."""

    @ui.page("/", title="Chat - twofile")
    async def new(model: str = "") -> None:
        await _Chat(desk).begin(model)

    @ui.page("/chat/{pid}", title="Chat - twofile")
    async def old(pid: int) -> None:
        await _Chat(desk).open(pid)


class _Chat:
    """One open page."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.pid: int | None = None
        self.settings = Settings(desk)
        self._last = 0  # the newest event that is shown
        self._live: LiveReply | None = None
        self._partial: Element | None = None  # a reply that was cut off
        self._following: asyncio.Task[None] | None = None
        self._words = ""
        self.client = context.client
        self.actions = Actions(self._edit, self._again, self._branch, self._pin, self._bad, self._show)
        with framed("/", "chat"):
            self._list()
            with el("section", "pane", aria_label="Conversation"):
                with el("div", "head"):
                    button("☰", None, "quiet toggle-list", aria_label="Conversations", title="Conversations")
                    self.picker = Field("Model", "", self._model, "select", {})
                    self.picker.classes("picker")
                    el("span", "grow")
                    button(
                        "New", lambda: ui.navigate.to("/"), "quiet", title="New conversation (Alt+N)", data_key="alt+n"
                    )
                    button("Settings", self._settings, "quiet", title="Settings (Alt+S)", data_key="alt+s")
                    keys = {"title": "Keyboard shortcuts (Ctrl+/)", "data_key": "ctrl+/"}
                    button("?", shortcuts, "quiet", aria_label="Keyboard shortcuts", **keys)
                self.talk = el("div", "talk", role="log", aria_label="Messages", tabindex="0")
                with el("div", "foot"):
                    self.banner = el("div", "banner", role="status")
                    self.composer = Composer(self._send, self._stop, "Message the model")
                    self.meter = el("div", "meter")

    # The list of conversations.

    def _list(self) -> None:
        with el("aside", "list", aria_label="Conversations"):
            with el("div", "row"):
                keys: dict[str, Any] = {"data_key": "ctrl+k", "placeholder": "Search (Ctrl+K)"}
                Field("Search", "", self._search, "search", at_once=True, **keys)
            self.items = el("ul", "items")
            with el("div", "import"):
                File("Import a conversation", self._import, ".json")
        self._fill()

    def _search(self, given: str) -> None:
        self._words = given.strip()
        self._fill()

    def _fill(self) -> None:
        """Show the conversations as they are now."""
        self.items.clear()
        own = set(self.desk.conversations.family(self.pid)) if self.pid is not None else set()
        found = self.desk.conversations.all(self._words)
        with self.items:
            for one in found[:200]:
                here = one.root in own
                with el("li", "item here" if here else "item"):
                    title = one.title or "Nothing said yet"
                    with link("", f"/chat/{one.last}", aria_current="page" if here else None):
                        el("span", "title", title)
                        el("span", "small soft", ago(one.at))
                    with el("details", "menu"):
                        el("summary", text="⋯", aria_label=f"What to do with {title}")
                        with el("div", "choices"):
                            button("Rename", lambda one=one, title=title: self._rename(one.root, title), "quiet tiny")
                            link("Export as JSON", f"/export/{one.last}.json", "button quiet tiny", download=True)
                            link("Export as text", f"/export/{one.last}.md", "button quiet tiny", download=True)
                            act = lambda one=one, title=title: self._delete(one.root, title)  # noqa: E731
                            button("Delete", act, "quiet tiny danger")
            if not found:
                el("li", "empty small", "Nothing has these words." if self._words else "What you say is kept here.")

    def _rename(self, root: int, title: str) -> None:
        with self.client.content:
            dialog = Dialog("Rename the conversation", lambda: dialog.delete())
        with dialog:
            field = Field("Name", title, at_once=True, autofocus=True, maxlength="80")

            def rename() -> None:
                self.desk.conversations.rename(root, field.value)
                dialog.close()
                self._fill()

            with el("div", "row end"):
                button("Rename", rename, "primary")
        dialog.open()

    def _delete(self, root: int, title: str) -> None:
        @guarded
        async def delete() -> None:
            gone = self.desk.conversations.family(root)
            await in_thread(self.desk.forget, root)
            if self.pid in gone:
                ui.navigate.to("/")
            else:
                self._fill()

        confirm(f"Delete “{title}” with all of its versions?", "Delete", delete)

    async def _import(self, sent: dict[str, Any]) -> None:
        @guarded
        async def work() -> None:
            import json

            text = (self.desk.home / "uploads" / Path(sent["id"]).name).read_text("utf-8", errors="replace")
            try:
                given = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise KernelError(f"{sent['name']} is no JSON", "a conversation that was exported as JSON") from error
            pid = await in_thread(self.desk.conversations.imported, given, str(self.settings.path))
            ui.navigate.to(f"/chat/{pid}")

        await work()

    # What is shown.

    async def begin(self, model: str) -> None:
        """A page for a new conversation."""
        self.settings.choose(model)
        self._pickable()
        with self.talk:
            self.welcome = el("div", "welcome")
        self._welcome()

    def _welcome(self) -> None:
        self.welcome.clear()
        with self.welcome:
            el("h1", text="What would you like to know?" if self.settings.answers else "How does it begin?")
            words(self.settings.about, "soft")
            with el("div", "row suggestions"):
                for text in self.settings.suggestions:
                    button(text, None, "", data_compose=text)

    async def open(self, pid: int) -> None:
        """A page of a process."""
        try:
            self.settings.of(pid)
        except KernelError as error:
            with self.talk:
                words(f"{error.message}.", "empty")
            return self._pickable()
        self._pickable()
        await self._display(pid)
        return None

    async def _show(self, pid: int) -> None:
        """Another version of this conversation."""
        self.settings.of(pid)
        self.composer.at(f"/chat/{pid}")
        await self._display(pid)

    async def _display(self, pid: int) -> None:
        self.pid, self._last, self._live, self._partial = pid, 0, None, None
        self.talk.clear()
        live = self.desk.turns.speaking(pid)
        self._append(live)
        self._fill()
        if live is not None:
            self._follow(live)
        else:
            background_tasks.create(self._measure())

    def _append(self, live: Live | None) -> None:
        """Show what is in the log and not yet on the page; while a turn is under way, up to that."""
        assert self.pid is not None
        events = self.desk.kernel.log.events(self.pid)
        before = [one for one in events if live is None or one.seq <= live.since or one.kind == "user"]
        versions = self.desk.conversations.versions(self.pid)
        found = exchanges(before)
        with self.talk:
            for exchange in found:
                if exchange.user.seq > self._last:
                    user(exchange.user, exchange.user.body, versions.get(exchange.user.seq, ()), self.actions)
                    self._last = exchange.user.seq
                going_on = live is not None and exchange is found[-1] and not exchange.whole
                if exchange.reply and exchange.reply[-1].seq > self._last and not going_on:
                    if self._partial is not None:
                        self._partial.delete()
                    mine = versions.get(exchange.reply[0].seq, ())
                    shown = reply(exchange, mine, self.actions, self.pid)
                    self._partial = None if exchange.whole else shown
                    self._last = exchange.reply[-1].seq
            if live is not None and live.words and not any(one.seq > live.since for one in before):
                user(None, live.words, (), None)
            if live is None and found and not found[-1].whole:
                with el("div", "unfinished") as unfinished:
                    words("This reply was cut off.", "soft")

                    async def finish() -> None:
                        unfinished.delete()
                        if self._partial is not None:
                            self._partial.delete()
                            self._partial, self._last = None, found[-1].user.seq
                        await self._begin(lambda process: process.go_on)

                    button("Finish it", finish, "tiny")

    def _follow(self, live: Live) -> None:
        """Show a turn as it goes on, until it is over."""
        with self.talk:
            self._live = LiveReply(live)
        self.composer.busy(True)
        self._live.update()
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        leave = live.listen(lambda: loop.call_soon_threadsafe(changed.set))

        async def follow() -> None:
            shown, seen = self._live, tuple[Any, ...]()
            assert shown is not None
            try:
                while not live.done.is_set():
                    changed.clear()
                    if (now := (len(live.parts), live.asking)) != seen:
                        with self.client:
                            shown.update()
                            if not seen:
                                self._fill()  # the log has the user's words by now
                        seen = now
                    await changed.wait()
                    await asyncio.sleep(_PAUSE)
                with self.client:
                    await self._over(live, shown)
            finally:
                leave()

        self._following = background_tasks.create(follow())
        self.client.on_delete(self._following.cancel)

    async def _over(self, live: Live, shown: LiveReply) -> None:
        """A turn has ended: what is in the log stands in its place."""
        if self.pid != live.process.pid or self._live is not shown or shown.element.is_deleted:
            return
        self._live = None
        self.composer.busy(False)
        for child in [one for one in self.talk.default_slot.children if one is shown.element or _is_passing(one)]:
            child.delete()
        self._append(None)
        if live.error:
            notice(live.error, "error")
        self._fill()
        await self._measure()

    async def _measure(self) -> None:
        """Show what is before the model."""
        pid = self.pid
        if pid is None:
            return None
        try:
            process, frame = await in_thread(_frame, self.desk, pid)
        except TwofileError as error:
            with self.client:
                return notice(error.message, "error")
        if pid != self.pid or frame is None or self.meter.is_deleted:
            return None
        view = process.look()
        with self.client:
            self.meter.clear()
            self.banner.clear()
            with self.meter:
                _meter(process, frame, view.cards, self._unpin)
            if frame.out:
                with self.banner:
                    some = f"{len(frame.out)} earlier page{'s' if len(frame.out) > 1 else ''}"
                    el(
                        "span",
                        text=f"{some} left the window. What fits a question is brought back; pin what must stay.",
                    )
        return None

    # What is done.

    def _pickable(self) -> None:
        self.picker.choose_from(self.settings.models, str(self.settings.path))

    @guarded
    async def _change(self) -> None:
        if self.pid is not None:
            await in_thread(lambda: self.desk.change(self.pid or 0, **self.settings.changes()))

    async def _model(self, path: str) -> None:
        self.settings.path = Path(path)
        if self.pid is None:
            return self._welcome()
        await self._change()
        return await self._measure()

    def _settings(self) -> None:
        self.settings.dialog(self.client.content, self._change)

    async def _send(self, text: str, files: list[dict[str, Any]]) -> None:
        @guarded
        async def work() -> None:
            said, label, shown = await in_thread(said_with, self.desk, text, files)
            body = {"text": said, "shown": shown} if shown else {"text": said}
            if self.pid is None:
                self.welcome.delete()
            begun = await self._begin(
                lambda process: lambda approve, how: process.say(said, approve, how, label, shown=shown or None), body
            )
            if not begun:
                ui.navigate.to("/" if self.pid is None else f"/chat/{self.pid}")

        await work()

    async def _begin(
        self, how: Callable[[Process], Callable[..., Any]], body: dict[str, Any] | None = None, pid: int | None = None
    ) -> bool:
        """Begin a turn in this conversation's process, in another one, or in a new one; whether that went well."""
        try:
            sampling = Sampling(**self.settings.sampling)
            if pid is None and self.pid is None:
                with self.talk:
                    waiting = el("p", "soft opening", f"Opening {self.settings.path.stem}…", role="status")
                process = await in_thread(self.settings.spawn)
                waiting.delete()
            else:
                process = await in_thread(self.desk.process, pid or self.pid or 0)
            run = how(process)
            live = self.desk.turns.begin(process, lambda approve: run(approve, sampling), body)
        except (TwofileError, ValueError) as error:
            notice(str(error), "error")
            return False
        if process.pid != self.pid:
            self.composer.at(f"/chat/{process.pid}")
            await self._display(process.pid)
        else:
            self._append(live)
            self._follow(live)
        return True

    def _stop(self) -> None:
        live = None if self.pid is None else self.desk.turns.speaking(self.pid)
        if live is not None:
            live.stop()

    async def _edit(self, event: Event, text: str) -> None:
        if not text.strip():
            return notice("the message is empty", "error")
        assert self.pid is not None
        before = [one.seq for one in self.desk.kernel.log.events(self.pid) if one.seq < event.seq]

        @guarded
        async def work() -> None:
            shown, label = dict(event.body.get("shown") or {}), Label.from_json(event.body.get("label", {}))
            said = text + str(event.body["text"])[len(str(shown["text"])) :] if shown else text
            shown = {**shown, "text": text} if shown else {}
            branch = await in_thread(self.desk.fork, self.pid, before[-1])
            body = {"text": said} | ({"shown": shown} if shown else {})
            await self._begin(
                lambda process: lambda approve, how: process.say(said, approve, how, label, shown=shown or None),
                body,
                branch.pid,
            )

        return await work()

    @guarded
    async def _again(self, event: Event) -> None:
        branch = await in_thread(self.desk.fork, self.pid, event.seq)
        await self._begin(lambda process: process.go_on, None, branch.pid)

    @guarded
    async def _branch(self, event: Event) -> None:
        branch = await in_thread(self.desk.fork, self.pid, event.seq)
        await self._show(branch.pid)
        notice("A branch: what you say now is said in it alone.")

    @guarded
    async def _pin(self, text: str) -> None:
        process = await in_thread(self.desk.process, self.pid)
        await in_thread(process.pin, text)
        notice("Pinned: it stays before the model.")
        await self._measure()

    @guarded
    async def _unpin(self, card: int) -> None:
        process = await in_thread(self.desk.process, self.pid)
        await in_thread(process.unpin, card)
        await self._measure()

    @guarded
    async def _bad(self, event: Event) -> None:
        from twofile.serve.label.store import Item

        process = await in_thread(self.desk.process, self.pid)
        messages: list[dict[str, Any]] = []
        for one in process.look().messages():
            if one["role"] == "assistant" and one["content"] == event.body["text"]:
                self.desk.labels.add([Item(tuple(messages), (one["content"],), source="chat")])
                return notice("Marked. On the label page (Train) it can be corrected.")
            messages.append(one)
        return None


def _is_passing(element: Element) -> bool:
    """Whether an element stands for what was on its way into the log."""
    return "passing" in element.classes


def _frame(desk: Desk, pid: int) -> tuple[Process, Frame | None]:
    process = desk.process(pid)
    return process, process.frame() if process.look().turns else None


def _meter(process: Process, frame: Frame, cards: Any, unpin: Callable[[int], Any]) -> None:
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
