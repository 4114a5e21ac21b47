"""What a run runs on, for its log and its report; and the memory it takes. Costs a few small files read."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

__all__ = ["machine", "memory"]


def machine() -> dict[str, Any]:
    """The processor, the cores this process may use, bytes of memory, the accelerator if torch uses one, versions."""
    from twofile import __version__

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": usable,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "twofile": __version__,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = str(torch.__version__)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            found["accelerator"] = torch.cuda.get_device_name()
            found["accelerator memory"] = torch.cuda.get_device_properties().total_memory
    return found


def memory() -> int:
    """Bytes that this process holds: those of the accelerator where torch uses one, else those resident.

    macOS tells only the most that was ever resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.memory_reserved())
    try:
        status = Path("/proc/self/status").read_bytes()
        return 1024 * int(status.partition(b"VmRSS:")[2].split(maxsplit=1)[0])
    except (OSError, IndexError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _processor() -> str:
    """The processor's name, as it calls itself."""
    if sys.platform == "darwin":
        import subprocess

        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return done.stdout.strip() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{found[0] if found else platform.processor() or 'unknown'} ({platform.machine()})"
