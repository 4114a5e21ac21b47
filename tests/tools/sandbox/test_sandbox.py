"""Nothing gets out of a sandbox, of each kind, as root and as an ordinary user; and all of it gets out of none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tools.sandbox.attacks import ATTACKS
from twofile.errors import ToolError
from twofile.tools.sandbox import interpreter as interpreter_module
from twofile.tools.sandbox import landlock, tiers
from twofile.tools.sandbox.interpreter import Interpreter, which
from twofile.tools.sandbox.tiers import Limits, Tier

NOBODY = 65534
HERE = Path(__file__).parent
ROOM = Path(tiers.__file__).resolve().parent


def works(tier: Tier) -> str:
    """Why it does not; "" where it does."""
    if not sys.platform.startswith("linux"):
        return "sandboxes are of Linux"
    if tier == "bubblewrap" and shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    if tier == "landlock" and landlock.version() < landlock.LEAST:
        return "this kernel has no Landlock"
    try:
        Interpreter(tier).close()
    except ToolError as error:
        return str(error)
    return ""


TIERS = [
    pytest.param(tier, marks=pytest.mark.skipif(bool(why := works(tier)), reason=why or "it works"))
    for tier in ("bubblewrap", "landlock")
]
SMALL = Limits(memory=1 << 28, disk=1 << 25, processes=24)


def alive(root: int) -> list[str]:
    """What was started by this test's keeper and has not ended: told by the mark in its environment or its parent."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"twofile-mark-{root}" in text:
                found.append(text[:80])
    return found


def user_python() -> str | None:
    """An interpreter that anybody may run."""
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            ran = subprocess.run(
                [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if ran.returncode == 0:
            return path
    return None


def besieged(tier: str, ordinary: bool, tmp_path: Path) -> dict[str, Any]:
    """What an attack on all sides came to, as root or as an ordinary user."""
    package = tmp_path / "package"
    shutil.copytree(ROOM, package / "twofile" / "tools" / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOM.parents[1] / "errors.py", package / "twofile")
    for folder in (package / "twofile", package / "twofile" / "tools"):
        (folder / "__init__.py").touch()
    for name in ("attacks.py", "siege.py"):
        shutil.copy(HERE / name, package)
    how: dict[str, Any] = {}
    python: str | None = sys.executable
    if ordinary and os.geteuid() == 0:
        for path in (package, *package.rglob("*"), *tmp_path.parents, tmp_path):
            if path != Path("/") and path.stat().st_uid == 0:
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
        python = user_python()
        how = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    elif not ordinary and os.geteuid() != 0:
        pytest.skip("only root can try as root")
    if python is None:
        pytest.skip("there is no interpreter of 3.11 or newer that an ordinary user may run")
    ran = subprocess.run(
        [python, "siege.py", tier], cwd=package, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=120, check=False, **how,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("ordinary", [False, True], ids=["root", "ordinary"])
@pytest.mark.parametrize("tier", TIERS)
def test_no_attack_gets_out(tier: Tier, ordinary: bool, tmp_path: Path) -> None:
    found = besieged(tier, ordinary, tmp_path)
    assert found["out"] == [], found["said"]
    assert found["tried"] >= 40


@pytest.mark.parametrize("ordinary", [False, True], ids=["root", "ordinary"])
def test_all_get_out_where_there_is_nothing_around_them(ordinary: bool, tmp_path: Path) -> None:
    """Else a sandbox would be praised for what could not have happened."""
    found = besieged("", ordinary, tmp_path)
    root = os.geteuid() == 0 and not ordinary
    need = {name for name, (needs, _) in ATTACKS.items() if not needs or (needs == "root" and root)}
    missed = need - set(found["out"])
    assert len(found["out"]) >= 30, found["said"]
    if root:
        assert not missed, {name: found["said"].get(name) for name in missed}


@pytest.mark.parametrize("tier", TIERS)
class TestBombs:
    """What takes too much is ended, said, and gone one second later. Each is bounded so that it does no harm to this
    machine if it gets out."""

    def ended(self, tier: Tier, code: str, seconds: float = 30) -> tuple[Any, bool]:
        """What a program came to, and whether the interpreter lives."""
        mark = f"twofile-mark-{os.getpid()}"
        with Interpreter(tier, SMALL) as walls:
            ran = walls.run(f"MARK = {mark!r}\n{code}", seconds)
            again = walls.run("1 + 1", 5)
            keeper = walls.pid
        time.sleep(0.2)
        assert alive(os.getpid()) == []
        assert not Path(f"/proc/{keeper}/task").exists()
        return ran, again.value == "2"

    def test_processes(self, tier: Tier) -> None:
        ran, lives = self.ended(
            tier,
            "import os, time\nn = 0\nfor _ in range(500):\n    try:\n        pid = os.fork()\n    except OSError:\n"
            "        break\n    if pid == 0:\n        time.sleep(60)\n        os._exit(0)\n    n += 1\nn",
        )
        assert ran.error or int(ran.value) < 40
        assert lives == (not ran.lost)
        assert ran.lost or ran.swept >= int(ran.value) > 3

    def test_processes_that_make_processes(self, tier: Tier) -> None:
        ran, lives = self.ended(
            tier,
            "import os, time\nif os.fork() == 0:\n    end = time.time() + 20\n    while time.time() < end:\n        try:\n"
            "            os.fork()\n        except OSError:\n            pass\n    os._exit(0)\ntime.sleep(0.5)\n'on'",
        )
        assert ran.lost or ran.swept > 3
        assert lives == (not ran.lost)

    def test_memory_of_one(self, tier: Tier) -> None:
        ran, _ = self.ended(tier, "held = []\nfor _ in range(100):\n    held.append(bytearray(10_000_000))\nlen(held)")
        assert "MemoryError" in ran.error or "memory" in ran.error

    def test_memory_of_children(self, tier: Tier) -> None:
        """Each takes less than the limit, all together more."""
        ran, lives = self.ended(
            tier,
            "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        held = bytearray(60_000_000)\n"
            "        time.sleep(20)\n        os._exit(0)\ntime.sleep(20)",
        )
        assert "the limit of memory (256 MB, of all its processes together)" in ran.error
        assert ran.lost
        assert not lives
        assert ran.seconds < 10

    def test_memory_that_is_shared(self, tier: Tier) -> None:
        ran, _ = self.ended(
            tier,
            "import mmap, time\nheld = []\nfor _ in range(12):\n    one = mmap.mmap(-1, 30_000_000)\n"
            "    one.write(bytes(30_000_000))\n    held.append(one)\ntime.sleep(3)",
        )
        assert "memory" in ran.error.lower()

    def test_disk(self, tier: Tier) -> None:
        ran, _ = self.ended(
            tier,
            "import os, time\nfor where in ('.', os.environ['TMPDIR'], '/dev/shm', '/', '/dev', '/run'):\n"
            "    for i in range(12):\n        try:\n            with open(f'{where}/f{i}', 'wb') as file:\n"
            "                file.write(bytes(8_000_000))\n                written = globals().get('written', 0) + 8\n"
            "        except OSError:\n            pass\ntime.sleep(0.5)\nwritten",
        )
        assert ("the limit of its disk" in ran.error) if tier == "landlock" else int(ran.value) <= 32 + 16

    def test_disk_of_files_without_names(self, tier: Tier) -> None:
        ran, _ = self.ended(
            tier,
            "import os, time\nheld = []\nfor i in range(12):\n    try:\n        file = open(f'f{i}', 'wb')\n"
            "        os.unlink(f'f{i}')\n        file.write(bytes(8_000_000))\n        file.flush()\n"
            "        held.append(file)\n    except OSError:\n        pass\ntime.sleep(1)\nlen(held)",
        )
        assert ("the limit of its disk" in ran.error) if tier == "landlock" else int(ran.value) <= 4

    def test_output(self, tier: Tier) -> None:
        begun = time.monotonic()
        with Interpreter(tier, SMALL) as walls:
            ran = walls.run("while True:\n    print('x' * 1000)", 2, most=10_000)
            assert len(ran.output) == 10_000
            assert ran.dropped > 10_000
            assert "it was stopped: it " in ran.error
            assert walls.run("'still here'").value == "'still here'"
        assert time.monotonic() - begun < 10

    def test_a_daemon(self, tier: Tier) -> None:
        ran, lives = self.ended(
            tier,
            "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', MARK], "
            "start_new_session=True)\n'left'",
        )
        assert ran.value == "'left'"
        assert ran.swept >= 1
        assert lives

    def test_one_that_does_not_listen(self, tier: Tier) -> None:
        ran, lives = self.ended(
            tier,
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nfor kind in (15, 18, 20):\n"
            "    signal.signal(kind, signal.SIG_IGN)\nwhile True: pass",
            seconds=1,
        )
        assert ran.error == "it was ended: it took too long"
        assert not lives

    def test_one_that_leaves(self, tier: Tier) -> None:
        ran, lives = self.ended(tier, "import os\nos._exit(7)")
        assert "left with status 7" in ran.error
        assert ran.lost
        assert not lives


@pytest.mark.parametrize("tier", TIERS)
def test_what_is_defined_lasts(tier: Tier) -> None:
    with Interpreter(tier) as walls:
        assert walls.run("x = 41\nopen('f', 'w').write('kept')").value == "4"
        assert walls.run("x + 1").value == "42"
        assert walls.run("open('f').read()").value == "'kept'"
        failed = walls.run("def f():\n    return 1 / 0\nf()")
        assert failed.error.splitlines()[0] == "Traceback (most recent call last):"
        assert 'File "<program 4>", line 2, in f' in failed.error
        assert "return 1 / 0" in failed.error
        assert "worker.py" not in failed.error
        assert "SyntaxError" in walls.run("1 +").error
        stopped = walls.run("import time\ntime.sleep(60)", 0.3)
        assert stopped.error == "it was stopped: it took too long"
        assert not stopped.lost
        assert walls.run("x").value == "41"
        printed = walls.run("import subprocess, sys\nprint('a')\nsys.stdout.flush()\nsubprocess.run(['echo', 'b']).returncode")
        assert (printed.output, printed.value) == ("a\nb\n", "0")
        assert walls.run("input()").error.endswith("EOFError: EOF when reading a line\n")
        assert walls.run("raise SystemExit(3)").error == "SystemExit: 3"


@pytest.mark.parametrize("tier", TIERS)
def test_pictures_come_back(tier: Tier) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    with Interpreter(tier) as walls:
        ran = walls.run(
            "import numpy as np, matplotlib.pyplot as plt\nx = np.arange(5)\nplt.plot(x, x ** 2, label='square')\n"
            "plt.title('Growth')\nplt.xlabel('year')\nplt.show()"
        )
        assert ran.error == ""
        assert ran.output == ""
        ((data, about),) = ran.images
        assert data.startswith(b"\x89PNG")
        assert about == "a plot: “Growth”, 1 line, square: 5 points from (0, 0) to (4, 16), x: year"
        assert walls.run("1").images == ()


@pytest.mark.parametrize("tier", TIERS)
def test_a_forged_reply_is_only_a_reply(tier: Tier) -> None:
    """A program can write to where the worker answers: it can lie about itself, no more."""
    with Interpreter(tier) as walls:
        forged = "import os\nfor fd in range(3, 40):\n    try:\n        os.write(fd, b'[1]\\n{\"number\": 1, \"value\": \"forged\", \"images\": [{\"data\": \"eA==\", \"about\": 1}, 3]}\\nno json\\n')\n    except OSError:\n        pass"
        ran = walls.run(forged)
        assert ran.value in ("forged", "")
        assert ran.images == ()
        assert walls.run("2").value == "2"


def test_a_stop_is_heard(tmp_path: Path) -> None:
    if all(works(tier) for tier in ("bubblewrap", "landlock")):
        pytest.skip("no sandbox works here")
    with Interpreter() as walls:
        begun = time.monotonic()
        ran = walls.run("import time\ntime.sleep(60)", stop=lambda: time.monotonic() > begun + 0.2)
        assert ran.error == "it was stopped: nobody waits for it any more"
        assert ran.seconds < 5
        assert walls.run("1").value == "1"


def test_it_is_closed_while_a_program_runs() -> None:
    if all(works(tier) for tier in ("bubblewrap", "landlock")):
        pytest.skip("no sandbox works here")
    walls = Interpreter()
    timer = threading.Timer(0.3, walls.close)
    timer.start()
    begun = time.monotonic()
    ran = walls.run("import time\ntime.sleep(60)")
    timer.join()
    assert ran.error == "it was ended: closed"
    assert ran.lost
    assert time.monotonic() - begun < 5
    assert walls.run("1").error == "the interpreter has ended: closed"


def test_it_may_read_what_it_is_given(tmp_path: Path) -> None:
    if all(works(tier) for tier in ("bubblewrap", "landlock")):
        pytest.skip("no sandbox works here")
    folder, other = tmp_path / "given", tmp_path / "other"
    for one in (folder, other):
        one.mkdir()
        (one / "data.csv").write_text("1,2")
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    for tier in ("bubblewrap", "landlock"):
        if not works(tier):  # type: ignore[arg-type]
            with Interpreter(tier, read=[folder]) as walls:  # type: ignore[arg-type]
                assert walls.run(f"open({str(folder / 'data.csv')!r}).read()").value == "'1,2'"
                assert "Error" in walls.run(f"open({str(folder / 'data.csv')!r}, 'w')").error
                assert "Error" in walls.run(f"open({str(other / 'data.csv')!r}).read()").error


def test_the_best_that_works_is_taken() -> None:
    which.cache_clear()
    if works("bubblewrap"):
        pytest.skip("bubblewrap does not work here")
    assert which() == "bubblewrap"


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(landlock, "version", lambda: 0)
    which.cache_clear()
    try:
        with pytest.raises(ToolError, match="without one nothing is run") as raised:
            Interpreter()
        assert "bubblewrap" in raised.value.hint
    finally:
        which.cache_clear()


def test_one_that_does_not_hold_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried by running, and what a trial says counts."""
    if all(works(tier) for tier in ("bubblewrap", "landlock")):
        pytest.skip("no sandbox works here")
    monkeypatch.setattr(interpreter_module, "_TRIAL", "['a way out']")
    which.cache_clear()
    try:
        with pytest.raises(ToolError, match="it does not hold"):
            which()
    finally:
        which.cache_clear()
