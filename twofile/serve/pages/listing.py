"""The list of conversations beside the chat: found by words, renamed, exported, read back, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicegui import context, ui

from twofile.errors import KernelError
from twofile.kernel.conversations import Conversation
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import ago, confirm, guarded, in_thread
from twofile.serve.pages.parts import Dialog, Field, File, button, el, link

__all__ = ["Listing"]

_MOST = 200  # conversations that are shown
_LARGEST = 50 << 20  # bytes of an import


class Listing:
    """`current`: the process that the page shows; `model`: what goes on with what is read back."""

    def __init__(self, desk: Desk, current: Callable[[], int | None], model: Callable[[], Path]) -> None:
        self.desk, self.current, self.model = desk, current, model
        self.client = context.client
        self._words, self._asked = "", 0
        with el("aside", "list", aria_label="Conversations"):
            with el("div", "row"):
                keys: dict[str, Any] = {"data_key": "ctrl+k", "placeholder": "Search (Ctrl+K)"}
                Field("Search", "", self._search, "search", at_once=True, **keys)
            self.items = el("ul", "items")
            with el("div", "import"):
                File("Import a conversation", self._import, ".json")

    async def _search(self, given: str) -> None:
        self._words = given.strip()
        await self.fill()

    async def fill(self) -> None:
        """Show the conversations as they are now."""
        self._asked += 1
        asked = self._asked
        found, own = await in_thread(self._look)
        if asked != self._asked or self.items.is_deleted:
            return  # there is a newer look
        self.items.clear()
        with self.items:
            for one in found[:_MOST]:
                self._item(one, one.root in own)
            if not found:
                el("li", "empty small", "Nothing has these words." if self._words else "What you say is kept here.")

    def _look(self) -> tuple[list[Conversation], set[int]]:
        pid = self.current()
        try:
            own = set(self.desk.conversations.family(pid)) if pid is not None else set()
        except KernelError:  # it was deleted on another page
            own = set()
        return self.desk.conversations.all(self._words), own

    def _item(self, one: Conversation, here: bool) -> None:
        title = one.title or "Nothing said yet"
        with el("li", "item here" if here else "item"):
            with link("", f"/chat/{one.last}", aria_current="page" if here else None):
                el("span", "title", title)
                el("span", "small soft", ago(one.at))
            with el("details", "menu"):
                el("summary", text="⋯", aria_label=f"What to do with {title}")
                with el("div", "choices"):
                    button("Rename", lambda: self._rename(one.root, title), "quiet tiny")
                    link("Export as JSON", f"/export/{one.last}.json", "button quiet tiny", download=True)
                    link("Export as text", f"/export/{one.last}.md", "button quiet tiny", download=True)
                    button("Delete", lambda: self._delete(one.root, title), "quiet tiny danger")

    def _rename(self, root: int, title: str) -> None:
        with self.client.content:
            dialog = Dialog("Rename the conversation", lambda: dialog.delete())
        with dialog:
            field = Field("Name", title, at_once=True, autofocus=True, maxlength="80")

            @guarded
            async def rename() -> None:
                await in_thread(self.desk.conversations.rename, root, field.value)
                dialog.close()
                await self.fill()

            with el("div", "row end"):
                button("Rename", rename, "primary")
        dialog.open()

    def _delete(self, root: int, title: str) -> None:
        @guarded
        async def delete() -> None:
            gone = await in_thread(self.desk.conversations.family, root)
            await in_thread(self.desk.forget, root)
            if self.current() in gone:
                ui.navigate.to("/")
            else:
                await self.fill()

        confirm(f"Delete “{title}” with all of its versions?", "Delete", delete)

    async def _import(self, sent: dict[str, Any]) -> None:
        @guarded
        async def work() -> None:
            ui.navigate.to(f"/chat/{await in_thread(self._read, sent)}")

        await work()

    def _read(self, sent: dict[str, Any]) -> int:
        path = self.desk.home / "uploads" / Path(str(sent["id"])).name
        if path.stat().st_size > _LARGEST:
            raise KernelError(f"a conversation has at most {_LARGEST >> 20} MB")
        try:
            given = json.loads(path.read_text("utf-8", errors="replace"))
        except (ValueError, RecursionError) as error:
            raise KernelError(f"{sent['name']} is no JSON", "a conversation that was exported as JSON") from error
        return self.desk.conversations.imported(given, str(self.model()))
