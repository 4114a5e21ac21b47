"""A page that needs rendering: the system's Chromium in a sandbox that has no network but the proxy's socket.

bubblewrap unshares every namespace, shows the system's programs read-only and nothing of the user's, no environment,
and an empty network; inside it `forward` leads a loopback port to the proxy, which decides as it does for everything
else (`proxy`). Chromium may go to http and https addresses alone, has no permissions, downloads or service workers, and
starts new each time. Its own sandbox is off: bubblewrap is the wall. Without bubblewrap or Chromium it is not run.

Guarantee: after a call no process of it is left, also where the page hangs, and what comes back is bounded. Cost: one
to three seconds and some 400 MB while it runs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from twofile.errors import ToolError
from twofile.tools.browser.addresses import Refused, place
from twofile.tools.browser.hidden import MARK
from twofile.tools.browser.proxy import Proxy, Refusal
from twofile.tools.sandbox.tiers import system

__all__ = ["Rendered", "about_pages", "programs", "render"]

_PORT = 3128
_LARGEST = 5_000_000  # characters of HTML that are kept
_SIZE = {"width": 1280, "height": 1024}
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ITS_OWN = ("update.googleapis.com", "clients2.google.com", "accounts.google.com", "android.clients.google.com",
            "optimizationguide-pa.googleapis.com", "safebrowsingohttpgateway.googleapis.com",
            "content-autofill.googleapis.com", "edgedl.me.gvt1.com", "www.google.com", "mtalk.google.com")  # fmt: skip
_INSTALL = "apt-get install bubblewrap chromium"

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--no-pings", "--disable-domain-reliability", "--disable-breakpad",
    "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage", "--dns-prefetch-disable",
    "--disable-quic", "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    f"--proxy-server=http://127.0.0.1:{_PORT}", "--proxy-bypass-list=<-loopback>",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
_POLICY = {
    "URLAllowlist": ["about:blank"],
    "URLBlocklist": ["file://*", "data:*", "blob:*", "about:*", "chrome://*", "view-source:*", "javascript://*",
                     "ftp://*", "filesystem:*", "devtools://*"],
    "DownloadRestrictions": 3, "DefaultNotificationsSetting": 2, "DefaultGeolocationSetting": 2,
    "DefaultWebUsbGuardSetting": 2, "DefaultWebBluetoothGuardSetting": 2, "DefaultSerialGuardSetting": 2,
    "VideoCaptureAllowed": False, "AudioCaptureAllowed": False, "BackgroundModeEnabled": False,
}  # fmt: skip

# Marks what is not seen, as the renderer knows it, and gives where the page is and how. Runs in a world of its own,
# whose functions the page cannot replace.
_SNAPSHOT = """
(() => {
  const solid = (colour) => { const p = colour.match(/[\\d.]+/g) || []; return p.length < 4 || +p[3] > 0.05; };
  const paper = (at) => {
    for (; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== 'none') return null;
      if (solid(style.backgroundColor)) return style.backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number);
    }
    return [255, 255, 255];
  };
  const unseen = (at) => {
    const style = getComputedStyle(at);
    if (style.display === 'none' || style.visibility !== 'visible' || +style.opacity <= 0.05) return true;
    if (parseFloat(style.fontSize) <= 2 || at.getAttribute('aria-hidden') === 'true') return true;
    const box = at.getBoundingClientRect();
    if (style.display !== 'contents' && box.width * box.height > 0) {
      if (box.right + scrollX < 0 || box.bottom + scrollY < 0 || box.left > 20000) return true;
      if ((box.width <= 1 || box.height <= 1) && style.overflow !== 'visible') return true;
    } else if (style.overflow !== 'visible' && style.display !== 'contents') return true;
    if (/rect\\(0|rect\\(1px/.test(style.clip) || /inset\\((50|100)%|circle\\(0/.test(style.clipPath)) return true;
    if (![...at.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) return false;
    if (!solid(style.color)) return true;
    const under = paper(at), ink = style.color.match(/[\\d.]+/g).map(Number);
    return under !== null && under.every((value, i) => Math.abs(value - ink[i]) <= 10);
  };
  let left = 60000;
  const walk = (at) => {
    for (const child of at.children) {
      if (left-- <= 0) return;
      if (['SCRIPT', 'STYLE', 'NOSCRIPT', 'TEMPLATE', 'BR', 'WBR', 'OPTION'].includes(child.tagName)) continue;
      child.removeAttribute('MARK');
      if (child.textContent.trim() && unseen(child)) child.setAttribute('MARK', ''); else walk(child);
    }
  };
  if (document.body) walk(document.body);
  const kind = document.doctype ? '<!doctype html>' : '';
  return [location.href, (kind + document.documentElement.outerHTML).slice(0, LARGEST)];
})()
""".replace("MARK", MARK).replace("LARGEST", str(_LARGEST))


@dataclass(frozen=True)
class Rendered:
    """A page after its scripts ran. `picture`: a PNG of what is seen of it at first, or none."""

    url: str
    html: str
    status: int
    picture: bytes = b""
    cut: bool = False


def render(url: str, proxy: Proxy, deadline: float, stop: threading.Event, *, picture: bool = False) -> Rendered:
    """Render an address (canonical) through `proxy`. `deadline` is of time.monotonic(). ToolError where the sandbox
    cannot be had; Refused or ValueError says why the page cannot."""
    chromium, bwrap = programs()
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise ToolError("playwright is not installed, which drives Chromium", "pip install 'twofile[tools]'") from None

    with tempfile.TemporaryDirectory(prefix="twofile-chromium-") as folder:
        wrapper = _wrapper(Path(folder), chromium, bwrap, proxy.path)
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(Path(folder) / "pid", deadline, stop, done), daemon=True)
        watch.start()
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=str(wrapper), args=_FLAGS, env={}, chromium_sandbox=False,
                    handle_sigint=False, handle_sigterm=False, handle_sighup=False,
                    timeout=_left(deadline, 20_000),
                )  # fmt: skip
                try:
                    return _visit(browser, url, proxy, deadline, picture)
                finally:
                    browser.close()
        except Error as error:
            if time.monotonic() >= deadline or stop.is_set():
                raise ValueError(f"{url} took too long to render") from None
            if refused := about_pages(proxy.refusals):
                raise Refused(refused[0].why) from None
            raise ValueError(f"{url} cannot be rendered ({_short(str(error))})") from None
        finally:
            done.set()
            watch.join()
            _end(Path(folder) / "pid")


def _visit(browser: Any, url: str, proxy: Proxy, deadline: float, picture: bool) -> Rendered:
    context = browser.new_context(
        viewport=_SIZE, accept_downloads=False, service_workers="block", permissions=[], locale="en-GB"
    )
    page = context.new_page()
    page.on("dialog", lambda dialog: dialog.dismiss())
    context.on("page", lambda other: other.close() if other is not page else None)
    answer = page.goto(url, wait_until="domcontentloaded", timeout=_left(deadline, 30_000))
    with suppress(Exception):  # what loads for ever is read as it is
        page.wait_for_load_state("networkidle", timeout=_left(deadline, 4_000))
    session = context.new_cdp_session(page)
    frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "reader"})["executionContextId"]
    asked = {"expression": _SNAPSHOT, "contextId": world, "returnByValue": True, "timeout": _left(deadline, 8_000)}
    found = session.send("Runtime.evaluate", asked)
    shown = found.get("result", {}).get("value")
    if not isinstance(shown, list):
        raise ValueError(f"{url} cannot be read after it was rendered")
    where, html = str(shown[0]), str(shown[1])  # of one moment: a page may be on its way
    try:
        at = place(where)
    except Refused:
        raise Refused(f"{url} leads elsewhere than to the web ({where[:60]})") from None
    for one in proxy.refusals:
        if (one.host, one.port) == (at.host, at.port):  # what is shown is the proxy's own answer
            raise Refused(one.why)
    seen = page.screenshot(type="png", timeout=_left(deadline, 8_000), animations="disabled") if picture else b""
    return Rendered(where, html, answer.status if answer else 0, seen, len(html) >= _LARGEST)


def about_pages(refusals: Iterable[Refusal]) -> list[Refusal]:
    """What was refused to pages, without what Chromium asks for by itself."""
    return [one for one in refusals if one.host not in _ITS_OWN]


def programs() -> tuple[str, str]:
    """Where Chromium and bubblewrap are. ToolError where either is missing, or does not work."""
    chromium = next(filter(None, map(shutil.which, _NAMES)), None)
    bwrap = shutil.which("bwrap")
    if chromium is None or bwrap is None:
        missing = " and ".join(n for n, at in (("bubblewrap", bwrap), ("chromium", chromium)) if at is None)
        raise ToolError(f"a page cannot be rendered without {missing}", _INSTALL)
    probe = [bwrap, "--unshare-all", *system(), "/usr/bin/true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=10)
    if done.returncode != 0:
        raise ToolError(f"bubblewrap cannot make a sandbox here: {done.stderr.strip()[:200]}", _INSTALL)
    return chromium, bwrap


def _wrapper(folder: Path, chromium: str, bwrap: str, socket: Path) -> Path:
    """A program that is Chromium in its sandbox; writes its process id beside itself."""
    (folder / "policy").mkdir()
    (folder / "policy" / "policy.json").write_text(json.dumps(_POLICY))
    python = os.path.realpath(sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    forward = Path(__file__).with_name("forward.py")
    command = [
        bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        *system(), "--proc", "/proc", "--dev", "/dev",
        *(part for name in ("fonts", "ld.so.cache", "alternatives", "chromium.d", "ssl/certs", "ca-certificates")
          for part in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")),
        *(() if prefix.startswith("/usr/") or prefix == "/usr" else ("--ro-bind", prefix, prefix)),
        "--size", str(1 << 29), "--tmpfs", "/tmp", "--size", str(1 << 28), "--tmpfs", "/home",
        "--setenv", "HOME", "/home", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LANG", "C.UTF-8",
        "--ro-bind", str(folder / "policy"), "/etc/chromium/policies/managed",
        "--ro-bind", str(folder / "policy"), "/etc/opt/chrome/policies/managed",
        "--ro-bind", str(socket), "/run/proxy.sock", "--ro-bind", str(forward), "/run/forward.py", "--chdir", "/tmp",
        "--", python, "-I", "-S", "/run/forward.py", str(_PORT), "/run/proxy.sock", chromium,
    ]  # fmt: skip
    wrapper = folder / "chromium"
    wrapper.write_text(
        f'#!/bin/sh\necho $$ > {quote(str(folder / "pid"))}\nexec {" ".join(map(quote, command))} "$@"\n'
    )
    wrapper.chmod(0o700)
    return wrapper


def _watch(pid: Path, deadline: float, stop: threading.Event, done: threading.Event) -> None:
    """End the sandbox when its time is over, or nobody waits for it: a page may hang what drives it."""
    while not done.wait(0.1):
        if stop.is_set() or time.monotonic() > deadline:
            _end(pid)


def _end(pid: Path) -> None:
    """Kill the sandbox: with bubblewrap go its namespaces and all that is in them."""
    with suppress(OSError, ValueError):
        number = int(pid.read_text())
        if str(pid.parent).encode() in Path(f"/proc/{number}/cmdline").read_bytes():  # not another that has its number
            os.kill(number, signal.SIGKILL)


def _left(deadline: float, most: float) -> float:
    """Milliseconds until the deadline, at most so many."""
    return max(1.0, min(most, (deadline - time.monotonic()) * 1000))


def _short(said: str) -> str:
    return said.partition("\n")[0][:200]
