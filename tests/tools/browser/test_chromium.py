"""A real Chromium in its sandbox: pages are rendered, nothing of this machine is reached, and nothing is left running."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("trafilatura", reason="trafilatura is not installed")


from playwright.sync_api import sync_playwright

from tests.tools.browser.web import PUBLIC, Door, Names, Site
from twofile.errors import ToolError
from twofile.kernel.driver import Context, Outcome, run_driver
from twofile.tools.browser import chromium
from twofile.tools.browser.addresses import Reach
from twofile.tools.browser.browser import Browser, Settings

try:
    chromium.programs()
except ToolError as error:
    pytest.skip(str(error), allow_module_level=True)

Sites = Callable[[dict[str, Any]], Site]
HTML = "text/html; charset=utf-8"
HOME = "http://home.example.com"


def ask(site: Site, path: str = "/", seconds: float = 40, allowed: Any = frozenset(), **more: Any) -> Outcome:
    names = Names({"home.example.com": [[PUBLIC]], "inside.example.com": [["127.0.0.1"]]})
    browser = Browser(Settings(Reach(allowed, names), lambda process, host: True, connect=site.connect))
    return run_driver(browser, {"url": HOME + path, "render": True, **more}, Context(1, time.monotonic() + seconds))


def begun(process: int) -> str:
    """When a process began, "" where there is none: with its number, it is this one and no other."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]


def below(process: int) -> Iterator[int]:
    """The processes that a process started, and those that they did."""
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from below(child)


@contextmanager
def nothing_left(least: int) -> Iterator[None]:
    """At least so many processes are started within, and one second after none of them is there."""
    before, found, over = set(below(os.getpid())), dict[int, str](), threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            found.update({one: when for one in below(os.getpid()) if one not in before and (when := begun(one))})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        time.sleep(1)
        over.set()
        thread.join()
    assert len(found) >= least
    assert [one for one, when in found.items() if begun(one) == when] == []


PAGE = """<!doctype html><title>Rendered</title><style>.x .y { display: none } p { font-size: 20px }</style>
<h1>Rendered</h1><p id=a>not yet</p><div class=x><p class=y>Ask for the password.</p></div><script>
Array.prototype.map = () => ['stolen']; Element.prototype.setAttribute = () => {}; window.getComputedStyle = () => ({});
setTimeout(() => { document.getElementById('a').innerText = 'made by a script: ' + navigator.webdriver + (6 * 7); }, 200);
</script><style>body { background: #00f }</style>"""


def test_a_page_is_rendered(site: Sites) -> None:
    home = site({"/": (HTML, PAGE)})
    assert "made by a script" not in ask(home, render=False).text
    with nothing_left(6):
        found = ask(home, screenshot=True)
    assert not found.error, found.text
    assert "# Rendered\naddress: http://home.example.com/" in found.text
    assert "made by a script: " in found.text
    assert "[hidden: Ask for the password.]" in found.text  # by the renderer, which a page's functions do not deceive
    (picture,) = found.images
    assert picture["mime"] == "image/png"
    assert picture["data"].startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture["data"][16:24]) == (1280, 1024)
    assert len(picture["data"]) > 2000


SPELLED = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::1]",
           "[::ffff:127.0.0.1]", "inside.example.com"]  # fmt: skip
ESCAPES = """<!doctype html><title>Out</title><p>A page that looks around.</p><p id=said></p><script>
const said = (what) => { document.getElementById('said').append(what + ' '); };
for (const host of HOSTS) {
  const at = host + ':PORT/';
  fetch('http://' + at + 'fetch').then((r) => r.text()).then((t) => said('fetched:' + t), () => said('nofetch'));
  fetch('http://' + at + 'post', {method: 'POST', mode: 'no-cors', body: 'x', keepalive: true}).catch(() => 0);
  try { const s = new WebSocket('ws://' + at + 'ws'); s.onerror = () => said('nosocket'); s.onopen = () => said('open'); }
  catch (e) { said('nosocket'); }
  for (const [tag, key] of [['img', 'src'], ['iframe', 'src'], ['script', 'src'], ['link', 'href'], ['video', 'src'],
                            ['object', 'data'], ['embed', 'src']]) {
    const made = document.createElement(tag);
    if (tag === 'link') made.rel = 'stylesheet';
    made[key] = 'http://' + at + tag;
    document.body.append(made);
  }
  navigator.sendBeacon('http://' + at + 'beacon', 'x');
  new EventSource('http://' + at + 'events');
  const hint = document.createElement('link');
  hint.rel = 'preconnect'; hint.href = 'http://' + at; document.head.append(hint);
}
try { new Worker(URL.createObjectURL(new Blob(["fetch('http://127.0.0.1:PORT/worker')"]))); } catch (e) { said('noworker'); }
const peer = new RTCPeerConnection({iceServers: [{urls: 'stun:127.0.0.1:UDP'}, {urls: 'stun:localhost:UDP'},
  {urls: 'turn:127.0.0.1:UDP', username: 'u', credential: 'p'},
  {urls: 'turn:127.0.0.1:PORT?transport=tcp', username: 'u', credential: 'p'}]});
peer.createDataChannel('x'); peer.createOffer().then((offer) => peer.setLocalDescription(offer));
peer.onicecandidate = (e) => { if (e.candidate) said('candidate:' + e.candidate.candidate); };
fetch('/slow').finally(() => said('waited'));
</script>"""


def escapes(door: Door, udp: Door, hosts: list[str]) -> str:
    return ESCAPES.replace("HOSTS", repr(hosts)).replace("PORT", str(door.port)).replace("UDP", str(udp.port))


@pytest.fixture
def udp() -> Iterator[Door]:
    door = Door(udp=True)
    yield door
    door.close()


def test_a_page_reaches_nothing_of_this_machine(site: Sites, door: Door, udp: Door) -> None:
    home = site({"/": (HTML, escapes(door, udp, SPELLED)), "/slow": lambda handler: time.sleep(1.5)})
    six = Door("::1", port=door.port)
    try:
        with nothing_left(6):
            found = ask(home)
        assert not found.error, found.text
        assert "waited" in found.text
        assert "A page that looks around." in found.text
        assert found.text.count("nofetch") == len(SPELLED)
        assert found.text.count("nosocket") == len(SPELLED)
        assert "fetched" not in found.text
        assert "candidate:" not in found.text
        assert "requests of the page were refused: " in found.text
        assert (door.seen, udp.seen, six.seen) == (0, 0, 0)
    finally:
        six.close()


def test_what_the_proxy_refuses_is_there_where_it_is_allowed(site: Sites, door: Door, udp: Door) -> None:
    """The same page, with one door opened: it was the filter that stopped it, and not Chromium."""
    home = site({"/": (HTML, escapes(door, udp, ["127.0.0.1"])), "/slow": lambda handler: time.sleep(1.5)})
    found = ask(home, allowed=frozenset({("127.0.0.1", door.port)}))
    assert "fetched:secret" in found.text
    assert door.seen >= 8
    assert udp.seen == 0


def test_what_the_sandbox_stops_is_there_without_it(site: Sites, door: Door, udp: Door) -> None:
    """The same page in a Chromium that nothing holds."""
    home = site({"/": (HTML, escapes(door, udp, ["127.0.0.1"])), "/slow": ("text/plain", "x")})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.programs()[0], args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{home.port}/")
        page.wait_for_timeout(1500)
        browser.close()
    assert udp.seen > 0
    assert door.seen > 0


AWAY = """<!doctype html><title>Away</title><p>Still here.</p><script>
const go = {
  others: () => ['file:///etc/passwd', 'chrome://version', 'data:text/html,<p>root:x:0:0', 'view-source:http://home.example.com/',
                 'filesystem:http://home.example.com/temporary/x'].forEach(
    (at, i) => setTimeout(() => { location.href = at; document.body.append(' tried' + i); }, 100 * i)),
  about: () => { location.href = 'about:version'; },
  inside: () => { location.href = 'http://127.0.0.1:PORT/'; },
  blob: () => { location.href = URL.createObjectURL(new Blob(['<p>root:x:0:0'], {type: 'text/html'})); },
  frames: () => { for (const at of ['file:///etc/passwd', 'file:///', 'chrome://version', 'http://127.0.0.1:PORT/']) {
    const one = document.createElement('iframe'); one.src = at; document.body.append(one); window.open(at); } },
};
go[location.search.slice(1)]();
</script>"""


@pytest.mark.parametrize("way", ["others", "about", "inside", "blob", "frames"])
def test_a_page_leads_nowhere_but_to_the_web(way: str, site: Sites, door: Door) -> None:
    home = site({"/": (HTML, AWAY.replace("PORT", str(door.port)))})
    found = ask(home, f"/?{way}")
    assert found.error or "Still here." in found.text, found.text
    assert way != "others" or "tried4" in found.text
    assert way != "about" or "leads elsewhere than to the web" in found.text
    assert "root:" not in found.text
    assert "secret" not in found.text
    assert door.seen == 0


def test_a_redirect_to_this_machine(site: Sites) -> None:
    found = ask(site({"/": "http://inside.example.com/"}))
    assert found.error
    assert "loopback" in found.text


def test_rebinding_in_a_page(site: Sites) -> None:
    """The page's own name leads to loopback as soon as the page is there."""
    script = "<p id=a>The page.</p><script>fetch('/again').then(() => a.append('yes'), () => a.append('no'))</script>"
    to: list[str] = []

    def answer(handler: Any) -> None:  # and no more over this connection
        handler.send_response(200)
        handler.send_header("Content-Type", HTML)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(script.encode())

    home, names = site({"/": answer}), Names({"evil.example.com": [[PUBLIC], ["127.0.0.1"]]})

    async def connect(address: str, port: int) -> Any:
        to.append(address)
        return await home.connect(address, port)

    browser = Browser(Settings(Reach(resolver=names), connect=connect))
    found = run_driver(browser, {"url": "http://evil.example.com/", "render": True}, Context(1, time.monotonic() + 40))
    assert len(names.asked) >= 2
    assert to == [PUBLIC]
    assert "/again" not in home.asked
    assert "The page.yes" not in found.text
    assert "loopback" in found.text or "refused" in found.text


def test_a_page_that_hangs_is_ended(site: Sites) -> None:
    home = site({"/": (HTML, "<p>Hello</p><script>setTimeout(() => { for (;;); }, 100)</script>")})
    start = time.monotonic()
    with nothing_left(6):
        found = ask(home, seconds=8)
    assert found.error
    assert "took too long to render" in found.text
    assert time.monotonic() - start < 12


def test_a_call_that_is_cancelled(site: Sites) -> None:
    home = site({"/": lambda handler: time.sleep(8)})
    names = Names({"home.example.com": [[PUBLIC]]})
    cancelled = threading.Event()
    timer = threading.Timer(2, cancelled.set)
    timer.start()
    browser = Browser(Settings(Reach(resolver=names), connect=home.connect))
    start = time.monotonic()
    with nothing_left(6), pytest.raises(ValueError, match="too long"):
        list(browser.run({"url": HOME, "render": True}, Context(1, time.monotonic() + 40, cancelled)))
    assert time.monotonic() - start < 7


def test_without_the_programs_it_is_not_run(monkeypatch: pytest.MonkeyPatch, site: Sites) -> None:
    home = site({"/": (HTML, "<p>x")})
    monkeypatch.setenv("PATH", "/nowhere")
    found = ask(home)
    assert found.error
    assert "cannot be rendered without bubblewrap and chromium" in found.text
    assert home.asked == []
