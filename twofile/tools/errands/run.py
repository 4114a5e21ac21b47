"""Runs errands: each in a process of the kernel, with the drivers of this room's floor, by a model or by its plan.

What is allowed is allowed here (the small web on loopback, programs in the sandbox), for nothing of anybody is within
reach: the kernel of an errand has its own log, and `strace` shows each step of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from twofile.engine.engine import Engine
from twofile.engine.sampler import Sampling
from twofile.kernel.driver import Context, Driver, Part
from twofile.kernel.kernel import Kernel
from twofile.kernel.process import Answer, Asking, Said
from twofile.tools.browser.addresses import Reach
from twofile.tools.browser.browser import Browser
from twofile.tools.browser.browser import Settings as Reading
from twofile.tools.calculator import Calculator
from twofile.tools.errands.errand import Errand
from twofile.tools.errands.script import Script
from twofile.tools.errands.site import Site
from twofile.tools.errands.world import World
from twofile.tools.python import Python
from twofile.tools.search.search import Search
from twofile.tools.search.web import SearXNG

__all__ = ["Done", "Office"]

_SCRIPT = "script"
_LIMIT = ("py:exec", "net:127.0.0.1")


class _Brief:
    """A driver with one of its arguments, and little said of it: the window of a small model is small, too."""

    def __init__(self, driver: Driver, argument: str, about: str = "", **fixed: Any) -> None:
        self.name, self.about, self.pure = driver.name, about or driver.about, driver.pure
        self.needs, self.label, self._driver, self._fixed = driver.needs, driver.label, driver, fixed
        properties = {argument: {"type": "string"}}
        self.schema: Mapping[str, Any] = {"type": "object", "properties": properties, "required": [argument]}

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        return self._driver.run({**arguments, **self._fixed}, context)


class _Roomy:
    """An engine with a larger window than it has: for a script, which reads nothing."""

    context_length = 1 << 14

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@dataclass(frozen=True)
class Done:
    """What an errand came to: the process that did it, its calls, its answer, files of its pictures."""

    process: int
    calls: tuple[str, ...]
    answer: str
    pictures: tuple[Path, ...]
    right: bool


class Office:
    """Where errands are run: a site, drivers and a kernel. A context manager. `log`: where the kernel keeps it."""

    def __init__(self, kernel: Kernel, site: Site, model: str) -> None:
        self.kernel, self.site, self.model = kernel, site, model

    @classmethod
    @contextmanager
    def open(
        cls, log: Path, model: str, opener: Callable[[str, str], Engine], world: World | None = None
    ) -> Iterator[Office]:
        """Open one. ToolError where there is no sandbox, at the first program."""
        with Site(world or World()) as site, httpx2.Client(trust_env=False) as client:
            python = Python()
            browser = Browser(Reading(Reach(frozenset({("127.0.0.1", site.port)}))))
            search = Search([SearXNG(client, site.address)])
            drivers = [
                _Brief(Calculator(), "expression"), _Brief(python, "code"), _Brief(search, "query", count=1),
                _Brief(browser, "url", "Reads a page of the web."),
            ]  # fmt: skip

            def opened(name: str, adapter: str) -> Any:
                return _Roomy(opener(model, adapter)) if name == _SCRIPT else opener(name, adapter)

            try:
                with Kernel(log, drivers, opened) as kernel:
                    yield cls(kernel, site, model)
            finally:
                python.close()

    def run(
        self,
        errand: Errand,
        scripted: bool,
        sampling: Sampling | None = None,
        said: Callable[[Said], Any] = lambda _: None,
    ) -> Done:
        """Run one, by its plan or by the model. `said`: hears each thing as it happens."""
        process = self.kernel.spawn(_SCRIPT if scripted else self.model, tools=errand.tools, limit=_LIMIT)
        results: list[str] = []
        if scripted:
            script = Script(errand.plan(), lambda: results)
            process.image = replace(process.image, turn=script.turn)
        calls: list[str] = []
        pictures: list[Path] = []
        answer = ""
        for one in process.say(errand.asked, _allowed, sampling):
            said(one)
            if one.kind == "call":
                calls.append(str(one.body["name"]))
            elif one.kind == "result":
                results.append(one.text)
                pictures += [self.kernel.log.kept(picture["name"]) for picture in one.body.get("images", ())]
            elif one.kind == "done":
                answer = one.text
        right = errand.right(answer, len(pictures)) and (scripted or len(calls) >= 1)
        return Done(process.pid, tuple(calls), answer, tuple(pictures), right)


def _allowed(asking: Asking) -> Answer:
    return Answer("allow", "process")
