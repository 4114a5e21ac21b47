"""The page "Inside" with the bundled models: replies read again as they were, token by token, branches from them, the
prompt, the two files, a dream that streams and stops, the surprise of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

import twofile
from tests.serve.pages.conftest import Site, Watched, serious
from twofile.engine.sampler import Sampling
from twofile.errors import KernelError
from twofile.kernel.driver import Driver
from twofile.kernel.kernel import Kernel
from twofile.kernel.process import Process
from twofile.params.checksum import file_sha256
from twofile.params.hyper import Hyperparameters
from twofile.params.names import bundled
from twofile.params.parameters import Parameters
from twofile.serve.pages.inspection import (
    Reply,
    choices,
    diagram,
    replies,
    reply_of,
    shown,
    sizes,
    tensors,
    visible,
)
from twofile.tools.toolbox import Config, Toolbox

GREEDY = Sampling(temperature=0)
STORY = "Tell me a story about a dog and a cat."
MANY = (
    "What is 17 * 23?", "My name is Anna and I live in Rome.", "Tell me a story about a big red ball and a boy.",
    "What is 12 + 99?", "Tell me a story about a cat and a mouse and a bird.", "What is my name?",
)  # fmt: skip


def _say(process: Process, *texts: str) -> None:
    for text in texts:
        for _ in process.say(text, sampling=GREEDY):
            pass


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolbox]:
    with Toolbox(Config.read(tmp_path_factory.mktemp("tools") / "tools.toml")) as made:
        yield made


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, box: Toolbox) -> Iterator[Kernel]:
    with Kernel(tmp_path_factory.mktemp("log") / "kernel.db", [box.driver("calculator")]) as made:
        yield made


@pytest.fixture(scope="module")
def long(kernel: Kernel) -> Process:
    """A conversation that called tools and did not fit into the window."""
    process = kernel.spawn(str(bundled()["assistant"]), "You are a helpful assistant.", ["calculator", "recall"])
    _say(process, *MANY)
    return process


def _all(kernel: Kernel, box: Toolbox, process: Process) -> list[Reply]:
    said = replies(kernel.log.events(process.pid))
    return [reply_of(kernel, box.driver, process.pid, event.seq) for event in said]


def test_every_frame_is_made_again_as_it_was(kernel: Kernel, box: Toolbox, long: Process) -> None:
    found = _all(kernel, box, long)
    assert all(reply.exact for reply in found)
    assert any(reply.frame.out for reply in found)
    assert {reply.source for reply in found} == {"sampled", "template"}
    assert all(0 < reply.tools < len(reply.frame.ids) for reply in found)


def test_the_most_likely_token_was_said_where_that_was_asked_for(kernel: Kernel, box: Toolbox, long: Process) -> None:
    for reply in _all(kernel, box, long):
        found = choices(reply.image.engine, reply.frame.ids, reply.ids)
        assert [one.token for one in found] == reply.ids
        for one in found:
            assert one.rank == 0
            assert one.top[0].token == one.token
            assert one.top[0].probability == one.probability
            assert len(one.top) == 10
            assert sum(other.probability for other in one.top) <= 1 + 1e-9
            assert [other.probability for other in one.top] == sorted((o.probability for o in one.top), reverse=True)
            assert 0 <= one.entropy <= 12.6
            assert one.bits >= 0


def test_the_last_tokens_of_a_long_reply_alone_are_looked_at(kernel: Kernel, box: Toolbox, long: Process) -> None:
    reply = _all(kernel, box, long)[-1]
    whole, part = (choices(reply.image.engine, reply.frame.ids, reply.ids, most) for most in (2000, 3))
    assert [one.token for one in part] == reply.ids[-3:]
    assert [one.probability for one in part] == pytest.approx([one.probability for one in whole[-3:]])
    assert choices(reply.image.engine, reply.frame.ids, []) == []


def test_a_reply_whose_tokens_were_not_kept_is_that_of_its_text(kernel: Kernel, box: Toolbox) -> None:
    body = {"model": str(bundled()["assistant"]), "system": "", "tools": [], "limit": [], "adapter": ""}
    pid = kernel.log.begin("begin", body).pid
    with pytest.raises(KernelError, match="nothing"):
        reply_of(kernel, box.driver, pid)
    user = kernel.log.append(pid, "user", {"text": "Hi"}, kernel.log.end(pid)).seq
    kernel.log.append(pid, "assistant", {"text": "Hello there.", "calls": [], "usage": {}}, user)
    reply = reply_of(kernel, box.driver, pid)
    assert reply.source == "text"
    assert reply.then is None
    assert not reply.exact
    assert reply.upto == user
    assert reply.image.engine.detokenize(reply.ids) == "Hello there."
    with pytest.raises(KernelError, match="no reply"):
        reply_of(kernel, box.driver, pid, user)


def test_what_cannot_be_seen_is_shown(kernel: Kernel, long: Process) -> None:
    assert visible(" a\n\u202e ") == "␣a↵‹202e›␣"
    assert visible("  ") == "␣␣"
    engine = long.image.engine
    assert "".join(shown(engine, token) for token in engine.tokenize("a dog")) == "a dog"
    assert re.fullmatch(r"(‹[0-9a-f ]+›)+|🦑", "".join(shown(engine, token) for token in engine.tokenize("🦑")))


def test_the_files_are_described_safely() -> None:
    path = bundled()["assistant"]
    with Parameters.open(path) as parameters:
        assert file_sha256(path) == parameters.sha256()
        table = tensors(tuple(parameters.tensors.values()))
        drawing = diagram(parameters.hyper)
    assert "<code>token_embd.weight</code></td><td>6,144 × 384" in table
    assert "× 5 layers" in drawing
    assert drawing.count('class="head') == 6
    large = Hyperparameters("llama", 128_256, 8192, 8192, 80, 64, 8, 128, 28_672)
    assert "64 heads of 128, 8 of keys and values" in diagram(large)
    packed = sizes("dog " * 200)
    assert packed.raw == 800
    assert max(packed.gzip, packed.xz) < 200


@pytest.fixture(scope="module")
def said(site: Site) -> int:
    """A conversation in the server's log."""
    with Kernel(site.home / "kernel.db") as kernel:
        process = kernel.spawn(str(bundled()["assistant"]), "You are a helpful assistant.")
        _say(process, STORY)
        return process.pid


def test_a_token_is_chosen_and_another_one_said_in_its_place(watched: Watched, site: Site, said: int) -> None:
    page = watched.open("/inside")
    page.get_by_role("link", name=re.compile("Tell me a story")).click()
    expect(page).to_have_url(re.compile(rf"/inside\?process={said}$"))
    tokens = page.locator("button.token")
    expect(tokens.nth(3)).to_have_attribute("title", re.compile(r"%, first choice"))
    levels = {re.search(r"\bp\d", one.get_attribute("class") or "") for one in tokens.all()}
    assert None not in levels
    assert page.locator(".token.control", has_text="<|im_end|>").count() == 1
    assert serious(page) == []
    tokens.nth(2).click()
    expect(page.locator(".detail")).to_contain_text("token 3 of")
    expect(page.locator(".alternatives li")).to_have_count(10)
    expect(page.locator(".alternatives .said-here")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".detail")).to_contain_text("token 4 of")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    expect(page.locator(".detail")).to_contain_text("token 3 of")
    page.get_by_role("button", name="Branch here with").first.click()
    page.wait_for_url("**/chat/*")
    branch = int(page.url.rpartition("/")[2])
    expect(page.locator(".message.reply:not(.live-reply)")).to_have_count(1)
    expect(page.locator(".live-reply")).to_have_count(0)
    with Kernel(site.home / "kernel.db") as kernel:
        old, new = (kernel.log.events(pid)[-1].body["tokens"] for pid in (said, branch))
        reply = reply_of(kernel, _no_tools, said)
        top = choices(reply.image.engine, reply.frame.ids, reply.ids)[2].top
        assert branch != said
        assert new[:2] == old[:2]
        assert new[2] == top[1].token != old[2]
        assert reply_of(kernel, _no_tools, branch).exact


def _no_tools(name: str) -> Driver:
    raise AssertionError(name)


def test_the_prompt_shows_what_the_model_saw(watched: Watched, said: int) -> None:
    page = watched.open(f"/inside?process={said}", dark=True)
    page.get_by_role("tab", name="Prompt").click()
    panel = page.get_by_role("tabpanel")
    expect(panel.get_by_text(re.compile(r"exactly as then: \d+ tokens were read"))).to_be_visible()
    expect(panel.locator(".token.control", has_text="<|im_start|>")).to_have_count(3)
    expect(panel.locator(".tokens")).to_contain_text("You are a helpful assistant.")
    expect(panel.locator(".legend")).to_contain_text("the user: ")
    expect(panel.get_by_role("img")).to_have_attribute("aria-label", re.compile("the system's words"))
    assert serious(page) == []


def test_what_cannot_be_shown_is_said(watched: Watched, site: Site) -> None:
    page = watched.open("/inside?process=99999")
    expect(page.get_by_label("Conversation")).to_have_value("")
    with Kernel(site.home / "kernel.db") as kernel:
        pid = kernel.spawn(str(bundled()["assistant"])).pid
        gone = kernel.log.begin("begin", {"model": "/nowhere.gguf", "system": "", "tools": [], "limit": []}).pid
        kernel.log.append(gone, "user", {"text": "Hi"}, kernel.log.end(gone))
        kernel.log.append(gone, "assistant", {"text": "<b>x</b>", "calls": [], "usage": {}}, kernel.log.end(gone))
    for process, words in ((pid, "has said nothing here yet"), (gone, "there is no parameters file")):
        page = watched.open(f"/inside?process={process}")
        expect(page.get_by_role("alert").first).to_contain_text(words)


def test_the_two_files_are_shown(watched: Watched) -> None:
    page = watched.open("/inside?show=files", width=360, height=740)
    expect(page.get_by_role("img", name=re.compile("Architecture"))).to_be_visible()
    expect(page.get_by_text(file_sha256(bundled()["assistant"]))).to_be_visible()
    expect(page.get_by_text(file_sha256(Path(twofile.__file__).with_name("run.c")))).to_be_visible()
    page.get_by_text("The tensors (57").click()
    expect(page.get_by_role("region", name="The tensors")).to_contain_text("blk.4.ffn_down.weight")
    expect(page.locator(".stages")).to_contain_text("quantise Q8_0")
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360
    assert serious(page) == []
    page.get_by_label("Model").select_option(str(bundled()["stories"]))
    expect(page.get_by_role("heading", name="The first file: stories.gguf")).to_be_visible()


def test_a_dream_streams_and_stops(watched: Watched) -> None:
    page = watched.open("/inside?show=dream")
    page.get_by_label("Model").select_option(str(bundled()["base"]))
    page.get_by_role("button", name="Dream").click()
    text = page.get_by_role("region", name="The dream")
    expect(text).to_contain_text(re.compile(r"\w+ \w+"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile(r"\d+ tokens, [\d,]+ a second: "))).to_be_visible()
    before = text.inner_text()
    page.wait_for_timeout(400)
    assert text.inner_text() == before
    assert serious(page) == []


def test_the_surprise_of_a_text_has_its_figures(watched: Watched) -> None:
    page = watched.open("/inside?show=surprise", width=360, height=740)
    page.get_by_label("Text", exact=True).fill("Once upon a time <b>there</b> was a dog.")
    page.get_by_role("button", name="Measure").click()
    expect(page.locator(".figures")).to_contain_text("bits a byte")
    expect(page.locator(".tokens")).to_contain_text("<b>there</b> was a dog.")
    expect(page.locator(".alternatives")).to_contain_text(re.compile(r"as it is\s*40 bytes \(100%\)"))
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360
    assert serious(page) == []
    page.get_by_label("Text", exact=True).fill(" ")
    page.get_by_role("button", name="Measure").click()
    expect(page.locator(".notice.error")).to_contain_text("there is no text")
