"""What the pages work on: one kernel with the user's tools, turns under way, jobs, uploads, the models here."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twofile.engine.engine import Engine
from twofile.errors import TwofileError
from twofile.kernel.conversations import Conversations
from twofile.kernel.kernel import RECALL, Kernel
from twofile.kernel.process import Process
from twofile.params import names
from twofile.params.adapter import Adapter
from twofile.params.parameters import Parameters
from twofile.serve.label.store import Store
from twofile.serve.pages.jobs import Jobs
from twofile.serve.pages.turns import Turns
from twofile.tools.toolbox import BUILT_IN, Toolbox

__all__ = ["LARGEST", "Desk", "Model", "Upload"]

LARGEST = 200 << 20
"""Bytes of a file that is uploaded."""

_MOST = 32  # processes that are open at once
_KEPT = 2 * 86400.0  # seconds that an upload is kept
_SIGNS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg", b"GIF87a": "gif", b"GIF89a": "gif", b"%PDF-": "pdf"}


@dataclass(frozen=True)
class Model:
    """A parameters file of this machine. `where`: "bundled", "local" or "pulled"."""

    name: str
    path: Path
    where: Literal["bundled", "local", "pulled"]
    bytes: int


@dataclass(frozen=True)
class Upload:
    """A file that a page sent. `kind`, by its content: png, jpg, gif, webp, pdf, docx, gguf or text."""

    id: str
    path: Path
    name: str
    kind: str
    bytes: int


class Desk:
    """A context manager; closing it stops the turns and lets go of the engines. Jobs go on."""

    def __init__(self, kernel: Kernel, box: Toolbox, home: Path, served: Iterable[Path] = ()) -> None:
        """`served`: the models whose engines others use, too."""
        self.kernel, self.box, self.home, self.served = kernel, box, home, frozenset(served)
        self.conversations = Conversations(kernel.log)
        self.turns, self.jobs = Turns(), Jobs(home / "jobs")
        self._open: dict[int, Process] = {}
        self._adapters: dict[tuple[Path, int], bool | None] = {}
        self._templates: dict[tuple[Path, int], str] = {}
        self._labels: Store | None = None
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._stack.callback(self.turns.close)
        self._old_uploads()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def models(self) -> list[Model]:
        """The models on this machine, those of the user first."""
        found: list[Model] = []
        for where, known in (("local", names.local()), ("pulled", names.pulled()), ("bundled", names.bundled())):
            for name, path in known.items():
                if self._is_adapter(path) is False:
                    found.append(Model(name, path, where, path.stat().st_size))  # type: ignore[arg-type]
        return found

    def adapters(self) -> dict[str, Path]:
        """The adapters (LoRA) on this machine, by name."""
        return {name: path for name, path in (names.local() | names.pulled()).items() if self._is_adapter(path)}

    def _is_adapter(self, path: Path) -> bool | None:
        """None for a file that is damaged, or has just gone. Looked at once, while it stays as it is."""
        try:
            key = (path, path.stat().st_mtime_ns)
            if key not in self._adapters:
                self._adapters[key] = Adapter.is_in(path)
            return self._adapters[key]
        except (TwofileError, OSError):
            return None

    def tools(self) -> dict[str, str]:
        """The tools that work here, each with what it is for."""
        found = {}
        for name in BUILT_IN:
            try:
                found[name] = self.box.driver(name).about
            except TwofileError:
                continue  # it lacks what it works with
        return found | {RECALL: "Brings back what left the window."}

    def process(self, pid: int) -> Process:
        """A process, opened once, with its tools. KernelError where there is none. Opening a model takes its time, in
        which others of other models go on."""
        with self._lock:
            if (found := self._open.get(pid)) is not None:
                return found
        begun = self.kernel.beginning(pid)
        self.kernel.image(str(begun["model"]), str(begun.get("adapter", "")))
        with self._lock:
            if pid not in self._open:
                self._drivers(begun.get("tools", ()))
                self._keep(self.kernel.open(pid))
            return self._open[pid]

    def _keep(self, process: Process) -> None:
        """Have a process open; of many, those that were opened long ago and say nothing are let go of."""
        self._open[process.pid] = process
        for pid in list(self._open)[: max(0, len(self._open) - _MOST)]:
            if self.turns.speaking(pid) is None and pid != process.pid:
                del self._open[pid]
                self.turns.forget([pid])

    def _drivers(self, wanted: Any) -> None:
        for name in wanted:
            if name != RECALL and name not in self.kernel.drivers:
                self.kernel.drivers.add(self.box.driver(str(name)))

    def spawn(self, model: Path, system: str, tools: list[str], adapter: str = "") -> Process:
        """A new conversation's process; what its tools may do is asked for. TwofileError, and nothing is begun, where
        the model cannot be opened."""
        self.kernel.image(str(model), adapter)
        with self._lock:
            self._drivers(tools)
            process = self.kernel.spawn(str(model), system, tools, self.limit(tools), adapter=adapter)
            self._keep(process)
            return process

    @staticmethod
    def limit(tools: Sequence[str]) -> list[str]:
        """What a process with tools can be granted: all that a person allows when it is asked for."""
        return ["net:*", "fs:read:*", "fs:write:*", "py:exec", "mcp:*"] if tools else []

    def template(self, model: Path) -> str:
        """The chat template of a model, "" for a base model."""
        key = (model, model.stat().st_mtime_ns) if model.is_file() else (model, 0)
        if key not in self._templates:
            try:
                with Parameters.open(model) as parameters:
                    self._templates[key] = parameters.vocabulary.chat_template or ""
            except (TwofileError, OSError):
                return ""
        return self._templates[key]

    @property
    def labels(self) -> Store:
        """The user's own labels."""
        if self._labels is None:
            self._labels = Store(self.home / "labels.db")
            self._stack.callback(self._labels.close)
        return self._labels

    def fork(self, pid: int, upto: int, settings: Mapping[str, Any] | None = None) -> Process:
        """A branch of a process that has its events up to one, and goes on with these settings (`Kernel.change`)."""
        event = self.kernel.log.fork(pid, upto)
        begun = self.kernel.beginning(event.pid)
        if changed := {name: value for name, value in (settings or {}).items() if begun.get(name) != value}:
            self.change(event.pid, **changed)
        return self.process(event.pid)

    def change(self, pid: int, **what: Any) -> None:
        """Change what a process goes on with (`Kernel.change`)."""
        with self._lock:
            self._drivers(what.get("tools", ()))
            self.kernel.change(pid, **what)
            self._open.pop(pid, None)

    def forget(self, pid: int) -> None:
        """Delete a conversation. KernelError while it speaks."""
        family = self.conversations.family(pid)
        self.conversations.forget(pid)
        with self._lock:
            for one in family:
                self._open.pop(one, None)
        self.turns.forget(family)

    def release(self, model: Path) -> None:
        """Let go of a model's engine. TwofileError while it speaks."""
        with self._lock:
            if model in self.served:
                raise TwofileError(f"{model.stem} is served to other programs", "leave its name out of twofile serve")
            users = [pid for pid, process in self._open.items() if Path(process.view.model) == model]
            if any(self.turns.speaking(pid) for pid in users):
                raise TwofileError("a conversation is speaking with this model", "stop it first")
            for pid in users:
                self._open.pop(pid)
            self.kernel.release(str(model))

    def engine(self, model: Path) -> Engine:
        """The engine of a model, shared by all who ask."""
        engine: Engine = self.kernel.image(str(model)).engine
        return engine

    def store(self, name: str, write: Callable[[Path], None]) -> Upload:
        """Keep what a page sends: `write` puts it into a file. TwofileError for what is neither text, a picture, PDF, a
        Word file nor a parameters file."""
        folder = self.home / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".new{time.monotonic_ns()}"
        try:
            write(temporary)
            kind = _kind(temporary)
            id = hashlib.sha256(temporary.read_bytes()).hexdigest()[:16] + "." + kind
            shown = re.sub(r"[^\w .+-]", "_", Path(name.replace("\\", "/")).name)[:80].lstrip(".") or "file"
            temporary.replace(folder / id)
        finally:
            temporary.unlink(missing_ok=True)
        return Upload(id, folder / id, shown, kind, (folder / id).stat().st_size)

    def _old_uploads(self) -> None:
        for path in (self.home / "uploads").glob("*"):
            if time.time() - path.stat().st_mtime > _KEPT:
                path.unlink(missing_ok=True)

    def room(self) -> tuple[int, int]:
        """Bytes of memory that are free (all of it, where the system does not say), and of the disk of the models."""
        folder = next(path for path in (self.home, *self.home.parents) if path.exists())
        try:
            lines = Path("/proc/meminfo").read_text().splitlines()
            free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
        except (OSError, ValueError, StopIteration):
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return free, shutil.disk_usage(folder).free


def _kind(path: Path) -> str:
    """What a file is, by its content. TwofileError for what is not taken."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    for sign, kind in _SIGNS.items():
        if head.startswith(sign):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:4] == b"GGUF":
        return "gguf"
    if head[:4] == b"PK\x03\x04" and b"word/" in path.read_bytes():
        return "docx"
    if not head:
        raise TwofileError("the file is empty")
    try:
        head[:-4].decode() if len(head) > 4 else head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 8:
            raise TwofileError("the file is neither text, a picture, PDF nor Word") from error
    if b"\0" in head:
        raise TwofileError("the file is neither text, a picture, PDF nor Word")
    return "text"
