"""What a conversation goes on with: its model, instructions, tools, and how tokens are chosen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nicegui import context
from nicegui.element import Element

from twofile.engine.sampler import Sampling
from twofile.errors import TwofileError
from twofile.kernel.process import Process
from twofile.params import names
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import notice
from twofile.serve.pages.parts import Dialog, Field, button, el, words

__all__ = ["Settings", "shortcuts"]

_DEFAULT = {"temperature": 0.3}
_KEYS = {
    "Enter": "Send", "Shift+Enter": "A new line", "Escape": "Stop the reply", "Alt+N": "A new conversation",
    "Ctrl+K": "Search the conversations", "Alt+E": "Edit your last message", "Alt+R": "Make the last reply again",
    "Alt+C": "Copy the last reply", "Alt+S": "Settings", "Alt+1 … Alt+5": "The pages", "Ctrl+/": "This",
}  # fmt: skip
_ASKED = ("What can you do?", "What is 17 * 23?", "Who are you?")
_BEGUN = ("Once upon a time", "The old man looked at the sea and", "It was a dark night when")


class Settings:
    """Those of one page. `path`: the model's file."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.models = {str(model.path): model.name for model in desk.models()}
        self.path = names.resolve("assistant")
        self.pid: int | None = None
        self.system, self.adapter = "", ""
        self.sampling: dict[str, Any] = dict(_DEFAULT)
        self.tools = ["calculator"]

    def choose(self, model: str) -> None:
        """A model by its name, one of those that are here; the bundled assistant where there is none of it."""
        for path, name in self.models.items():
            if name == model:
                self.path = Path(path)
                return
        if model:
            notice(f"there is no model {model[:80]}", "error")

    def of(self, pid: int) -> None:
        """Those of a process. KernelError where there is none."""
        begun = self.desk.kernel.beginning(pid)
        self.pid = pid
        self.path, self.system = Path(str(begun["model"])), str(begun.get("system", ""))
        self.adapter, self.tools = str(begun.get("adapter", "")), list(begun.get("tools", ()))
        self.sampling = dict(begun.get("sampling", _DEFAULT))
        self.models.setdefault(str(self.path), self.path.stem)

    @property
    def answers(self) -> bool:
        """Whether the model was taught to answer; a base model continues a text."""
        return bool(self.desk.template(self.path))

    @property
    def about(self) -> str:
        """What the model is, in a sentence."""
        if not self.answers:
            return f"{self.path.stem} is a base model: it continues the text that you begin."
        return f"{self.path.stem} runs on this machine. What you say stays here."

    @property
    def suggestions(self) -> tuple[str, ...]:
        """What one might say first."""
        return _ASKED if self.answers else _BEGUN

    def changes(self) -> dict[str, Any]:
        """What a process is to go on with (`Kernel.change`)."""
        tools = self.tools if self.answers else []
        given = {"model": str(self.path), "system": self.system, "tools": tools, "adapter": self.adapter}
        return {**given, "limit": self.desk.limit(tools), "sampling": self.sampling}

    def spawn(self) -> Process:
        """A new process of these settings. Opening a model takes its time."""
        process = self.desk.spawn(self.path, self.system, self.tools if self.answers else [], self.adapter)
        self.desk.kernel.change(process.pid, sampling=self.sampling)
        return process

    def dialog(self, content: Element, changed: Callable[[], Awaitable[Any]]) -> None:
        """Show them; `changed` is called when they were."""
        with content:
            dialog = Dialog("Settings", lambda: dialog.delete())
        with dialog:
            system = Field("Instructions to the model", self.system, kind="textarea", rows="4", at_once=True)
            with el("div", "grid small-grid"):
                fields = {
                    name: Field(label, str(self.sampling.get(name, "")), None, "number", None, at_once=True, **limits)
                    for name, label, limits in (
                        (
                            "temperature",
                            "Temperature (0: always the most likely)",
                            {"min": "0", "max": "2", "step": "0.1"},
                        ),
                        ("top_p", "Top p", {"min": "0", "max": "1", "step": "0.05", "placeholder": "0.95"}),
                        ("top_k", "Top k (0: off)", {"min": "0", "step": "1", "placeholder": "0"}),
                        ("repetition", "Repetition (1: off)", {"min": "1", "step": "0.05", "placeholder": "1"}),
                        ("seed", "Seed", {"min": "0", "step": "1", "placeholder": "a new one each time"}),
                    )
                }
            adapters = {"": "none"} | {str(path): name for name, path in self.desk.adapters().items()}
            adapter = Field("Variant (adapter)", self.adapter, kind="select", options=adapters)
            with el("fieldset", "tools"):
                el("legend", "small soft", "Tools; what one may do is asked for")
                boxes = {
                    name: Field(name, name in self.tools, kind="checkbox", title=about)
                    for name, about in self.desk.tools().items()
                }
            if not self.answers:
                words("This is a base model: it has no use for instructions and tools.", "small soft")

            async def keep() -> None:
                chosen = {name: field.value for name, field in fields.items() if str(field.value).strip()}
                try:
                    kinds: dict[str, type] = {"top_k": int, "seed": int}
                    sampling = {name: kinds.get(name, float)(value) for name, value in chosen.items()}
                    Sampling(**sampling)
                except (ValueError, TypeError) as error:
                    return notice(str(error), "error")
                before = (self.sampling, self.system, self.adapter, self.tools)
                self.sampling, self.system, self.adapter = sampling, system.value.strip(), adapter.value
                self.tools = [name for name, box in boxes.items() if box.value]
                try:
                    await changed()
                except TwofileError as error:
                    self.sampling, self.system, self.adapter, self.tools = before
                    return notice(error.message, "error")
                return dialog.close()

            with el("div", "row end"):
                button("Cancel", dialog.close)
                button("Keep", keep, "primary")
        dialog.open()


def shortcuts() -> None:
    """Show what the keys do."""
    with context.client.content:
        dialog = Dialog("Keyboard shortcuts", lambda: dialog.delete())
    with dialog, el("dl", "keys"):
        for keys, what in _KEYS.items():
            el("dt", "mono", keys)
            el("dd", text=what)
    dialog.open()
