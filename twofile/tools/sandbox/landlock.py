"""Landlock: which files a process may open, without rights of an administrator and without a mount.

Guarantee: after `restrict` this process and all that come from it open nothing but what lies in the folders named,
connect to no TCP port, and (from version 6 of the interface) reach no abstract socket and signal no process outside.
What it does not hold: metadata of files (stat, chmod), sockets with a path, datagrams: see `seccomp`.

Source: Documentation/userspace-api/landlock.rst of Linux.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

__all__ = ["LEAST", "SIGNALS", "restrict", "version"]

LEAST = 3
"""The version that is needed: before it, files could be truncated."""
SIGNALS = 6
"""The version from which signals to others are held."""

_CREATE, _RULE, _RESTRICT = 444, 445, 446
_RIGHTS = {3: 15, 4: 15}  # bits of rights to files; 16 from version 5 on
_READ = (1 << 0) | (1 << 2) | (1 << 3)


def version() -> int:
    """Of the kernel's interface; 0 where there is none."""
    found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, 0, 1)
    return max(0, int(found))


def restrict(read: Iterable[str], write: Iterable[str]) -> int:
    """Let this process read and execute in some folders (or single files), and do everything in others, and nothing
    elsewhere. Needs PR_SET_NO_NEW_PRIVS. Gives the version; OSError where the kernel refuses or is too old."""
    found = version()
    if found < LEAST:
        raise OSError(38, f"Landlock of version {LEAST} is needed, this kernel has {found or 'none'}")
    every = (1 << _RIGHTS.get(found, 16)) - 1
    of_files = every & ((1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15))
    net = 0b11 if found >= 4 else 0
    attributes = struct.pack("=QQQ", every, net, 0b11 if found >= SIGNALS else 0)
    size = 8 if found < 4 else 16 if found < SIGNALS else 24
    libc = ctypes.CDLL(None, use_errno=True)

    def call(*arguments: object) -> int:
        given = int(libc.syscall(*arguments))
        if given < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"Landlock: {os.strerror(error)}")
        return given

    rules = call(_CREATE, attributes, ctypes.c_size_t(size), 0)
    try:
        for paths, rights in ((read, _READ), (write, every)):
            for path in paths:
                try:
                    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                try:
                    folder = stat.S_ISDIR(os.fstat(place).st_mode)
                    call(_RULE, rules, 1, struct.pack("=Qi", rights if folder else rights & of_files, place), 0)
                finally:
                    os.close(place)
        call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return found
