"""How a program is shut in on this machine: bubblewrap, or else Landlock. Neither: nothing is run.

Bubblewrap: namespaces of its own for processes, network, mounts, IPC and names (and users, where an ordinary user calls
it; root gives up being root instead, since the limit of processes does not hold for root), a read-only system of which
it sees little, memory as disk, of a size. Landlock: the same file system, of which it may open little, no sockets, no
signals to others; what Landlock does not hold, a filter of system calls denies. Both: no new rights, no capabilities, a
cleared environment, a session of its own, limits of memory, processes and files, a filter, a keeper outside.

Guarantee: what `which` gives was seen to work on this machine: it is tried, with a program that tries to get out.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twofile.errors import ToolError
from twofile.tools.sandbox import landlock, seccomp
from twofile.tools.sandbox.enter import Entrance
from twofile.tools.sandbox.keeper import Charge

__all__ = ["HINT", "LIMITS", "Limits", "Place", "Tier", "prepare", "system"]

Tier = Literal["bubblewrap", "landlock"]

HINT = "apt-get install bubblewrap, or a Linux of 6.2 or newer with Landlock"

_HERE = Path(__file__).resolve().parent
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_USERS = range(0x40000000, 0x7FFF0000)  # where no system has any


@dataclass(frozen=True)
class Limits:
    """Of a sandbox: bytes of memory of all its processes together, bytes of its disk, how many processes there may be
    (threads count), seconds of the start."""

    memory: int = 1 << 30
    disk: int = 1 << 27
    processes: int = 64
    start: float = 20.0


LIMITS = Limits()


@dataclass(frozen=True)
class Place:
    """A sandbox that can be started: what its keeper is told. `folder`: of the host, to be deleted afterwards."""

    charge: Charge
    folder: Path | None


def prepare(tier: Tier, fds: tuple[int, int], limits: Limits, read: Iterable[Path] = ()) -> Place:
    """How to run `worker` in a sandbox. `fds`: where it hears and answers; `read`: folders and files that it may read,
    at their own paths. ToolError where this machine lacks what it takes."""
    if not seccomp.known():
        raise ToolError("there is no sandbox for this kind of processor", "x86-64 and arm64 have one")
    root = os.geteuid() == 0
    user = secrets.choice(_USERS) if root and _maps(_USERS[-1]) else 65534 if root else None
    seen = [*map(str, read)]
    interpreter = tuple(dict.fromkeys(map(os.path.realpath, (sys.prefix, sys.base_prefix, *_links(sys.executable)))))
    enter = "import sys; sys.path.insert(0, sys.argv.pop(1)); from sandbox.enter import main; main()"
    if tier == "bubblewrap":
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise ToolError("bubblewrap is not installed", HINT)
        place, folder = "/run/twofile", None
        entrance = Entrance(user, False, True, (), (), 2 * limits.memory, limits.disk, limits.processes)
        outer = (bwrap, *_walls(root, limits, interpreter, seen, place))
        home, temporary = "/work", "/tmp"
    else:
        if (found := landlock.version()) < landlock.LEAST:
            raise ToolError(f"Landlock {landlock.LEAST} is needed, this system has {found or 'none'}", HINT)
        folder = Path(tempfile.mkdtemp(prefix="twofile-sandbox-"))
        for part in ("work", "tmp"):
            (folder / part).mkdir(mode=0o700)
            if user is not None:
                os.chown(folder / part, user, user)
        if user is not None:
            folder.chmod(0o711)
        (folder / "sandbox").symlink_to(_HERE)  # importing lists the folder, and this one has nothing else
        (folder / "bin").mkdir()
        (folder / "bin" / "fc-list").symlink_to("/bin/false")
        home, temporary, place = str(folder / "work"), str(folder / "tmp"), str(folder)
        search = user is not None and not all(_open_to_all(path) for path in (*interpreter, str(_HERE), *seen))
        shared = [path for path in (*_SYSTEM, *_SETTINGS) if os.path.exists(path)]
        entrance = Entrance(
            user, search, False, (*shared, *interpreter, str(_HERE), place, *seen), (home, temporary, *_DEVICES),
            2 * limits.memory, limits.disk, limits.processes + (_running(os.getuid()) if user is None else 0),
        )  # fmt: skip
        outer = ()
    environment = {
        "PATH": f"{place}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": home, "TMPDIR": temporary, "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg", "MPLCONFIGDIR": f"{temporary}/matplotlib", "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    python = (sys.executable, "-I", "-B", "-X", "utf8", "-c", enter, place, entrance.to_json(), *map(str, fds))
    charge = Charge((*outer, *python), environment, fds, limits.memory, str(folder or ""), limits.disk)
    return Place(charge, folder)


def system() -> list[str]:
    """Arguments of bubblewrap that show the system's programs, read-only."""
    made: list[str] = []
    for path in _SYSTEM:
        if os.path.islink(path):
            made += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            made += ["--ro-bind", path, path]
    return made


def _walls(root: bool, limits: Limits, interpreter: Iterable[str], read: Iterable[str], place: str) -> list[str]:
    """Arguments of bubblewrap."""
    made = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if root:  # the entrance becomes another user: it needs these rights, and has none after it
        made += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        made += ["--cap-add", "CAP_SETPCAP"]
    else:
        made += ["--unshare-user", "--cap-drop", "ALL"]
    made += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--proc", "/proc", "--dev", "/dev"]
    made += system()
    for path in _SETTINGS:
        made += ["--ro-bind-try", path, path]
    half = str(limits.disk // 2)
    for folder in ("/tmp", "/work", "/dev/shm"):
        made += ["--perms", "1777", "--size", half if folder != "/dev/shm" else str(1 << 24), "--tmpfs", folder]
    shown = [path for path in (*interpreter, *read) if not any(_within(path, one) for one in _SYSTEM)]
    above = {str(parent) for path in shown for parent in Path(path).parents}
    for folder in sorted(above - {"/", "/tmp", "/work", "/run", "/etc", "/dev", "/proc"}):
        if not any(_within(folder, path) for path in shown):
            made += ["--perms", "0755", "--dir", folder]  # bubblewrap's own are its user's alone
    for path in shown:
        made += ["--ro-bind", path, path]
    for folder in (place, f"{place}/bin"):
        made += ["--perms", "0755", "--dir", folder]
    made += ["--symlink", "/bin/false", f"{place}/bin/fc-list"]
    made += ["--ro-bind", str(_HERE), f"{place}/sandbox", "--remount-ro", "/dev", "--remount-ro", "/"]
    return [*made, "--chdir", "/work", "--"]


def _links(path: str) -> list[str]:
    """Folders of a program that is a link to a link, such as the interpreter of an environment."""
    found = []
    while os.path.islink(path):
        path = os.path.join(os.path.dirname(path), os.readlink(path))
        found.append(os.path.dirname(os.path.dirname(path)))
    return [one for one in found if one not in ("", "/")]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _open_to_all(path: str) -> bool:
    """Whether anybody may walk to it and read it."""
    try:
        steps = [Path(path), *Path(path).parents]
        return all(step.stat().st_mode & 0o005 == 0o005 or not step.is_dir() for step in steps)
    except OSError:
        return False


def _maps(user: int) -> bool:
    """Whether there is such a user here: in a container there may be fewer."""
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="utf-8").splitlines()
        return any(int(first) <= user < int(first) + int(count) for first, _, count in map(str.split, lines))
    except (OSError, ValueError):
        return False


def _running(user: int) -> int:
    """Threads that a user has now: the limit counts them, too."""
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == user:
                    found += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return found
