"""What answers a call of the model: a driver, and how it is run so that nothing it does hurts the process.

A driver says its name, what it is for, the JSON Schema of its arguments, which capabilities a call needs, and whether
running it twice does harm. `run_driver` runs it in a thread of its own, with a limit of time and of output; a driver
that raises, never comes back, gives no UTF-8 or gives 100 MB is an error that the model and the person can read, and
the process lives. What it cannot contain is a driver that crashes the interpreter or starves it: one that runs what it
does not trust does so in a process of its own. A thread that never comes back is left to itself.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llguidance import LLMatcher

from twofile.errors import KernelError
from twofile.kernel.label import Label

__all__ = ["Context", "Driver", "Drivers", "Outcome", "Part", "image", "run_driver", "text"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

Part = Mapping[str, Any]
"""Something that a driver gives: {"type": "text", "text": ...}, or {"type": "image", "mime": ..., "data": bytes,
"about": what is seen, in words}, or another type that a later sense understands."""


def text(said: str) -> Part:
    """A part that is text."""
    return {"type": "text", "text": said}


def image(data: bytes, mime: str, about: str) -> Part:
    """A part that is a picture; the model reads `about` where it cannot see."""
    return {"type": "image", "mime": mime, "data": data, "about": about}


@dataclass(frozen=True)
class Context:
    """What a driver may know of the call that it answers. `wait` returns at once when the call is cancelled, True then;
    a driver that takes long looks at it."""

    process: int
    deadline: float  # of time.monotonic()
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds(self) -> float:
        """How long there is left."""
        return max(0.0, self.deadline - time.monotonic())

    def wait(self, seconds: float) -> bool:
        return self.cancelled.wait(min(seconds, self.seconds))


class Driver(Protocol):
    """A tool. `pure`: a call may be made twice, and has no effect but its result."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, Any]: ...

    @property
    def pure(self) -> bool: ...

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        """The capabilities that this call needs. ValueError for arguments that make no sense."""
        ...

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        """Answer. ValueError tells the model what is wrong with what it asked."""
        ...

    def label(self, arguments: Mapping[str, Any]) -> Label:
        """Where what it gives comes from, and who may read it."""
        ...


class Drivers:
    """The drivers that there are, by name. KernelError for one that cannot be: a wrong name or schema."""

    def __init__(self, drivers: Iterable[Driver] = ()) -> None:
        self._drivers: dict[str, Driver] = {}
        for driver in drivers:
            self.add(driver)

    def add(self, driver: Driver) -> None:
        """Make a driver known."""
        if not isinstance(driver.name, str) or not _NAME.fullmatch(driver.name):
            raise KernelError(f"a driver cannot have the name {driver.name!r}", "letters, digits and _ . -")
        if driver.name in self._drivers:
            raise KernelError(f"there is a driver {driver.name} already")
        try:
            if driver.schema.get("type") != "object":
                raise ValueError("its type is not object")
            wrong = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(driver.schema)))
        except (ValueError, TypeError, AttributeError) as error:
            wrong = str(error)
        if wrong:
            raise KernelError(f"the schema of {driver.name} cannot be used: {wrong.strip()}", "mend the driver")
        self._drivers[driver.name] = driver

    def __contains__(self, name: str) -> bool:
        return name in self._drivers

    def __getitem__(self, name: str) -> Driver:
        """KernelError where there is none of this name."""
        if name not in self._drivers:
            raise KernelError(f"there is no tool {name!r}; there are: {', '.join(self._drivers) or 'none'}")
        return self._drivers[name]

    @property
    def names(self) -> list[str]:
        return list(self._drivers)

    def tools(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """As chat templates show them."""
        found = []
        for name in names:
            driver = self[name]
            shape = {"name": driver.name, "description": driver.about, "parameters": dict(driver.schema)}
            found.append({"type": "function", "function": shape})
        return found


@dataclass(frozen=True)
class Outcome:
    """What came of a call. `error`: it went wrong, and the parts say how; `cut`: there was more than is kept."""

    parts: tuple[Part, ...]
    label: Label
    error: bool = False
    cut: bool = False
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """What of it is text."""
        return "".join(part["text"] if part["type"] == "text" else _named(part) for part in self.parts)

    @property
    def images(self) -> list[Part]:
        """What of it is pictures."""
        return [part for part in self.parts if part["type"] == "image"]


def run_driver(
    driver: Driver,
    arguments: Mapping[str, Any],
    context: Context,
    *,
    most: int = 1 << 20,
    pictures: int = 1 << 23,
    poll: Callable[[], bool] | None = None,
) -> Outcome:
    """Run a call to its end, its deadline, or until `poll`, asked now and then, says that nobody wants it any more.
    `most`: bytes of text that are kept, `pictures`: of pictures. Never raises for what the driver does."""
    label = Label.of(f"tool:{driver.name}")
    box = _Box(most, pictures)
    start = time.monotonic()

    def work() -> None:
        try:
            box.label = driver.label(arguments)
            for part in _parts(driver.run(arguments, context)):
                if context.cancelled.is_set() or not box.take(part):
                    break
        except BaseException as error:  # a driver's failure is its own, SystemExit too
            box.failed = error
        finally:
            box.done.set()

    def ended(words: str) -> Outcome:
        return Outcome((text(f"error: {driver.name} {words}"),), label, True, False, time.monotonic() - start)

    if context.cancelled.is_set() or (poll is not None and poll()):
        return ended("was cancelled before it began")
    thread = threading.Thread(target=work, name=f"twofile-driver-{driver.name}", daemon=True)
    thread.start()
    try:
        while not box.done.wait(min(0.05, max(0.001, context.seconds))) and context.seconds > 0:
            if context.cancelled.is_set() or (poll is not None and poll()):
                context.cancelled.set()
                return ended("was cancelled")
    except BaseException:  # nobody waits for it any more
        context.cancelled.set()
        raise
    if context.seconds <= 0:  # also where it came to its end by its own wait for the deadline
        context.cancelled.set()
        return ended(f"took longer than {time.monotonic() - start:.0f} s")
    took = time.monotonic() - start
    if box.failed is not None:
        words = str(box.failed) if isinstance(box.failed, ValueError | KernelError) else _failure(box.failed)
        return Outcome((*box.parts, text(f"error: {words}")), box.label or label, True, box.cut, took)
    parts = (*box.parts, text(f"\n[there was more than {most:,} bytes]")) if box.cut else tuple(box.parts)
    return Outcome(parts, box.label or label, False, box.cut, took)


class _Box:
    """What a driver has given so far, up to a limit."""

    def __init__(self, most: int, pictures: int) -> None:
        self.left, self.pictures, self.cut = most, pictures, False
        self.parts: list[Part] = []
        self.label: Label | None = None
        self.failed: BaseException | None = None
        self.done = threading.Event()

    def take(self, part: Part) -> bool:
        """Keep a part, or as much of it as there is room for; whether there is room for more."""
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise TypeError("it gave something that is no part: a part has a type")
        if part["type"] == "image":
            if not isinstance(data := part.get("data"), bytes) or not isinstance(part.get("about"), str):
                raise TypeError("it gave a picture without data or words")
            if len(data) > self.pictures:
                self.cut = True
                return self.take(text(f"[a picture of {len(data):,} bytes, which is too large: {part['about']}]"))
            self.pictures -= len(data)
            self.parts.append(part)
            return True
        if part["type"] != "text":
            size = len(json.dumps(part, default=str))
            if size > self.left:
                self.cut = True
                return False
            self.left -= size
            self.parts.append(part)
            return True
        raw = str(part.get("text", ""))[: self.left + 1].encode("utf-8", "replace")
        if len(raw) > self.left:
            raw, self.cut = raw[: self.left], True
        self.left -= len(raw)
        if raw:
            self.parts.append(text(raw.decode("utf-8", "ignore" if self.cut else "replace")))
        return not self.cut


def _parts(given: Iterable[Part | str | bytes]) -> Iterable[Part]:
    if isinstance(given, str | bytes):
        given = (given,)
    for one in given:
        if isinstance(one, bytes):
            yield text(one.decode("utf-8", "replace"))
        elif isinstance(one, str):
            yield text(one)
        else:
            yield one


def _named(part: Part) -> str:
    """What is read in place of a part that is no text."""
    return f"[{part['type']}: {part['about']}]" if part.get("about") else f"[{part['type']}]"


def _failure(error: BaseException) -> str:
    return f"the tool failed ({type(error).__name__}: {str(error)[:300]})"
