"""Refining: sources in, a corpus folder out, by one pipeline that runs on a laptop, under Slurm or on Ray.

The stages are datatrove's: read and filter; MinHash signatures, matches, clusters (Broder 1997; 14 buckets of 8 hashes
of runs of 5 words, which finds 92% of the pairs whose runs agree to 80%); drop all but one of each cluster, split by
the documents' hashes, write; then a check of every evaluation set against the training text, and the card.

The folder holds `texts/<source>/train/*.jsonl.zst`, `texts/<source>/held_out/*.jsonl.zst`, `card.json`, `README.md`,
`work/` (logs; while it runs also what stands between two stages) and, on request, `dropped/<filter>/`. The card is
written last.

Guarantees: no task is done twice, so an interrupted call that is repeated goes on; the same sources, settings and
number of tasks give the same texts; a task that fails stops the whole with its own words. Cost: disk for the filtered
text once more (packed) and 950 bytes a document while it runs. Memory of a task: below 1 GB, of which its longest
document takes most, and 70 bytes for each of its documents; clustering, one task, about 300 bytes for each document
that has a double.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashConfig, MinhashDedupBuckets, MinhashDedupFilter
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig

from twofile.errors import TrainError, TwofileError
from twofile.params.atomic import atomic_path
from twofile.train.corpus import sources as corpus
from twofile.train.corpus.card import Card
from twofile.train.corpus.filters import build
from twofile.train.corpus.reading import File
from twofile.train.corpus.sources import CARD, WORK, Source
from twofile.train.corpus.steps import Between, Clusters, Index, Marks, Reading, Signatures, Split, Tally, row
from twofile.train.corpus.words import Words

__all__ = ["Machines", "Settings", "refine"]

MINHASH = MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="sha1"))
_PART = 256 << 20  # bytes of text in one file between two stages, and of sources for one task


@dataclass(frozen=True)
class Settings:
    """What to make of which sources; `data` is where relative paths of sources begin.

    `held_out` holds for all sources but those of share 0, which are held out whole."""

    sources: tuple[Source, ...]
    data: Path = field(default_factory=Path)
    filters: tuple[str, ...] = ("gopher-repetition",)
    language: str = "any"
    dedup: bool = True
    held_out: float = 0.01
    checks: tuple[Source, ...] = ()  # evaluation sets
    keep_dropped: bool = False
    keep_downloads: bool = False


@dataclass(frozen=True)
class Machines:
    """Where it runs. `slurm`: the executor's own settings (partition and time at least), and any of sbatch's."""

    executor: str = "local"  # or "slurm", "ray"
    tasks: int | None = None  # None: one for 256 MB of sources, and no fewer than there are workers and files
    workers: int | None = None  # tasks at a time; None: one a core (local), all (slurm, ray)
    slurm: Mapping[str, str] = field(default_factory=dict)
    gigabytes: int = 2  # of memory that a task asks Slurm or Ray for

    @property
    def at_once(self) -> int:
        return self.workers or (os.cpu_count() or 1 if self.executor == "local" else -1)


@dataclass(frozen=True)
class Stage:
    """Some steps, how many tasks share them, and how many of those Slurm or Ray should start as one."""

    name: str
    tasks: int
    steps: list[PipelineStep]
    together: int = 1


def refine(settings: Settings, machines: Machines, into: Path, say: Callable[[str], None] = print) -> bool:
    """Make the corpus folder `into`, or what is missing of it. False: Slurm has it, and the card will tell."""
    if (into / CARD).exists():
        raise TrainError(f"{into} holds a corpus already", "--force replaces it; another folder keeps both")
    inputs, checks = (
        [
            (source, file)
            for source in sources
            for file in corpus.files(source, settings.data)
            if not file.path.is_relative_to(into)  # a folder may be refined into a folder inside it
        ]
        for sources in (settings.sources, settings.checks)
    )
    tasks = machines.tasks or _tasks(inputs, machines)
    _claim(into, settings, tasks, inputs)
    say(f"{len(inputs)} files, {sum(file.size for _, file in inputs):,} bytes; tasks: {tasks}")
    stages = _stages(settings, tasks, inputs, checks, into)
    if machines.executor == "slurm":
        _slurm(stages, machines, into, say)
        return False
    if machines.executor == "ray":
        _start_ray()
    for stage in stages:
        say(stage.name)
        _run(stage, machines, min(machines.at_once, tasks), into)
    return True


def _tasks(inputs: list[tuple[Source, File]], machines: Machines) -> int:
    by_size = math.ceil(sum(file.size for _, file in inputs) / _PART)
    return max(1, by_size, min(len(inputs), max(machines.at_once, 1)))


def _claim(into: Path, settings: Settings, tasks: int, inputs: list[tuple[Source, File]]) -> None:
    """Begin the folder, or find it begun by the same call: what another left must not be mixed in."""
    into.mkdir(parents=True, exist_ok=True)
    told = [dataclasses.asdict(settings), tasks, [[file.name, file.size] for _, file in inputs]]
    print_ = hashlib.sha256(json.dumps(told, default=str, sort_keys=True).encode()).hexdigest()
    path = into / WORK / "settings.sha256"
    if path.exists() and path.read_text() != print_:
        raise TrainError(
            f"{into} was begun with other sources or settings", "the same call goes on; --force begins afresh"
        )
    if not path.exists() and any(into.iterdir()):
        raise TrainError(f"{into} holds other things", "give a new folder")
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(print_)


def clear(into: Path) -> None:
    """Remove a corpus, whole or begun; TrainError where the folder is none."""
    if not into.exists():
        return
    if not (into / WORK).is_dir():
        raise TrainError(f"{into} is no folder that twofile corpus made", "give a new folder")
    for name in ("texts", "dropped", WORK):
        shutil.rmtree(into / name, ignore_errors=True)
    for name in (CARD, "README.md"):
        (into / name).unlink(missing_ok=True)


def _stages(
    settings: Settings, tasks: int, inputs: list[tuple[Source, File]], checks: list[tuple[Source, File]], into: Path
) -> list[Stage]:
    work = into / WORK
    first: list[PipelineStep] = [
        Reading(inputs, work / "files", settings.keep_downloads),
        Tally("read"),
    ]
    for name in settings.filters:
        excluded = _writer(into / "dropped" / name, "${rank}.jsonl") if settings.keep_dropped else None
        first += [build(name, settings.language, excluded), Tally(name)]
    last = [
        Tally("dedup"),
        Split({source.name: settings.held_out if source.share else 1.0 for source in settings.sources}),
        _writer(into / "texts", "${source}/${side}/${rank}.jsonl", adapter=row),
    ]
    if settings.dedup:
        filtered, signed, matched, doubles = (str(work / name) for name in ("filtered", "signed", "matched", "doubles"))
        kept = _writer(work / "filtered", "${rank}.jsonl", max_file_size=_PART)
        excluded = _writer(into / "dropped" / "dedup", "${rank}.jsonl") if settings.keep_dropped else None
        stages = [
            Stage("reading and filtering", tasks, [*first, kept]),
            Stage("signatures", tasks, [Between(filtered), Signatures(signed, MINHASH, Words())]),
            Stage(
                "matches",
                MINHASH.num_buckets,
                [MinhashDedupBuckets(signed, matched, config=MINHASH)],
                math.ceil(MINHASH.num_buckets / tasks),
            ),
            Stage("clusters", 1, [Clusters(matched, doubles, config=MINHASH)]),
            Stage("writing", tasks, [Between(filtered), MinhashDedupFilter(doubles, excluded), *last]),
        ]
    else:
        stages = [Stage("reading, filtering, writing", tasks, [*first, *last])]
    return [
        *stages,
        Stage("index of the evaluation sets", 1, [Index(checks, into, work / "check")]),
        Stage("contamination check", tasks, [Marks(into, work / "check")]),
        Stage("card", 1, [Card(settings, tasks, checks, into)]),
    ]


def _writer(folder: Path, filename: str, **options: Any) -> JsonlWriter:
    return JsonlWriter(str(folder), f"{filename}.zst", compression="zstd", **options)


class _Told:
    """Of an executor: what made a task fail is kept for the person; the terminal is left alone."""

    quiet = True

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        from loguru import logger

        if self.quiet:
            logger.disable("datatrove")
        executor: Any = self
        try:
            return super()._run_for_rank(rank, local_rank, node_rank)  # type: ignore[misc]
        except Exception as error:
            hint = error.hint if isinstance(error, TwofileError) else ""
            message = error.message if isinstance(error, TwofileError) else f"{type(error).__name__}: {error}"
            with executor.logging_dir.open(f"failed/{rank:05d}.json", "w") as stream:
                json.dump([message, hint, traceback.format_exc()], stream)
            raise


class _Local(_Told, LocalPipelineExecutor):  # type: ignore[misc]
    pass


class _Ray(_Told, RayPipelineExecutor):  # type: ignore[misc]
    pass


class _Slurm(_Told, SlurmPipelineExecutor):  # type: ignore[misc]
    quiet = False  # what it says goes to Slurm's own files


def _logs(stage: Stage, into: Path) -> Path:
    return into / WORK / "logs" / stage.name.replace(" ", "-").replace(",", "")


def _run(stage: Stage, machines: Machines, workers: int, into: Path) -> None:
    """One stage, here or on Ray, to its end."""
    import multiprocess
    from loguru import logger

    multiprocess.set_forkserver_preload([__name__])  # once for all tasks, not once for each
    logs = _logs(stage, into)
    shutil.rmtree(logs / "failed", ignore_errors=True)
    common = {"pipeline": stage.steps, "tasks": stage.tasks, "workers": workers, "logging_dir": str(logs)}
    logger.disable("datatrove")
    try:
        executor: Any = (
            _Local(**common)
            if machines.executor == "local"
            else _Ray(**common, mem_per_cpu_gb=machines.gigabytes, tasks_per_job=stage.together)
        )
        executor.run()
    except TwofileError:
        raise
    except Exception as error:
        raise _failure(stage, logs) from error
    finally:
        logger.enable("datatrove")
    if executor.get_incomplete_ranks(skip_completed=True):
        raise _failure(stage, logs)


def _failure(stage: Stage, logs: Path) -> TrainError:
    told = sorted((logs / "failed").glob("*.json"))
    message, hint, _ = json.loads(told[0].read_text()) if told else ("a task ended without a word", "", "")
    where = f"{len(told)} of {stage.tasks} tasks failed in the stage {stage.name}"
    return TrainError(f"{message} ({where}; see {logs / 'failed'})", hint or "the same call goes on where it stopped")


def _start_ray() -> None:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise TrainError("the Ray executor needs ray, which is not installed", "pip install ray") from error
    if not ray.is_initialized():
        ray.init(
            log_to_driver=False, logging_level=logging.ERROR
        )  # the cluster that RAY_ADDRESS names, or one on this machine


_SLURM: dict[str, Callable[[str], Any]] = {
    "partition": str, "time": str, "qos": str, "cpus_per_task": int, "env_command": str, "venv_path": str,
    "max_array_size": int, "mail_user": str,
}  # fmt: skip


def _slurm(stages: list[Stage], machines: Machines, into: Path, say: Callable[[str], None]) -> None:
    """Hand all stages to Slurm, each waiting for the one before."""
    given = {name: _SLURM[name](value) for name, value in machines.slurm.items() if name in _SLURM}
    missing = [name for name in ("partition", "time") if name not in given]
    if missing:
        raise TrainError(f"Slurm wants to know {' and '.join(missing)}", "--slurm partition=cpu --slurm time=12:00:00")
    if sys.prefix != sys.base_prefix:
        given.setdefault("venv_path", str(Path(sys.prefix) / "bin" / "activate"))
    before = None
    for stage in stages:
        before = _Slurm(
            stage.steps,
            stage.tasks,
            workers=machines.workers or -1,
            job_name=f"twofile-{_logs(stage, into).name}",
            mem_per_cpu_gb=machines.gigabytes,
            tasks_per_job=stage.together,
            depends=before,
            logging_dir=str(_logs(stage, into)),
            sbatch_args={name: value for name, value in machines.slurm.items() if name not in _SLURM},
            **{"qos": "", **given},
        )
    assert before is not None
    before.run()
    say(f"Slurm has {len(stages)} jobs, the last {before.job_id}; {into / CARD} is written last")
