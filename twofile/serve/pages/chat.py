"""Chat."""

from __future__ import annotations

from nicegui import ui

from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import framed
from twofile.serve.pages.parts import el

__all__ = ["add"]


def add(desk: Desk) -> None:
    """Make the page known."""

    @ui.page("/", title="Chat - twofile")
    def page() -> None:
        with framed("/", "plain"):
            el("h1", text="Chat")
