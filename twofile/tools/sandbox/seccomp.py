"""Which system calls a sandbox may make: a list of those that it may not, as a program of the kernel's packet filter.

A denied call fails with EPERM; one of another architecture ends the process. A list of what is denied, not of what is
allowed: an interpreter with numpy calls whatever it likes, and the namespaces or Landlock hold the rest. Guarantee: the
filter holds for all that comes after, children too, and cannot be taken off. Cost: about a microsecond a call.

Source: Documentation/userspace-api/seccomp_filter.rst of Linux; numbers from its unistd.h, x86-64 and arm64.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

__all__ = ["install", "known", "program"]

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH

# x86-64, arm64; -1 where there is none
ALWAYS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "delete_module": (176, 106), "fanotify_init": (300, 262),
    "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "init_module": (175, 105), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425), "ioperm": (173, -1), "iopl": (172, -1), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "lookup_dcookie": (212, 18),
    "mbind": (237, 235), "memfd_create": (319, 279), "memfd_secret": (447, 447), "migrate_pages": (256, 238),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434),
    "pivot_root": (155, 41), "process_madvise": (440, 440), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "reboot": (169, 142), "request_key": (249, 218), "set_mempolicy": (238, 237), "setdomainname": (171, 162),
    "sethostname": (170, 161), "setns": (308, 268), "settimeofday": (164, 170), "socket": (41, 198),
    "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vhangup": (153, 58),
}  # fmt: skip
WITHOUT_NAMESPACES = {  # what Landlock does not hold: metadata of files, other processes, shared memory
    "chmod": (90, -1), "chown": (92, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "fchown": (93, 55), "fchownat": (260, 54), "fremovexattr": (199, 16), "fsetxattr": (190, 7), "futimesat": (261, -1),
    "inotify_add_watch": (254, 27), "ioprio_set": (251, 30), "lchown": (94, -1), "lremovexattr": (198, 15),
    "lsetxattr": (189, 6), "mq_open": (240, 180), "msgget": (68, 186), "removexattr": (197, 14),
    "removexattrat": (466, 466), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "semget": (64, 190), "setpriority": (141, 140),
    "setxattr": (188, 5), "setxattrat": (463, 463), "shmat": (30, 196), "shmget": (29, 194), "utime": (132, -1),
    "utimensat": (280, 88), "utimes": (235, -1),
}  # fmt: skip
SIGNALS = {  # to other processes, where nothing else keeps them in
    "kill": (62, 129), "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
}  # fmt: skip
_CLONE, _CLONE3, _IOCTL, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (16, 29), (234, 131), (302, 261)

_NEW_NAMESPACES = 0x7E020080  # the CLONE_NEW* flags
_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: input that a terminal takes as typed
_X32 = 0x40000000

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = _ERRNO | 1, _ERRNO | 38
_LOAD, _EQUAL, _SET, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # where they are in seccomp_data


def known() -> bool:
    """Whether there are tables for this machine."""
    return platform.machine() in _MACHINES


def program(namespaces: bool, signals: bool, pid: int) -> bytes:
    """The filter. `namespaces`: the sandbox has its own; `signals`: it may send signals, others are out of its reach;
    `pid`: the process that may signal its own threads whatever `signals` says. ValueError on an unknown machine."""
    if not known():
        raise ValueError(f"no table of system calls for {platform.machine()}")
    column, architecture = _MACHINES[platform.machine()]
    made = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, architecture, 1, 0), _step(_RETURN, _KILL)]
    made += [_step(_LOAD, _NUMBER)]
    if column == 0:
        made += [_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _EPERM)]
    denied = [ALWAYS, *([] if namespaces else [WITHOUT_NAMESPACES]), *([] if signals else [SIGNALS])]
    for number in (numbers[column] for table in denied for numbers in table.values() if numbers[column] >= 0):
        made += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _EPERM)]
    made += [_step(_EQUAL, _CLONE3[column], 0, 1), _step(_RETURN, _ENOSYS)]  # clone, whose flags can be seen, is called
    made += _argument(_CLONE[column], 0, [_step(_SET, _NEW_NAMESPACES, 0, 1), _step(_RETURN, _EPERM)])
    for request in _TERMINAL:
        made += _argument(_IOCTL[column], 1, [_step(_EQUAL, request, 0, 1), _step(_RETURN, _EPERM)])
    if not signals:
        made += _argument(_TGKILL[column], 0, [_step(_EQUAL, pid, 1, 0), _step(_RETURN, _EPERM)])
    if not namespaces:
        made += _argument(_PRLIMIT[column], 0, [_step(_EQUAL, 0, 1, 0), _step(_RETURN, _EPERM)])  # others' limits
    made += [_step(_RETURN, _ALLOW)]
    return b"".join(made)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """An instruction: skip `yes` of the next ones where a test holds, `no` where it does not."""
    return struct.pack("=HBBI", code, yes, no, value)


def _argument(call: int, place: int, then: list[bytes]) -> list[bytes]:
    """Steps that look at the lower half of an argument of one call."""
    inner = [_step(_LOAD, 16 + 8 * place), *then, _step(_LOAD, _NUMBER)]
    return [_step(_EQUAL, call, 0, len(inner)), *inner]


def install(filter_: bytes) -> None:
    """Put the filter on this process, for ever. OSError where the kernel does not take it."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(filter_, len(filter_))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    given = Program(len(filter_) // 8, ctypes.addressof(held))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(given), 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")
