"""The same pipeline on a cluster: Ray on this machine, Slurm with a stand-in for sbatch."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.corpus.test_refine import made, settings, sides, written
from twofile.errors import TrainError
from twofile.train.corpus import refine as refine_module
from twofile.train.corpus.refine import Machines, refine

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return written(tmp_path)


RAY = """
import sys
from pathlib import Path
import ray
from tests.train.corpus.test_refine import made, settings
from twofile.train.corpus.refine import Machines
folder = Path(sys.argv[1])
made(settings(folder, dedup=False), folder / "ray", Machines("ray", tasks=2, gigabytes=1))
ray.shutdown()
"""


def test_ray_gives_the_same_texts(inputs: Path, tmp_path: Path) -> None:
    """In a process of its own: datatrove waits for ever for a job that Ray does not take, or whose worker Ray ends when
    the machine is short of memory. Without duplicates, which are more of the same stages: each starts workers anew."""
    pytest.importorskip("ray", reason="ray is not installed")
    token = tmp_path / "ray-token"  # Ray would make one in the user's home
    token.write_text(secrets.token_hex(32))
    ours = {
        "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", RAY, str(inputs)],
        env={**os.environ, **ours},
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert child.wait(300) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    made(settings(inputs, dedup=False), tmp_path / "local")
    assert sides(inputs / "ray") == sides(tmp_path / "local")


SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
array = re.search(r"--array=0-([0-9]+)", script)
count = int(array[1]) + 1 if array else 1
open({log!r}, "a").write(script)
for i in range(count if "merge_stats" not in script else 0):
    environment = {{**os.environ, "RUN_OFFSET": "0", "SLURM_NODELIST": "here", "SLURM_ARRAY_TASK_ID": str(i)}}
    done = subprocess.run(["bash", sys.argv[-1]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
print("Submitted batch job 7")
"""


def test_slurm_gets_the_same_pipeline(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for sbatch runs each job at once; what it runs is what Slurm would."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    launch = Path(sys.executable).parent / "launch_pickled_pipeline"
    scripts = {
        "sbatch": SBATCH.format(python=sys.executable, log=str(tmp_path / "jobs")),
        "srun": f'#!/bin/bash\nshift 3\nexec {launch} "${{@: -1}}"\n',
        "scontrol": "#!/bin/bash\necho here\n",
    }
    for name, text in scripts.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(refine_module.__file__).parents[3]))
    given = settings(inputs, dedup=False)
    wanted = {"partition": "cpu", "time": "1:00:00", "account": "ada"}
    with pytest.raises(TrainError, match="partition and time"):
        refine(given, Machines("slurm", tasks=1), tmp_path / "x", lambda _: None)
    said: list[str] = []
    assert not refine(given, Machines("slurm", tasks=1, slurm=wanted), tmp_path / "slurm", said.append)
    made(given, tmp_path / "local", Machines(tasks=1, workers=1))
    assert sides(tmp_path / "slurm") == sides(tmp_path / "local")
    jobs = (tmp_path / "jobs").read_text()
    assert "#SBATCH --account=ada" in jobs
    assert "#SBATCH --partition=cpu" in jobs
    assert "the last 7" in said[-1]
