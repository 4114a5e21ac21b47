"""HumanEval: functions to write, right where their tests pass (pass@1, greedy).

What a model writes is never run but in a sandbox: bubblewrap as nobody, without capabilities or namespaces of its own,
with nothing of the machine but its system libraries, read only: no network, no other processes, a gigabyte of memory a
process, 16 MB of files, ten seconds. Without bubblewrap the task is refused.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twofile.errors import TaskError
from twofile.evaluate.tasks.reading import find, lines_of, text_of
from twofile.evaluate.tasks.task import Item, Metrics, Question, Said, Task

__all__ = ["HUMANEVAL", "passes"]

_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_TOKENS = 1024
_SECONDS = 10
_MEMORY = 1 << 30
_FILES = 16 << 20  # bytes that it may write, to a file or to its output


def _load(folder: Path, shots: int) -> list[Item]:
    path = find(folder, "HumanEval.jsonl.gz", "HumanEval.jsonl")
    return [
        Question(
            row["task_id"], "humaneval", row["prompt"], f"{row['test']}\ncheck({row['entry_point']})\n", _STOP, _TOKENS
        )
        for row in lines_of(text_of(path), path.name)
    ]


def passes(program: str, seconds: float = _SECONDS) -> bool:
    """Whether a Python program ends well in the sandbox. TaskError without a bubblewrap that works."""
    if (bwrap := shutil.which("bwrap")) is None:
        raise TaskError("programs of a model are run in bubblewrap alone, which is not here", "apt install bubblewrap")
    python = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
    links = [
        part
        for name in ("bin", "lib", "lib64")
        for part in (
            ("--symlink", f"usr/{name}", f"/{name}") if Path("/", name).is_symlink() else
            ("--ro-bind-try", f"/{name}", f"/{name}")
        )
    ]  # fmt: skip
    prefix = () if sys.base_prefix == "/usr" else ("--ro-bind", sys.base_prefix, sys.base_prefix)
    command = [
        bwrap, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
        "--disable-userns", "--die-with-parent", "--new-session", "--clearenv", "--ro-bind", "/usr", "/usr", *links,
        *prefix, "--proc", "/proc", "--dev", "/dev", "--size", str(_FILES), "--tmpfs", "/tmp",
        "--chdir", "/tmp", python, "-I", "-c", _START,
    ]  # fmt: skip

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILES, _FILES))

    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):  # files, so that what is said is bounded
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=errors, preexec_fn=limit, start_new_session=True
        )
        try:
            process.communicate(program.encode(errors="replace"), timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        errors.seek(0)
        told = errors.read(1 << 12)
        if process.returncode and told.startswith(b"bwrap:"):
            raise TaskError(f"bubblewrap does not work here: {told.decode(errors='replace').strip()}")
        output.seek(max(0, output.seek(0, 2) - len(_PASSED)))
        return process.returncode == 0 and output.read() == _PASSED.encode()


_PASSED = "\ntwofile: passed\n"
# it has passed where all of it was run: a proof against accidents, not against a program that means to be counted
_START = (
    "import sys\nprogram = sys.stdin.read()\nscope = {'__name__': 'program'}\n"
    f"exec(compile(program, 'program', 'exec'), scope)\nsys.__stdout__.write({_PASSED!r})\nsys.__stdout__.flush()"
)


def _judge(item: Item, said: Sequence[Said] | str) -> Metrics:
    assert isinstance(item, Question)
    assert isinstance(said, str)
    return {"pass@1": float(passes(f"{item.prompt}{said}\n{item.answer}"))}


HUMANEVAL = Task(
    "humaneval",
    "functions to write",
    "arXiv:2107.03374",
    _load,
    _judge,
    {"pass@1": "share"},
    0.0,
    needs="bubblewrap",
    chat=False,
)
