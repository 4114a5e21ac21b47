"""The chat page with the bundled assistant: said, streamed, stopped, edited, made again, branched, with tools, after a
kill; by keyboard alone, and on a phone."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.serve.pages.conftest import Site, Watched, serious
from tests.serve.pages.hostile import HOSTILE
from twofile.kernel.conversations import Conversations
from twofile.kernel.log import Log


def _say(page: Page, text: str) -> None:
    page.get_by_label("Message the model").fill(text)
    page.keyboard.press("Enter")


def _settled(page: Page, replies: int = 1) -> None:
    """Wait until so many replies are whole."""
    expect(page.locator(".message.reply:not(.live-reply)")).to_have_count(replies)
    expect(page.locator(".live-reply")).to_have_count(0)


def _made(site: Site, *said: str, model: str = "assistant") -> int:
    """A conversation in the server's log."""
    from twofile.params.names import bundled

    log = Log(site.home / "kernel.db")
    body = {"model": str(bundled()[model]), "system": "", "tools": [], "limit": [], "adapter": ""}
    pid = log.begin("begin", body).pid
    for number, words in enumerate(said):
        body = {"text": words} | ({"calls": [], "reason": "end", "usage": {}} if number % 2 else {})
        log.append(pid, ("user", "assistant")[number % 2], body, log.end(pid))
    log.close()
    return pid


def _slow(page: Page) -> None:
    """Have a reply that takes its time: a base model that goes on until its room is full."""
    page.get_by_label("Model", exact=True).select_option(label="stories")


def _with_python(page: Page) -> None:
    """Have the model call Python, and nothing else, always alike."""
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("calculator").uncheck()
    page.get_by_label("python", exact=True).check()
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_said_streamed_and_kept(watched: Watched, site: Site) -> None:
    page = watched.open("/")
    page.get_by_role("button", name="What is 17 * 23?").click()
    expect(page.get_by_label("Message the model")).to_have_value("What is 17 * 23?")
    page.get_by_role("button", name="Send").click()
    _settled(page)
    expect(page.locator(".message.reply")).to_contain_text("391")
    expect(page.locator(".tool summary")).to_contain_text("calculator")
    expect(page.locator(".pace")).to_contain_text(re.compile(r"tokens/s · first after [\d.]+ s · \d+ tokens, read"))
    expect(page.locator(".meter")).to_contain_text(re.compile(r"\d+ of 512 tokens .* pages: \d+ in, 0 out"))
    assert re.search(r"/chat/\d+$", page.url)
    assert serious(page) == []
    page.reload()
    _settled(page)
    expect(page.locator(".message.user")).to_contain_text("What is 17 * 23?")
    expect(page.locator(".item.here")).to_contain_text("What is 17 * 23?")


def test_text_comes_piece_by_piece_and_is_stopped(watched: Watched, site: Site) -> None:
    page = watched.open("/")
    _slow(page)
    expect(page.locator(".welcome")).to_contain_text("base model")
    _say(page, "Once upon a time there was a")
    expect(page.locator(".live-reply .live")).to_contain_text(re.compile(r"\w+ \w+"))
    page.get_by_role("button", name="Stop").click()
    _settled(page)
    expect(page.locator(".pace")).to_contain_text(re.compile("stopped|tokens"))
    words = page.locator(".message.reply .markup").inner_text()
    log = Log(site.home / "kernel.db")
    said = log.events(int(page.url.rpartition("/")[2]))[-1].body
    log.close()
    assert " ".join(said["text"].split())[:40] == " ".join(words.split())[:40]


def test_edited_made_again_and_branched_and_every_version_is_there(watched: Watched, site: Site) -> None:
    page = watched.open("/")
    _say(page, "What is 12 * 12?")
    _settled(page)
    first = page.url
    page.get_by_role("button", name="Again").click()
    expect(page).not_to_have_url(first)
    _settled(page)
    expect(page.locator(".reply .versions")).to_contain_text("2 of 2")
    page.locator(".reply").get_by_role("button", name="Earlier version").click()
    expect(page).to_have_url(first)
    expect(page.locator(".reply .versions")).to_contain_text("1 of 2")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Your message").fill("What is 15 * 15?")
    page.locator(".editing").get_by_role("button", name="Send").click()
    _settled(page)
    expect(page.locator(".message.user")).to_contain_text("15 * 15")
    expect(page.locator(".message.reply")).to_contain_text("225")
    expect(page.locator(".user .versions")).to_contain_text("2 of 2")
    page.locator(".user").get_by_role("button", name="Earlier version").click()
    expect(page.locator(".message.user")).to_contain_text("12 * 12")
    page.get_by_role("button", name="Branch").click()
    expect(page.get_by_text("A branch:")).to_be_visible()
    _say(page, "Who are you?")
    _settled(page, 2)
    kept = Conversations(log := Log(site.home / "kernel.db"))
    assert len(kept.family(int(page.url.rpartition("/")[2]))) == 4
    log.close()


def test_what_a_tool_needs_is_asked_for(watched: Watched) -> None:
    page = watched.open("/")
    _with_python(page)
    for answer, outcome in (("No", "not allowed"), ("Once", "done")):
        _say(page, "Use Python to compute 2 ** 10.")
        question = page.get_by_role("alertdialog")
        expect(question).to_contain_text("May python do this?")
        expect(question).to_contain_text("py:exec")
        assert serious(page) == []
        question.get_by_role("button", name=answer, exact=True).click()
        _settled(page, 1 if answer == "No" else 2)
        tool = page.locator(".reply").last.locator(".tool").first
        if answer == "No":
            expect(tool).to_contain_text(outcome)
        else:
            expect(tool.locator("summary")).to_contain_text(outcome)
            tool.locator("summary").click()
            expect(tool.locator(".output")).not_to_have_text("")


def test_files_are_attached_by_what_they_hold(watched: Watched, tmp_path: Path) -> None:
    page = watched.open("/")
    note, picture, wrong = tmp_path / "note.txt", tmp_path / "dot.png", tmp_path / "tool.exe"
    note.write_text("The walrus is called Gustav.")
    picture.write_bytes(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f"
            "00038501809e4f3c3b0000000049454e44ae426082"
        )
    )
    wrong.write_bytes(b"MZ\x90\x00\xff\xfe\x00" * 40)
    choose = page.get_by_label("Files to attach")
    choose.set_input_files([wrong])
    expect(page.get_by_role("alert")).to_contain_text("neither text")
    choose.set_input_files([note, picture])
    expect(page.locator(".files .chip")).to_have_count(2)
    _say(page, "What is the walrus called?")
    _settled(page)
    expect(page.locator(".user .chip")).to_contain_text("note.txt")
    expect(page.locator(".user .said")).to_have_text("What is the walrus called?")
    expect(page.locator(".user img")).to_have_js_property("naturalWidth", 1)


def test_conversations_are_found_renamed_exported_read_back_and_deleted(watched: Watched, site: Site) -> None:
    pid = _made(site, "Speak of zebras", "They have stripes.")
    page = watched.open(f"/chat/{pid}")
    page.keyboard.press("Control+k")
    page.keyboard.type("stripes")
    expect(page.locator(".item")).to_have_count(1)
    page.get_by_label("What to do with Speak of zebras").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Name", exact=True).fill("Stripes of zebras")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.locator(".item .title")).to_have_text("Stripes of zebras")
    page.get_by_label("What to do with Stripes").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as JSON").click()
    exported = json.loads(Path(download.value.path()).read_text())
    assert exported["title"] == "Stripes of zebras"
    page.get_by_label("Import a conversation").set_input_files(
        {"name": "talk.json", "mimeType": "application/json", "buffer": json.dumps(exported).encode()}
    )
    page.wait_for_url(re.compile(rf"/chat/(?!{pid}$)\d+"))
    expect(page.locator(".message.reply")).to_contain_text("They have stripes.")
    page.get_by_label("What to do with Stripes").first.click()
    page.get_by_role("button", name="Delete").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url(site.address + "/")
    expect(page.locator(".item", has_text="Stripes of zebras")).to_have_count(1)


def test_a_server_killed_in_the_midst_of_a_reply(watched: Watched, site: Site) -> None:
    page = watched.open("/")
    _with_python(page)
    _say(page, "Use Python to compute 2 ** 10.")
    expect(page.get_by_role("alertdialog")).to_be_visible()
    site.kill()
    site.start()
    expect(page.get_by_text("This reply was cut off.")).to_be_visible(timeout=60_000)  # it looks again by itself
    expect(page.locator(".message.user")).to_contain_text("Use Python")
    page.get_by_role("button", name="Finish it").click()
    expect(page.locator(".tool").first).to_contain_text("nobody knows whether it happened")
    expect(page.get_by_role("alertdialog").or_(page.locator(".pace"))).to_be_visible()
    if page.get_by_role("alertdialog").is_visible():  # the model calls it again
        page.get_by_role("alertdialog").get_by_role("button", name="No").click()
    _settled(page)


def test_what_left_the_window_is_told_and_what_is_pinned_stays(watched: Watched, site: Site) -> None:
    said = [f"{'Question' if i % 2 == 0 else 'Answer'} {i}: " + "words of no use " * 12 for i in range(16)]
    page = watched.open(f"/chat/{_made(site, *said)}")
    expect(page.locator(".banner")).to_contain_text(re.compile(r"\d+ earlier pages left the window"))
    expect(page.locator(".meter")).to_contain_text(re.compile(r"pages: \d+ in, [1-9]\d* out"))
    page.locator(".message.user").last.get_by_role("button", name="Pin").click()
    expect(page.locator(".meter")).to_contain_text("1 pinned")
    page.locator(".window summary").click()
    page.get_by_role("button", name="Unpin").click()
    expect(page.locator(".meter")).not_to_contain_text("pinned")


def test_by_keyboard_alone(watched: Watched) -> None:
    page = watched.open("/")
    page.keyboard.type("What is 6 * 7?")
    page.keyboard.press("Enter")
    _settled(page)
    page.keyboard.press("Alt+r")
    expect(page.locator(".reply .versions")).to_contain_text("2 of 2")
    _settled(page)
    page.keyboard.press("Alt+e")
    expect(page.get_by_label("Your message")).to_be_visible()
    page.get_by_label("Your message").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("What is 8 * 9?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".message.user")).to_contain_text("8 * 9")
    _settled(page)
    page.keyboard.press("Alt+s")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    for _ in range(60):  # everything can be reached, and where one is can be seen
        page.keyboard.press("Tab")
        seen = page.evaluate(
            "(e => e === document.body || getComputedStyle(e).outlineStyle !== 'none'"
            " || !!e.closest('.composer, .drop'))(document.activeElement)"
        )
        assert seen, page.evaluate("document.activeElement.outerHTML")
    page.keyboard.press("Alt+n")
    expect(page.locator(".welcome")).to_be_visible()


def test_on_a_phone(watched: Watched, site: Site) -> None:
    pid = _made(
        site, "Show a table", "| a | b |\n|---|---|\n| " + "long " * 40 + "| 2 |\n\n```\n" + "x" * 300 + "\n```"
    )
    page = watched.open(f"/chat/{pid}", width=360, height=740, has_touch=True)
    expect(page.locator(".message.reply")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("button", name="Conversations").click()
    expect(page.locator(".item.here")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Conversations").click(position={"x": 5, "y": 5}, force=True)
    _say(page, "What is 3 * 4?")
    _settled(page, 2)


def test_hostile_words_are_inert(watched: Watched, site: Site) -> None:
    said = [text for hostile in HOSTILE for text in (hostile, hostile)]
    page = watched.open(f"/chat/{_made(site, *said)}", accept_downloads=False)
    page.evaluate("window.harm = []; window.alert = (...words) => window.harm.push(words); 0")
    expect(page.locator(".message.reply")).to_have_count(len(HOSTILE))
    page.wait_for_load_state("networkidle")
    inside = page.evaluate(
        """() => [...document.querySelectorAll('.message *')].flatMap((one) => [
            ...['SCRIPT', 'IFRAME', 'OBJECT', 'EMBED', 'FORM', 'STYLE', 'LINK', 'BASE', 'META', 'SVG']
                .filter((name) => one.tagName.toUpperCase() === name),
            ...[...one.attributes].filter((a) => /^on|^style$|^srcset$|^xlink/.test(a.name)).map((a) => a.name),
            ...(one.closest('.markup') && (one.href || one.src) ? ['address'] : []),
        ])"""
    )
    assert inside == []
    assert page.evaluate("window.harm") == []
    links = page.locator(".markup button.link")
    assert links.count() > 0
    links.first.click()
    expect(page.get_by_role("dialog")).to_contain_text("Leave for this address?")
    target = page.locator(".target").inner_text()
    assert re.match("https?:|mailto:", target)
    page.get_by_role("button", name="Stay").click()


def test_no_address_begins_anything(watched: Watched, site: Site) -> None:
    log = Log(site.home / "kernel.db")
    before = log.outline()
    for place in (
        "/?model=assistant&q=hello&prompt=hi&send=1",
        "/?model=nothing",
        "/chat/999999",
        "/chat/x",
        "/?model=stories",
    ):
        page = watched.open(place) if place != "/chat/x" else None
        if page is not None:
            page.wait_for_load_state("networkidle")
    assert log.outline() == before
    log.close()


def test_a_long_conversation_scrolls_and_a_token_costs_what_it_costs(watched: Watched, site: Site) -> None:
    said = [f"{number}: " + "Some **words** of `code`, and more of them. " * 16 for number in range(120)]
    page = watched.open(f"/chat/{_made(site, *said, model='stories')}")  # about 20,000 tokens
    expect(page.locator(".message")).to_have_count(120)
    frames = page.evaluate(
        """async () => {
            const talk = document.querySelector('.talk'), times = [];
            talk.scrollTop = 0;
            let last = performance.now();
            for (let i = 0; i < 60; i++) {
                talk.scrollTop += 200;
                await new Promise(requestAnimationFrame);
                times.push(performance.now() - last);
                last = performance.now();
            }
            return times.sort((a, b) => a - b);
        }"""
    )
    assert frames[len(frames) // 2] < 50, frames  # milliseconds
    assert frames[-3] < 200, frames


def test_the_cost_of_a_token_does_not_grow(site: Site) -> None:
    """What is sent for a piece of a text, and what is made of it, whatever came before."""
    from twofile.serve.pages.markup import Blocks

    blocks, piece, spent = Blocks(), "A sentence of some words, as they come.\n" * 2 + "\n", []
    for _ in range(3000):
        start = time.perf_counter()
        blocks.feed(piece)
        spent.append(time.perf_counter() - start)
    early, late = sorted(spent[100:1100])[500], sorted(spent[-1000:])[500]
    assert late < 2 * early + 1e-5


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_conversation_is_accessible(watched: Watched, site: Site, dark: bool) -> None:
    text = "# Title\n\nWords and `code`, $x^2$.\n\n```python\ndef f(x):\n    return x  # why\n```\n\n"
    text += "| a | b |\n|---|---|\n| 1 | 2 |"
    page = watched.open(f"/chat/{_made(site, 'Show me', text)}", dark=dark)
    expect(page.locator(".markup math")).to_be_visible()
    assert serious(page) == []


def test_what_cannot_be_sent_is_given_back(watched: Watched, site: Site) -> None:
    _made(site, "Another talk", "Yes.")
    pid = _made(site, "Be told", "Told.")
    page = watched.open(f"/chat/{pid}")
    log = Log(site.home / "kernel.db")
    with log.speaking(pid):
        _say(page, "A long message that took me a while")
        expect(page.locator(".notice.error")).to_contain_text("speaking")
        expect(page.get_by_label("Message the model")).to_have_value("A long message that took me a while")
    page.keyboard.press("Enter")
    _settled(page, 2)
    log.forget([pid])
    log.close()
    _say(page, "Is anybody there?")
    expect(page.get_by_label("Message the model")).to_have_value("Is anybody there?")
    page.get_by_label("Search").fill("x")  # the list stands all the same
    page.get_by_label("Search").fill("")
    expect(page.locator(".item").first).to_be_visible()


def test_made_again_with_the_model_of_now(watched: Watched, site: Site) -> None:
    page = watched.open("/")
    _say(page, "Who are you?")
    _settled(page)
    page.get_by_label("Model", exact=True).select_option(label="base")
    expect(page.get_by_text("What is before the model?").or_(page.locator(".window"))).to_be_visible()
    page.get_by_role("button", name="Again").click()
    expect(page.locator(".reply .versions")).to_contain_text("2 of 2")
    _settled(page)
    log = Log(site.home / "kernel.db")
    models = [
        Path(event.body["model"]).stem
        for event in log.events(int(page.url.rpartition("/")[2]))
        if event.kind in ("begin", "changed") and "model" in event.body
    ]
    log.close()
    assert models == ["assistant", "base"]
    page.locator(".reply").get_by_role("button", name="Earlier version").click()
    expect(page.get_by_label("Model", exact=True).locator("option:checked")).to_have_text(re.compile("assistant|base"))


def test_another_version_while_a_reply_is_under_way(watched: Watched) -> None:
    page = watched.open("/")
    _with_python(page)
    _say(page, "Use Python to compute 2 ** 10.")
    page.get_by_role("alertdialog").get_by_role("button", name="No").click()
    _settled(page)
    first = page.url
    page.get_by_role("button", name="Again").click()
    expect(page.get_by_role("alertdialog")).to_be_visible()
    second = page.url
    page.goto(first)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    page.locator(".reply").get_by_role("button", name="Later version").click()
    expect(page).to_have_url(second)
    expect(page.get_by_role("alertdialog")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    _settled(page)
    expect(page.locator(".tool")).to_have_count(1)  # no other round began


def test_an_address_alone_loads_no_model(watched: Watched, site: Site) -> None:
    pid = _made(site, "Tell me", "Told.", model="stories")
    page = watched.open(f"/chat/{pid}")
    expect(page.get_by_role("button", name="What is before the model?")).to_be_visible()
    page.get_by_role("button", name="What is before the model?").click()
    expect(page.locator(".window")).to_be_visible()
