"""Ways out of a sandbox, each a program whose last expression says whether it got out. `{...}` is filled in by `Victim`.

Run with nothing around them they succeed (but for what `needs` says); in a sandbox none does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMON = """
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(8)
def tried(act):
    try:
        return bool(act())
    except Exception as error:
        print(type(error).__name__, error)
        return False
def called(*arguments):
    found = libc.syscall(*(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True
def done(found):
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True
"""

X86 = os.uname().machine == "x86_64"


def number(x86: int, arm: int) -> int:
    return x86 if X86 else arm


# what is tried: what must be there for it to succeed without a sandbox ("", "root", a file that exists), and how
ATTACKS: dict[str, tuple[str, str]] = {
    "a file of the user": ("", "tried(lambda: open({secret!r}).read() == 'secret')"),
    "a file by a symbolic link": ("", "os.symlink({secret!r}, 'link') or tried(lambda: open('link').read())"),
    "a file by a hard link": ("", "tried(lambda: os.link({secret!r}, os.path.join({free!r}, 'hard')) is None)"),
    "a file by /proc": ("", "tried(lambda: open(f'/proc/{pid}/root{secret}').read())"),
    "names of files": ("", "tried(lambda: 'secret' in os.listdir({folder!r}))"),
    "writing where anybody may": ("", "tried(lambda: open(os.path.join({free!r}, 'mine'), 'w').write('x'))"),
    "removing": ("", "tried(lambda: os.unlink({spare!r}) is None)"),
    "truncating": ("", "tried(lambda: os.truncate({secret2!r}, 0) is None)"),
    "the mode of a file": ("", "tried(lambda: os.chmod({secret2!r}, 0o777) is None)"),
    "the times of a file": ("", "tried(lambda: os.utime({secret2!r}, (0, 0)) is None)"),
    "a key of the environment": ("", "'TWOFILE_SECRET' in os.environ"),
    "the environment of another": ("", "tried(lambda: b'TWOFILE_SECRET' in open(f'/proc/{pid}/environ', 'rb').read())"),
    "the command line of another": ("", "tried(lambda: b'sleep' in open(f'/proc/{pid}/cmdline', 'rb').read())"),
    "TCP": ("", "tried(lambda: socket.create_connection(('127.0.0.1', {tcp}), 2))"),
    "UDP": ("", "tried(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp})))"),
    "a socket with a path": ("", "tried(lambda: socket.socket(socket.AF_UNIX).connect({unix!r}) is None)"),
    "an abstract socket": ("", "tried(lambda: socket.socket(socket.AF_UNIX).connect({abstract!r}) is None)"),
    "netlink": ("", "tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))"),
    "ptrace": ("", "tried(lambda: done(libc.ptrace(0x4206, {pid}, 0, 0)))"),
    "the memory of another": (
        "",
        f"tried(lambda: called({number(310, 270)}, {{pid}}, ctypes.byref((ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)), 1, ctypes.byref((ctypes.c_size_t * 2)({{address}}, 8)), 1, 0))",
    ),
    "a signal to another": ("", "tried(lambda: os.kill({pid}, 0) is None)"),
    "a signal to the parent": ("", "tried(lambda: os.kill({parent}, 0) is None)"),
    "a signal by a descriptor": (
        "",
        "tried(lambda: __import__('signal').pidfd_send_signal(os.pidfd_open({pid}), 0) is None)",
    ),
    "the priority of another": ("", "tried(lambda: os.setpriority(os.PRIO_PROCESS, {pid}, 19) is None)"),
    "the limits of another": (
        "",
        "tried(lambda: __import__('resource').prlimit({pid}, 4, (0, 0)) is not None)",
    ),
    "the processors of another": ("", "tried(lambda: os.sched_setaffinity({pid}, [0]) is None)"),
    "a namespace of users": ("namespaces", "tried(lambda: done(libc.unshare(0x10000000)))"),
    "a namespace by clone": (
        "namespaces",
        f"tried(lambda: done((child := libc.syscall({number(56, 220)}, 0x10000000 | 17, 0, 0, 0, 0)) or os._exit(0)) and os.waitpid(child, 0))",
    ),
    "a namespace by clone3": (
        "namespaces",
        "tried(lambda: done((child := libc.syscall(435, ctypes.byref((ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17)), 64)) or os._exit(0)) and os.waitpid(child, 0))",
    ),
    "io_uring": ("io_uring", "tried(lambda: called(425, 4, ctypes.create_string_buffer(120)))"),
    "shared memory by a key": ("", "tried(lambda: done(libc.shmget({key}, 0, 0o600)))"),
    "the keyring": (
        "",
        f"tried(lambda: called({number(248, 217)}, b'user', b'twofile', b'x', 1, -2))",
    ),
    "memory without a name": ("", "tried(lambda: os.memfd_create('x'))"),
    "a descriptor of another": ("", "tried(lambda: called(438, os.pidfd_open({pid}), 0, 0))"),
    "changes of a folder": (
        "",
        "tried(lambda: done(libc.inotify_add_watch(libc.inotify_init1(0), {folder!r}.encode(), 0xfff)))",
    ),
    "becoming root": ("root", "tried(lambda: os.setuid(0) is None and os.getuid() == 0 and os.listdir('/root') is not None)"),
    "mounting": ("root", "tried(lambda: done(libc.mount(b'none', {free!r}.encode(), b'tmpfs', 0, 0)) and done(libc.umount({free!r}.encode())))"),
    "another root": ("root", "tried(lambda: os.pipe() and done(libc.chroot(b'/')))"),
    "a file by its handle": (
        "root",
        f"tried(lambda: called({number(303, 264)}, -100, {{secret!r}}.encode(), (handle := ctypes.create_string_buffer(b'\\x80\\0\\0\\0', 136)), ctypes.byref(ctypes.c_int()), 0) and called({number(304, 265)}, -100, handle, 0))",
    ),
    "a device": ("root", "tried(lambda: os.mknod(os.path.join({free!r}, 'device'), 0o20600, os.makedev(1, 5)) is None)"),
    "typing into a terminal": ("root", "tried(lambda: __import__('fcntl').ioctl(__import__('pty').openpty()[1], 0x5412, b'x') is not None)"),
}  # fmt: skip


@dataclass(frozen=True)
class Victim:
    """What there is to be attacked."""

    names: dict[str, object]

    def program(self, attack: str) -> str:
        return COMMON + ATTACKS[attack][1].format(**self.names)


@contextlib.contextmanager
def victim() -> Iterator[Victim]:
    """Files, sockets, a process and a shared segment of whoever calls."""
    import ctypes

    os.environ["TWOFILE_SECRET"] = "secret"
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twofile-victim-")))
        folder.chmod(0o755)
        free = folder / "free"
        free.mkdir()
        free.chmod(0o777)
        for name in ("secret", "secret2", "free/spare"):
            (folder / name).write_text("secret")
            (folder / name).chmod(0o666)
        tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        path, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        path.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        abstract.bind(f"\0twofile-{os.getpid()}")
        for one in (tcp, udp, path, abstract):
            stack.enter_context(one)
        for one in (path, abstract):
            one.listen()
        sleeper = subprocess.Popen([sys.executable, "-c", "import ctypes, time; b = ctypes.create_string_buffer(8); print(ctypes.addressof(b), flush=True); time.sleep(600)  # sleep"], stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert sleeper.stdout is not None
        address = int(sleeper.stdout.readline())
        stack.callback(sleeper.stdout.close)
        stack.callback(sleeper.wait)
        stack.callback(sleeper.kill)
        key = 0x74770000 + os.getpid() % 0xFFFF
        segment = libc.shmget(key, 4096, 0o1600)
        stack.callback(libc.shmctl, segment, 0, None)
        yield Victim({
            "secret": str(folder / "secret"), "secret2": str(folder / "secret2"), "spare": str(free / "spare"),
            "folder": str(folder), "free": str(free), "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1],
            "unix": str(folder / "socket"), "abstract": f"\0twofile-{os.getpid()}", "pid": sleeper.pid,
            "parent": os.getpid(), "address": address, "key": key,
        })  # fmt: skip


def free_of_walls(program: str) -> str:
    """What a program says with nothing around it, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        *lines, last = program.strip().splitlines()
        whole = "\n".join([*lines, f"print(bool({last}))"])
        ran = subprocess.run(
            [sys.executable, "-c", whole], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
    said = ran.stdout.strip() or ran.stderr
    return "True" if said.endswith("True") else said
