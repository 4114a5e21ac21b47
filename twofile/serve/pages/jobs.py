"""Jobs: commands of twofile in processes of their own, which outlive the page and the server that began them.

A job is a folder: `job.json` says what it is, `out` and `err` have what it printed, `status` its exit status once it is
over. While it runs it holds a lock on `lock`, so a server that was started again knows what still runs, and a number
that the system gave to another process since is never taken for it. Stopping is an interrupt, as of Ctrl-C: what trains
saves and leaves; the same job can be begun again, then with --resume where it trains. Of several that begin a job of
one name at once, in this process or in others, one does. Cost: a shell a job, 1 MB, beside what the command takes.
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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from twofile.errors import TwofileError
from twofile.params.atomic import read_json, write_json

__all__ = ["Job", "Jobs"]

State = Literal["running", "done", "failed", "stopped"]

_SCRIPT = (
    'trap : INT; echo $$ > pid.new; mv pid.new pid; "$@"; status=$?; echo $status > status.new; mv status.new status'
)
_LISTEN = (
    "import os, signal, sys; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a server may ignore it
    "os.path.exists('stop') and sys.exit(130); "  # an interrupt that came before nobody heard
)
_RUN = "import runpy; runpy.run_module('twofile', run_name='__main__', alter_sys=True)"
_TAIL = 1 << 16  # bytes of what a job printed that are looked at
_NAME = re.compile(r"[\w+-][\w.+-]{0,99}")
_LONGEST = 200  # bytes of a name
_PATIENCE = 2.0  # seconds that a job which has just begun has to say its number


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
        return _held(self.folder)

    @property
    def state(self) -> State:
        """How it stands: a job without a status that does not run was killed. What trains ends well when it is stopped,
        so whoever was asked to stop is "stopped"."""
        if self.running:
            return "running"
        status = self._status()
        if status in (None, 130) or (self.folder / "stop").exists():
            return "stopped"
        return "done" if status == 0 else "failed"

    @property
    def ended(self) -> float | None:
        """When it was over, seconds since 1970; None while it runs."""
        if self.running:
            return None
        try:
            return next(
                (self.folder / name).stat().st_mtime
                for name in ("status", "err", "job.json")
                if (self.folder / name).exists()
            )
        except (OSError, StopIteration):
            return self.begun

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
        if self._status() == 137:
            return "the system ended it, as it does where memory runs short"
        lines = [line for line in self.printed().splitlines() if line.strip()]
        at = next((i for i in reversed(range(len(lines))) if lines[i].startswith(("error:", "Error:"))), len(lines) - 3)
        return " ".join(lines[max(0, at) :]).removeprefix("error: ") or f"it ended with status {self._status()}"

    @property
    def command(self) -> str:
        """As a person would type it."""
        return shlex.join(["twofile", *self.argv])

    def stop(self) -> None:
        """Interrupt it, as Ctrl-C does; nothing where it does not run."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once: nothing is saved."""
        self._end(signal.SIGKILL)

    def _end(self, what: signal.Signals) -> None:
        until = time.monotonic() + _PATIENCE
        while self.running:
            with suppress(OSError, ValueError):  # it has just begun, or just ended
                number = int((self.folder / "pid").read_text())
                (self.folder / "stop").touch()
                os.killpg(number, what)
                return
            if time.monotonic() > until:
                return
            time.sleep(0.02)

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
        self.folder = folder.absolute()

    def all(self) -> list[Job]:
        """Every job, the newest first; half a job, which a power cut left, is none."""
        found = []
        for path in self.folder.glob("*/job.json"):
            with suppress(TwofileError, KeyError, TypeError, ValueError):
                found.append(_job(path.parent, read_json(path, TwofileError, "")))
        return sorted(found, key=lambda job: -job.begun)

    def get(self, kind: str, name: str) -> Job | None:
        """The job of a kind that makes something, if there is one."""
        return next((job for job in self.all() if (job.kind, job.name) == (kind, name)), None)

    def begin(self, kind: str, name: str, argv: Sequence[str], about: Mapping[str, Any] | None = None) -> Job:
        """Begin a job, in the place of an earlier one of the same kind and name. TwofileError where that runs, or the
        name is none."""
        if not _NAME.fullmatch(name) or len(name.encode()) > _LONGEST:
            raise TwofileError(f"{name!r} cannot be a name", "letters, digits and . _ + - only, and not a dot first")
        folder = self.folder / f"{kind}-{name}"
        with self._alone():
            if _held(folder):
                raise TwofileError(f"{name} is being made", "stop it first")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            job = Job(folder, kind, name, tuple(argv), time.time(), dict(about or {}))
            with (
                (folder / "lock").open("wb") as lock,
                (folder / "out").open("wb") as out,
                (folder / "err").open("wb") as err,
            ):
                fcntl.flock(lock, fcntl.LOCK_EX)
                told = {key: value for key, value in vars(job).items() if key != "folder"}
                write_json(folder / "job.json", {**told, "argv": list(argv)})
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _SCRIPT, "sh", sys.executable, "-c", _LISTEN + _RUN, *argv],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, start_new_session=True,
                    pass_fds=[lock.fileno()], env=_environment(),
                )  # fmt: skip
        _reap(process)
        return job

    def forget(self, job: Job) -> None:
        """Remove a job's folder; what it made stays. TwofileError while it runs."""
        with self._alone():
            if job.running:
                raise TwofileError(f"{job.name} is being made", "stop it first")
            shutil.rmtree(job.folder, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time, of all threads and processes that begin and forget jobs here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".begin").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield


def _held(folder: Path) -> bool:
    """Whether somebody holds the lock of a job's folder. Who asks shares it, so that two who ask do not see each
    other."""
    try:
        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _job(folder: Path, table: Mapping[str, Any]) -> Job:
    """A job as its file has it. KeyError, TypeError or ValueError for what is none."""
    argv, about = table["argv"], table["about"]
    if not isinstance(argv, list) or not isinstance(about, dict):
        raise TypeError("no job")
    kind, name, begun = str(table["kind"]), str(table["name"]), float(table["begun"])
    return Job(folder, kind, name, tuple(map(str, argv)), begun, about)


def _environment() -> dict[str, str]:
    """As of this process; a home that was named from here is found from the job's folder."""
    home = os.environ.get("TWOFILE_HOME")
    return dict(os.environ) | ({"TWOFILE_HOME": str(Path(home).expanduser().absolute())} if home else {})


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process in a thread, so that nothing is left of it where it ends before this one."""
    threading.Thread(target=process.wait, daemon=True).start()
