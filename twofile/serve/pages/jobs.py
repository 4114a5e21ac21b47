"""Jobs: commands of twofile in processes of their own, which outlive the page and the server that began them.

A job is a folder: `job.json` says what it is, `out` and `err` have what it printed, `status` its exit status once it is
over. While it runs it holds a lock on `lock`, so a server that was started again knows what still runs, and a number
that the system gave to another process since is never taken for it. Stopping is an interrupt, as of Ctrl-C: what trains
saves and leaves; the same job can be begun again, then with --resume where it trains.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from twofile.errors import TwofileError
from twofile.params.atomic import read_json, write_json

__all__ = ["Job", "Jobs"]

State = Literal["running", "done", "failed", "stopped"]

_SCRIPT = 'trap : INT; "$@"; status=$?; echo $status > status.new; mv status.new status'
_TAIL = 1 << 16  # bytes of what a job printed that are looked at
_NAME = re.compile(r"[\w+-][\w.+-]{0,99}")


@dataclass(frozen=True)
class Job:
    """`kind`: what it does, a command's name; `name`: of what it makes; `about`: what else its page wants to know."""

    folder: Path
    kind: str
    name: str
    argv: tuple[str, ...]
    begun: float
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether any of its processes is there."""
        try:
            with (self.folder / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def state(self) -> State:
        """How it stands: a job without a status that does not run was killed."""
        if self.running:
            return "running"
        status = self._status()
        if status == 0:
            return "done"
        return "stopped" if status in (None, 130) or (self.folder / "stop").exists() else "failed"

    def _status(self) -> int | None:
        try:
            return int((self.folder / "status").read_text())
        except (OSError, ValueError):
            return None

    def printed(self, name: Literal["out", "err"] = "err") -> str:
        """The end of what it printed."""
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    @property
    def problem(self) -> str:
        """What went wrong, in the words that it ended with; "" where nothing did."""
        if self.state != "failed":
            return ""
        lines = [line for line in self.printed().splitlines() if line.strip()]
        at = next((i for i in reversed(range(len(lines))) if lines[i].startswith(("error:", "Error:"))), len(lines) - 3)
        return " ".join(lines[max(0, at) :]).removeprefix("error: ") or f"it ended with status {self._status()}"

    @property
    def command(self) -> str:
        """As a person would type it."""
        return shlex.join(["twofile", *self.argv])

    def stop(self) -> None:
        """Interrupt it, as Ctrl-C does; nothing where it does not run."""
        (self.folder / "stop").touch()
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once: nothing is saved."""
        (self.folder / "stop").touch()
        self._signal(signal.SIGKILL)

    def _signal(self, what: signal.Signals) -> None:
        if self.running:
            with suppress(OSError, ValueError):  # it has just ended
                os.killpg(int((self.folder / "pid").read_text()), what)

    def wait(self, seconds: float) -> bool:
        """Whether it is over within so many seconds."""
        until = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


class Jobs:
    """The jobs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        found = []
        for path in self.folder.glob("*/job.json"):
            try:
                table = read_json(path, TwofileError, "")
                given = {name: table[name] for name in ("kind", "name", "begun", "about")}
                found.append(Job(path.parent, argv=tuple(table["argv"]), **given))
            except (TwofileError, KeyError, TypeError):
                continue  # half a job
        return sorted(found, key=lambda job: -job.begun)

    def get(self, kind: str, name: str) -> Job | None:
        """The job of a kind that makes something, if there is one."""
        return next((job for job in self.all() if (job.kind, job.name) == (kind, name)), None)

    def begin(self, kind: str, name: str, argv: Sequence[str], about: Mapping[str, Any] | None = None) -> Job:
        """Begin a job, in the place of an earlier one of the same kind and name. TwofileError where that runs, or the
        name is none."""
        if not _NAME.fullmatch(name):
            raise TwofileError(f"{name!r} cannot be a name", "letters, digits and . _ + - only, and not a dot first")
        folder = self.folder / f"{kind}-{name}"
        if (old := self.get(kind, name)) is not None and old.running:
            raise TwofileError(f"{name} is being made", "stop it first")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        job = Job(folder, kind, name, tuple(argv), time.time(), dict(about or {}))
        write_json(folder / "job.json", {**{k: v for k, v in vars(job).items() if k != "folder"}, "argv": list(argv)})
        with (
            (folder / "lock").open("wb") as lock,
            (folder / "out").open("wb") as out,
            (folder / "err").open("wb") as err,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "sh", sys.executable, "-m", "twofile", *argv],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, start_new_session=True,
                pass_fds=[lock.fileno()],
            )  # fmt: skip
        (folder / "pid").write_text(str(process.pid))
        _reap(process)
        return job

    def forget(self, job: Job) -> None:
        """Remove a job's folder; what it made stays. TwofileError while it runs."""
        if job.running:
            raise TwofileError(f"{job.name} is being made", "stop it first")
        shutil.rmtree(job.folder, ignore_errors=True)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process in a thread, so that nothing is left of it where it ends before this one."""
    import threading

    threading.Thread(target=process.wait, daemon=True).start()
