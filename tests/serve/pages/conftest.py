"""The real server with the bundled models, and Debian's Chromium before it. What a page asks for is watched: a request
to anything but this machine, a word that the policy forbade, or an error of a script fails the test."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest

pytest.importorskip("playwright", reason="needs playwright: pip install 'twofile[tools,dev]'")

from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, expect, sync_playwright

expect.set_options(timeout=20_000)


class Site:
    """`twofile serve` on loopback, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = os.environ | {"TWOFILE_HOME": str(self.home), "NICEGUI_STORAGE_PATH": str(self.home / "nicegui")}
        argv = [sys.executable, "-m", "twofile", "serve", "--port", str(self.port)]
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.home / "server.log").read_text()
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a power cut does; what it began in processes of their own goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it in peace, and the jobs that it began."""
        from twofile.serve.pages.jobs import Jobs

        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for job in Jobs(self.home / "jobs").all():
            job.kill()
            job.wait(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for the tests of a module."""
    made = Site(tmp_path_factory.mktemp("site") / "home")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser, for a module: while it is there a loop runs, which other tests cannot have."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*switches, "--disable-sync", "--no-first-run"])
        yield browser
        browser.close()


class Watched:
    """Opens pages and keeps what they asked for and complained of."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser, self.site = browser, site
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, place: str = "/", *, width: int = 1280, height: int = 800, dark: bool = False, **how: Any) -> Page:
        """A page of the server, in a browser of its own."""
        size: Any = {"width": width, "height": height}
        context = self.browser.new_context(viewport=size, color_scheme="dark" if dark else "light", **how)
        context.on("request", self._asked)
        page = context.new_page()
        _OPEN[page] = self
        page.set_default_timeout(20_000)
        page.on("console", self._said)
        page.on("pageerror", self._failed)
        page.goto(self.site.address + place)
        page.wait_for_selector("main")
        return page

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "Refused" in message.text:
            self.complaints.append(message.text)

    def _failed(self, error: Error) -> None:
        self.complaints.append(str(error))

    def check(self) -> None:
        """Nothing was asked of anything but this server, and nothing complained."""
        pattern = re.compile(rf"(http|ws)://127\.0\.0\.1:{self.site.port}/|data:|blob:")
        assert [url for url in self.requests if not pattern.match(url)] == []
        assert self.complaints == []


@pytest.fixture
def watched(chromium: Browser, site: Site) -> Iterator[Watched]:
    """Opens pages; in the end nothing may have been asked of anything but this server."""
    made = Watched(chromium, site)
    yield made
    for context in chromium.contexts:
        context.close()
    made.check()


_OPEN: WeakKeyDictionary[Page, Watched] = WeakKeyDictionary()


def serious(page: Page) -> list[str]:
    """What axe-core finds on a page that is serious or worse. The styles that it tries to add do not count."""
    from axe_playwright_python.sync_playwright import Axe

    before = list(_OPEN[page].complaints)
    found = Axe().run(page).response["violations"]
    page.wait_for_timeout(100)  # what it complained of has come by then
    _OPEN[page].complaints[:] = before
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
