"""The labelling page in a real Chromium, by keyboard: choosing, writing, undoing, a server that dies and comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.label.test_label import Server
from twofile.serve.label.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on this machine, to drive the page")


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.set_default_timeout(15_000)
        yield page
        browser.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    rows = tmp_path / "rows.jsonl"
    talk = [{"role": "system", "content": "Answer kindly."}, {"role": "user", "content": "What is the sea? <b>x</b>"}]
    items: list[dict[str, Any]] = [
        {
            "messages": talk,
            "replies": ["Water, a lot of it, with salt.", "<script>document.title = 'owned'</script>No."],
        },
        {"prompt": "Say something kind.", "replies": ["You are here.", "Go away."]},
        {"prompt": "What went wrong here?", "replies": ["I like turtles."]},
        {"prompt": "Write a line about snow."},
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in items))
    guide = tmp_path / "guide.txt"
    guide.write_text("Prefer the reply that is true.\nThen the one that is kind.")
    server = Server(tmp_path / "labels.db", str(rows), "--instructions", str(guide))
    yield server
    server.kill()


def test_by_keyboard(page: Any, server: Server, tmp_path: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.address)
    page.get_by_placeholder("your name").fill("ann")
    page.keyboard.press("Enter")
    page.get_by_text("Which reply is better?").wait_for()
    assert "Prefer the reply that is true." in page.inner_text("#instructions")
    assert "<b>x</b>" in page.inner_text("#talk")
    page.keyboard.press("r")
    page.keyboard.type("because it is true")
    page.keyboard.press("Escape")
    left = page.inner_text(".reply:first-child")
    page.screenshot(path=tmp_path / "choose.png")
    page.keyboard.press("1")
    page.get_by_text("Say something kind.").wait_for()
    assert page.title() == "twofile: label"  # what a model says is text, never a program
    page.keyboard.press("u")
    page.get_by_text("Undone").wait_for()
    assert page.locator(".reply.before").inner_text() == left
    assert page.input_value("#reason") == "because it is true"
    page.keyboard.press("=")
    page.get_by_text("Say something kind.").wait_for()
    server.kill()
    page.keyboard.press("2")  # nobody is there to take it
    page.get_by_text("The server is away").wait_for()
    server.start()
    page.get_by_text("This reply was not good").wait_for()
    assert page.input_value("#text") == "I like turtles."
    page.fill("#text", "I had not read the question.")
    page.keyboard.press("Control+Enter")
    page.get_by_text("Write the ideal answer").wait_for()
    page.keyboard.type("Snow falls, and nobody hears it.")
    page.keyboard.press("Control+Enter")
    page.get_by_text("Nothing is left").wait_for()
    store = Store(tmp_path / "labels.db")
    found = store.labels()
    store.close()
    assert [(one.item, one.verdict in ("first", "second")) for one in found][:2] == [(1, False), (2, True)]
    assert [one.text for one in found[2:]] == ["I had not read the question.", "Snow falls, and nobody hears it."]
    assert all(url.startswith(server.address) for url in requests)


def test_on_a_phone(page: Any, server: Server, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(server.address)
    page.get_by_placeholder("your name").fill("bob")
    page.keyboard.press("Enter")
    page.get_by_text("Which reply is better?").wait_for()
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".reply").nth(1).click()
    page.get_by_text("Say something kind.").wait_for()
