"""Compile the program, `run.c`, as a shared library, once.

The library lies in the user's cache folder (`TWOFILE_CACHE` overrides it) under a name that is a hash of everything
it depends on: the source, the flags, the compiler's version and the processor. A change of any of them compiles
again; nothing else does. It takes some seconds the first time and about 10 ms after. The file appears under its name
only when it is whole, so any number of processes may build at the same time.

`TWOFILE_CC` (then `CC`) names the compiler, `TWOFILE_CFLAGS` adds flags, `TWOFILE_KERNELS` ("avx2" or "c", on x86) asks
for other vector instructions than the best this processor has. Failure is not an error here: `Build.path`
is None and `Build.reason` says why, for `twofile doctor` and for the fallback to NumPy.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "run.c"
FLAGS = (
    "-std=c11", "-O2", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-DTF_LIBRARY",
)  # fmt: skip
LIBRARIES = ("-lm", "-lpthread")
KERNELS = {"native": (), "avx2": ("-march=x86-64-v3",), "c": ("-march=x86-64",)}
"""Values of TWOFILE_KERNELS to flags; the last -march counts."""
COMPILERS = ("cc", "gcc", "clang")
HINT = "install a C compiler: apt install gcc, dnf install gcc, or xcode-select --install; then: twofile doctor"
_SECONDS = 600  # after which a compiler is taken to hang


@dataclass(frozen=True)
class Build:
    """How the program was compiled, or why it was not."""

    path: Path | None  # the shared library
    compiler: str  # its command, "" when none was found
    flags: tuple[str, ...]
    reason: str  # why there is no library, "" when there is
    seconds: float  # spent compiling
    cached: bool  # the library was there already


def library_path() -> Path | None:
    """The compiled program, compiling it if need be; None when that fails."""
    return build().path


def build(*extra: str, source: Path = SOURCE) -> Build:
    """Compile `source` with our flags, then those of `TWOFILE_CFLAGS`, then `extra` (such as `-mno-avx512f`)."""
    started = time.monotonic()
    kernels = os.environ.get("TWOFILE_KERNELS", "native")
    if kernels not in KERNELS:
        return Build(None, "", FLAGS, f"TWOFILE_KERNELS is {kernels!r}, not one of {', '.join(KERNELS)}", 0.0, False)
    flags = (*FLAGS, *KERNELS[kernels], *shlex.split(os.environ.get("TWOFILE_CFLAGS", "")), *extra)
    command = _compiler()
    if not command:
        wanted = os.environ.get("TWOFILE_CC") or os.environ.get("CC") or " or ".join(COMPILERS)
        return Build(None, "", flags, f"no C compiler was found (looked for {wanted})", 0.0, False)
    compiler = shlex.join(command)
    reason = ""
    try:
        folder = _cache_folder()
        version = _first_line([*command, "--version"])
        # -march=native is unknown to a few compilers: a slower library is better than none.
        for attempt in (flags, tuple(flag for flag in flags if flag != "-march=native")):
            key = hashlib.sha256("\0".join((version, _processor(), compiler, *attempt, *LIBRARIES)).encode())
            key.update(source.read_bytes())
            target = folder / f"run-{key.hexdigest()[:32]}.so"
            if target.is_file():
                return Build(target, compiler, attempt, "", 0.0, True)
            if not reason:
                print("twofile: compiling the program (once) ...", file=sys.stderr, flush=True)
            failure = _compile([*command, *attempt], source, target)
            if not failure:
                return Build(target, compiler, attempt, "", time.monotonic() - started, False)
            reason = reason or failure
    except OSError as error:
        reason = str(error)
    return Build(None, compiler, flags, reason, time.monotonic() - started, False)


def _compiler() -> list[str]:
    """The compiler's command, from the environment or the first known one on the path; empty when there is none."""
    named = os.environ.get("TWOFILE_CC") or os.environ.get("CC")
    for command in [shlex.split(named)] if named else [[name] for name in COMPILERS]:
        if command and shutil.which(command[0]):
            return command
    return []


def _cache_folder() -> Path:
    """The folder of compiled programs, made if need be and ours alone: what lies in it is loaded as code."""
    from platformdirs import user_cache_path

    named = os.environ.get("TWOFILE_CACHE")
    folder = Path(named) if named else user_cache_path("twofile")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        state = folder.stat()
        if state.st_uid != os.getuid() or state.st_mode & 0o022:
            raise PermissionError(f"{folder} can be written by other users: set TWOFILE_CACHE to a folder of your own")
    return folder


def _compile(command: list[str], source: Path, target: Path) -> str:
    """Compile into a temporary file and rename. Returns what went wrong, "" when nothing did."""
    handle, name = tempfile.mkstemp(prefix="run-", suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        done = subprocess.run(
            [*command, "-o", name, str(source), *LIBRARIES],
            capture_output=True, text=True, errors="replace", timeout=_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            first = next((line for line in lines if "error" in line), lines[0])
            return f"{shlex.join(command)} failed: {first}"
        os.replace(name, target)
        return ""
    except subprocess.TimeoutExpired:
        return f"{shlex.join(command)} did not end within {_SECONDS} s"
    finally:
        Path(name).unlink(missing_ok=True)


def _first_line(command: list[str]) -> str:
    """The first line that a command prints, "" when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.splitlines() or [""])[0]


def _processor() -> str:
    """The processor's name and features, because the code is made for exactly this one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        kept = {line for line in lines if line.split("\t")[0] in ("model name", "flags", "Features", "CPU part")}
        return "\n".join([platform.machine(), *sorted(kept)])
    except OSError:
        brand = _first_line(["sysctl", "-n", "machdep.cpu.brand_string"]) if sys.platform == "darwin" else ""
        return f"{platform.machine()}\n{brand or platform.processor()}"
