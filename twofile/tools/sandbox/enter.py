"""The last step into a sandbox: give up rights, set limits, put on the filters, and become the worker.

Its arguments: the JSON of `Entrance`, then those of the worker. The order matters: the user is changed before the limit
of processes, which does not hold for root; Landlock and seccomp come last, since they forbid what the steps before them
do. Anything that fails ends it with a line on standard error and 97: nothing is run half contained.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from typing import NamedTuple

from . import landlock, seccomp

__all__ = ["REFUSED", "Entrance", "main"]

REFUSED = 97
"""The exit status of an entrance that failed."""

_READ_SEARCH = 2  # CAP_DAC_READ_SEARCH
_KEEP, _AMBIENT, _RAISE, _NO_NEW_PRIVILEGES, _DIE, _BOUNDING, _DUMPABLE = 8, 47, 2, 38, 1, 24, 4
_VERSION_3 = 0x20080522  # of capset


class Entrance(NamedTuple):
    """`user`: become this one, None: stay; `search`: keep the right to walk through folders of others, for an
    interpreter in one of them; `namespaces`: there are namespaces already, else Landlock holds `read` and `write`;
    sizes in bytes."""

    user: int | None
    search: bool
    namespaces: bool
    read: tuple[str, ...]
    write: tuple[str, ...]
    address_space: int
    file_size: int
    processes: int
    open_files: int = 256

    def to_json(self) -> str:
        return json.dumps(self._asdict())


def main() -> None:
    try:
        _enter(Entrance(**json.loads(sys.argv[1])))
        from . import worker
    except Exception as error:
        print(f"the sandbox cannot be entered: {error}", file=sys.stderr, flush=True)
        os._exit(REFUSED)
    del sys.path[0]  # where this was found
    worker.main(*map(int, sys.argv[2:]))


def _enter(given: Entrance) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not given.namespaces:
        if os.getsid(0) != os.getpid():
            os.setsid()
        libc.prctl(_DIE, 9, 0, 0, 0)  # with the keeper
    if given.user is not None:
        _become(libc, given.user, given.search)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, given.address_space),
        (resource.RLIMIT_FSIZE, given.file_size),
        (resource.RLIMIT_NOFILE, given.open_files),
        (resource.RLIMIT_NPROC, given.processes),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    found = landlock.SIGNALS if given.namespaces else landlock.restrict(given.read, given.write)
    # the name of the process is its own: signals to its own threads go by it
    filter_ = seccomp.program(given.namespaces, found >= landlock.SIGNALS, os.getpid())
    seccomp.install(filter_)


def _become(libc: ctypes.CDLL, user: int, search: bool) -> None:
    """Another user, for ever, without its groups and without rights, but for one where `search` says so."""
    for right in range(64):
        if right != _READ_SEARCH or not search:
            libc.prctl(_BOUNDING, right, 0, 0, 0)  # an error for those that there are not
    os.setgroups([])
    os.setresgid(user, user, user)
    if search and libc.prctl(_KEEP, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "capabilities cannot be kept")
    os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    bits = 1 << _READ_SEARCH if search else 0
    if libc.capset(header, (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capset")
    if search and libc.prctl(_AMBIENT, _RAISE, _READ_SEARCH, 0, 0):
        raise OSError(ctypes.get_errno(), "ambient capability")
    if os.getuid() != user or os.geteuid() != user:
        raise OSError("the user is not changed")
    libc.prctl(_DUMPABLE, 1, 0, 0, 0)  # its own /proc/self is its own again

