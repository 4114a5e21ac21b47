"""What the page `train` shows and begins, without the page: command lines, where texts are kept, how a run stands.

Texts that were uploaded lie in `texts/NAME` of the home, hard links that outlive the uploads, so that a run can be
resumed; runs lie in `runs/NAME`. Nothing here is made but by `begin_*` and `resume`, and by those only when all of it
can be. Reading a run costs what `history.read` costs, and takes at most a twentieth of the time (`Reader`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofile.errors import TwofileError
from twofile.evaluate.ratings import Rating
from twofile.html.figures import short_span, span
from twofile.params import names
from twofile.serve.label import items
from twofile.serve.label.store import Store
from twofile.serve.pages.jobs import Job, Jobs
from twofile.train import history
from twofile.train.corpus.reading import kind
from twofile.train.history import History
from twofile.train.report.report import curves

__all__ = [
    "EVERYDAY",
    "NEEDS",
    "SEPARATORS",
    "Number",
    "Reader",
    "Standing",
    "StartedError",
    "Texts",
    "about_path",
    "begin_arena",
    "begin_learning",
    "begin_training",
    "bytes_of",
    "can_train",
    "checked_name",
    "elapsed",
    "foretell",
    "free_name",
    "go_on",
    "in_the_way",
    "name_of",
    "plain",
    "ratings",
    "resume",
    "says",
    "upload",
    "waiting",
]

SEPARATORS = {
    "blank": ("A blank line", r"\n\s*\n"),
    "end": ("<|endoftext|>", r"\s*<\|endoftext\|>\s*"),
    "": ("Nothing: a file is one document", ""),
}
"""What can stand between the documents of a text file: words, and the regular expression."""

NEEDS = "pip install 'twofile[train]'"
"""What is missing where `can_train` is False."""

EVERYDAY = (
    "What is a good name for a cat?",
    "Why is the sky blue?",
    "Explain in two sentences how a bicycle stays upright.",
    "Write a short poem about rain.",
    "Which is heavier, a kilogram of iron or of feathers?",
    "Give me three ideas for a quiet evening.",
    "My friend is sad. What can I say?",
    "What is the difference between a lake and a sea?",
    "Tell me a story of four sentences about a small ship.",
    "How do I make tea?",
    "What should I pack for a day in the mountains?",
    "Is it safe to look into the sun?",
)
"""What an arena asks where nobody gives prompts."""

_NAME = re.compile(r"[\w+][\w.+-]{0,99}")
_UPLOAD = re.compile(r"[0-9a-f]{16}\.\w{1,8}")
_LINE = re.compile(r" {2}(\S+) {2,}(.+?) {2,}(\S.*)")
_WAIT = re.compile(r"^(\d+) comparisons wait", re.MULTILINE)
_SAMPLES, _FIRST, _LATEST = 14, 0.02, 5.0  # so many a run; minutes between two at least and at most
_LONGEST = 7 * 24 * 60.0  # minutes
_SHARE = 20.0  # of the time, one part is spent on reading a log
_MANY = 2000  # files that are counted in a folder


@dataclass(frozen=True)
class Texts:
    """What a model learns from: uploads, as (id, name), and a path of this machine or ""."""

    uploads: tuple[tuple[str, str], ...] = ()
    path: str = ""
    separator: str = ""


@dataclass(frozen=True)
class Number:
    """A number of a run that is to be, and the law that it follows."""

    name: str
    value: str
    law: str


@dataclass(frozen=True)
class Standing:
    """How a run stands. `share`: of the run that lies behind, 0 to 1, or None where it is not known; `left`: seconds;
    `curves`: HTML of ours; `samples`: (step, text), the newest first, the text as the model said it."""

    share: float | None
    left: float | None
    step: int
    seconds: float
    loss: float | None
    bits: float | None
    speed: float | None
    tokens: float
    finished: bool
    resumed: int
    curves: str
    samples: tuple[tuple[int, str], ...]
    warnings: tuple[str, ...]


class StartedError(TwofileError):
    """A run of this name is there already: it can be gone on with, or another name taken."""


def can_train() -> bool:
    """Whether the libraries that training needs are here."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "tokenizers"))


def name_of(file: str) -> str:
    """A model's name out of a file's."""
    stem = Path(file).name.split(".")[0]
    return re.sub(r"-{2,}", "-", re.sub(r"[^\w+-]", "-", stem)).strip("-")[:40].lower() or "mine"


def checked_name(name: str) -> str:
    """A name that a model can have. TwofileError for what is none."""
    name = name.strip()
    if not name:
        raise TwofileError("the model has no name yet", "give it one")
    if not _NAME.fullmatch(name) or name.lower().endswith(".gguf") or len(name.encode()) > 200:
        raise TwofileError(f"{name!r} cannot be a name", "letters, digits and . _ + - only, a letter or digit first")
    return name


def in_the_way(home: Path, name: str, *, runs: bool = True) -> str:
    """What of this name is there already: "run", "model", or ""."""
    if runs and (home / "runs" / name / "log.jsonl").exists():
        return "run"
    return "model" if name in names.local() else ""


def free_name(home: Path, name: str) -> str:
    """The name, or one like it that nothing has."""
    tries = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next((one for one in tries if not in_the_way(home, one)), name)


def upload(home: Path, id: str) -> Path:
    """The file of an upload. TwofileError where it is gone."""
    path = home / "uploads" / id
    if not _UPLOAD.fullmatch(id) or not path.is_file():
        raise TwofileError("an upload is not here any more", "give the file again")
    return path


def about_path(text: str, folders: bool = True) -> str:
    """What a path leads to, in words. TwofileError where it leads nowhere, or to nothing that can be read."""
    path = _found(text) if folders else _file(text)
    if path.is_file():
        return f"a file of {bytes_of(path.stat().st_size)}"
    count = size = 0
    for place, _, files in os.walk(path):
        for name in files:
            if kind(name):
                count += 1
                with suppress(OSError):
                    size += (Path(place) / name).stat().st_size
        if count > _MANY:
            return f"a folder with more than {_MANY:,} texts"
    if not count:
        raise TwofileError(f"there is no text in {path}", "texts end in .txt, .md, .jsonl, .csv or .parquet")
    return f"a folder with {'one text' if count == 1 else f'{count:,} texts'}, {bytes_of(size)}"


def _found(text: str) -> Path:
    try:
        path = Path(text.strip()).expanduser().absolute()
        there = path.exists()
    except (OSError, RuntimeError, ValueError):
        there = False
    if not there:
        raise TwofileError(f"there is no file or folder {text.strip()!r}", "give its whole path")
    if path.is_file() and not kind(path.name):
        raise TwofileError(f"{path.name} is no text", "texts end in .txt, .md, .jsonl, .csv or .parquet")
    return path


def bytes_of(size: object) -> str:
    """A size in words; "" where it is none."""
    if not isinstance(size, int | float):
        return ""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _minutes(minutes: float) -> float:
    if not 0.05 <= minutes <= _LONGEST:
        raise TwofileError(f"{minutes:g} minutes are no time to train", f"0.05 to {_LONGEST:,.0f}")
    return minutes


def _linked(home: Path, folder: Path, uploads: Sequence[tuple[str, str]], other: str = ".txt") -> list[Path]:
    """Uploads under their own names in a folder, as hard links where the disk allows them."""
    if not uploads:
        return []
    for id, _ in uploads:
        upload(home, id)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made: list[Path] = []
    for id, name in uploads:
        source = upload(home, id)
        if source.suffix != ".text":
            raise TwofileError(f"{name} is no text", "texts end in .txt, .md, .jsonl or .csv")
        shown = re.sub(r"[^\w .+-]", "_", Path(name).name).lstrip(".-")[:80] or "text"
        target = folder / (shown if kind(shown) or shown.endswith((".json", ".jsonl")) else f"{shown}{other}")
        if target in made:
            target = target.with_stem(f"{target.stem}-{len(made) + 1}")
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        made.append(target)
    return made


def _sources(home: Path, folder: Path, texts: Texts) -> list[Path]:
    found = _given(texts)
    return [*_linked(home, folder, texts.uploads), *found]


def _given(texts: Texts) -> list[Path]:
    """The path of this machine that was given, if one was. TwofileError where nothing was."""
    if not texts.uploads and not texts.path.strip():
        raise TwofileError("there is nothing to learn from yet", "choose a text, or name a folder")
    return [_found(texts.path)] if texts.path.strip() else []


def _command(sources: Sequence[Path], texts: Texts, minutes: float) -> list[str]:
    """`train` on sources, without what it is to make."""
    split = SEPARATORS[texts.separator][1]
    return [
        *("train", *map(str, sources), "--minutes", f"{_minutes(minutes):g}"),
        *(("--split", split) if split else ()),
    ]


def foretell(home: Path, texts: Texts, minutes: float) -> list[Number]:
    """The numbers of a run, before it is begun; takes some seconds. TwofileError says why it cannot be."""
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".look-") as folder:
        argv = [*_command(_sources(home, Path(folder) / "texts", texts), texts, minutes), "--dry-run"]
        asked = [sys.executable, "-m", "twofile", *argv]
        done = subprocess.run(asked, capture_output=True, text=True, errors="replace", timeout=300, cwd=folder)
    if done.returncode:
        lines = [line.removeprefix("error: ").removeprefix("hint: ") for line in done.stderr.splitlines()[-2:]]
        raise TwofileError(*(lines or ["it cannot be said"]))
    return [Number(*found.groups()) for line in done.stdout.splitlines() if (found := _LINE.fullmatch(line))]


def begin_training(jobs: Jobs, home: Path, texts: Texts, minutes: float, name: str) -> Job:
    """Begin to train. StartedError where a run of this name is there; TwofileError where it cannot be begun."""
    _given(texts)
    name, minutes = checked_name(name), _minutes(minutes)
    _unused(jobs, home, name)
    folder, run = home / "texts" / name, home / "runs" / name
    sources = _sources(home, folder, texts)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "samples.toml"
    often = min(_LATEST, max(_FIRST, minutes / _SAMPLES))
    recipe.write_text(f"name = {json.dumps(name)}\n[plan]\ndream_minutes = {often:.3f}\n", encoding="utf-8")
    command, *more = _command(sources, texts, minutes)
    argv = [command, str(recipe), *more, "--out", name, "--run", str(run)]
    return jobs.begin("train", name, argv, {"minutes": minutes, "texts": [path.name for path in sources]})


def begin_learning(
    jobs: Jobs,
    home: Path,
    kind: str,
    base: str,
    data: Texts | Store,
    length: float,
    unit: str,
    name: str,
) -> Job:
    """Begin "tune" (on conversations) or "prefer" (on pairs) with a model as its base. `data`: one file, or labels, of
    which what has been judged is written out; `unit`: "minutes" or "steps"."""
    name = checked_name(name)
    _unused(jobs, home, name)
    if not base:
        raise TwofileError("there is no model to begin with", "choose one")
    if unit == "minutes":
        _minutes(length)
    elif not 1 <= length <= 1e7 or length != int(length):
        raise TwofileError(f"{length:g} is no number of steps", "a whole number from 1")
    folder = home / "texts" / name
    if isinstance(data, Store):
        counts = items.export(data, folder)
        part = "pairs" if kind == "prefer" else "conversations"
        if not counts[part]:
            raise TwofileError("there is nothing in the labels to learn from", "label something first")
        source = folder / f"{part}.jsonl"
    else:
        source = _rows(home, folder, data)
    argv = [kind, base, str(source), f"--{unit}", f"{length:g}", "--out", name, "--run", str(home / "runs" / name)]
    return jobs.begin(kind, name, argv, {"base": Path(base).stem, "texts": [source.name], unit: length})


def _rows(home: Path, folder: Path, data: Texts) -> Path:
    """The one file of JSON lines that was given."""
    if data.uploads:
        return _linked(home, folder, data.uploads[:1], ".jsonl")[0]
    if not data.path.strip():
        raise TwofileError("there is nothing to learn from yet", "choose a file of JSON lines")
    return _file(data.path)


def _file(text: str) -> Path:
    try:
        path = Path(text.strip()).expanduser().absolute()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError):
        there = False
    if not there:
        raise TwofileError(f"there is no file {text.strip()!r}", "give its whole path")
    return path


def begin_arena(jobs: Jobs, home: Path, models: Sequence[str], prompts: Texts, longest: int, name: str) -> Job:
    """Let two models or more answer, to be compared by people on the page of labels."""
    name = checked_name(name)
    chosen = list(dict.fromkeys(model for model in models if model))
    if len(chosen) < 2:
        raise TwofileError("an arena compares two models or more", "choose another")
    if not 1 <= longest <= 4096:
        raise TwofileError(f"{longest} tokens are no length of an answer", "1 to 4096")
    folder = home / "arena" / name
    if prompts.uploads or prompts.path.strip():
        path = _rows(home, folder / "prompts", prompts)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "everyday.jsonl"
        rows = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in EVERYDAY]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    argv = ["arena", *chosen, "--prompts", str(path), "--judge", "people", "--labels", str(home / "labels.db")]
    argv += ["--into", str(folder / "arena.jsonl"), "--longest", str(longest), "--json"]
    return jobs.begin("arena", name, argv, {"models": [Path(model).stem for model in chosen]})


def _unused(jobs: Jobs, home: Path, name: str) -> None:
    if any(job.name == name and job.running for job in jobs.all()):
        raise TwofileError(f"{name} is being made", "stop it first, or take another name")
    there = in_the_way(home, name)
    if there == "run":
        raise StartedError(f"a run {name} is there already", "go on with it, or take another name")
    if there:
        raise TwofileError(f"a model {name} is there already", "take another name")


def resume(jobs: Jobs, job: Job) -> Job:
    """Begin a job again, where it was. TwofileError where it runs."""
    argv = [part for part in job.argv if part != "--resume"]
    if "--run" in argv and (Path(argv[argv.index("--run") + 1]) / "log.jsonl").exists():
        argv.append("--resume")
    return jobs.begin(job.kind, job.name, argv, job.about)


def elapsed(job: Job, ended: float | None) -> str:
    """How long a job has run, or ran, and when that was."""
    took = span(max(0.0, (time.time() if ended is None else ended) - job.begun))
    if ended is None:
        return took
    gone = max(1.0, time.time() - ended)
    unit = next((unit for unit, from_ in ((8640, 86400), (360, 3600), (60, 60)) if gone >= from_), 1)
    return f"{took}, {short_span(unit * round(gone / unit))} ago"


def plain(text: str) -> str:
    """What a model said, without what would not be seen as it is."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text.strip()[:4000])


def says(job: Job) -> str:
    """The last that a job said, for before there are figures."""
    lines = [line.strip() for line in job.printed().splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def ratings(job: Job) -> list[Rating]:
    """The table of an arena, the best first; empty where nobody has judged yet."""
    for line in reversed(job.printed("out").splitlines()):
        with suppress(ValueError, TypeError, AttributeError):
            return [Rating(**row) for rows in json.loads(line).values() for row in rows]
    return []


def waiting(job: Job) -> int:
    """How many comparisons of an arena wait for people."""
    found = _WAIT.findall(job.printed())
    return int(found[-1]) if found else 0


class Reader:
    """Reads a run again where it has grown, and not so often that it takes the machine from the training."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._seen: tuple[int, int] | None = None
        self._not_before = 0.0
        self._standing: Standing | None = None
        self._at = 0.0

    def look(self, running: bool = True) -> Standing | None:
        """How the run stands; None where it has not begun. The same object where nothing changed but the time left."""
        try:
            found = (self.run / "log.jsonl").stat()
        except OSError:
            return None
        seen = (found.st_size, found.st_mtime_ns)
        now = time.monotonic()
        if seen != self._seen and (now >= self._not_before or not running):
            with suppress(TwofileError, OSError):
                self._standing = _standing(history.read(self.run), _plan(self.run))
                self._seen, self._at = seen, found.st_mtime
                self._not_before = time.monotonic() + _SHARE * (time.monotonic() - now)
        standing = self._standing
        if standing is None or not running or standing.left is None:
            return standing
        return replace(standing, left=max(0.0, standing.left - max(0.0, time.time() - self._at)))


def _standing(run: History, plan: Mapping[str, Any]) -> Standing | None:
    if not run.groups:
        return None
    end, last = run.end, run.groups[-max(1, len(run.groups) // 50) :]
    share, left = _progress(end, plan)
    bits = run.validations[-1][1] if run.validations else {}
    return Standing(
        share=1.0 if run.finished else share,
        left=0.0 if run.finished else left,
        step=end.step,
        seconds=end.seconds,
        loss=_mean(last, "loss"),
        bits=bits.get("", next(iter(bits.values()), None)),
        speed=_mean(last, "speed"),
        tokens=end.tokens,
        finished=run.finished,
        resumed=len(run.resumed),
        curves=curves(run),
        samples=tuple(reversed(run.dreams)),
        warnings=run.warnings,
    )


def _mean(groups: Sequence[history.Group], key: str) -> float | None:
    spreads = [group.of[key] for group in groups if key in group.of]
    return sum(one.total for one in spreads) / sum(one.n for one in spreads) if spreads else None


def _progress(end: history.Mark, plan: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The share of a run that lies behind, and the seconds that are left: steps or minutes, whichever ends it first."""
    found: list[tuple[float, float]] = []
    steps, minutes = history.number(plan.get("steps")), history.number(plan.get("minutes"))
    if steps and steps > 0:
        found.append((end.step / steps, max(0.0, steps - end.step) * end.seconds / max(1, end.step)))
    if minutes and minutes > 0:
        found.append((end.seconds / (60 * minutes), max(0.0, 60 * minutes - end.seconds)))
    return (min(1.0, max(share for share, _ in found)), min(left for _, left in found)) if found else (None, None)


def _plan(run: Path) -> Mapping[str, Any]:
    """How long a run was to be, from what it keeps."""
    for name, part in (("recipe.json", "plan"), ("tune.json", "asked")):
        with suppress(OSError, ValueError, AttributeError, RecursionError):
            found = json.loads((run / name).read_bytes()).get(part)
            if isinstance(found, dict):
                return found
    return {}


def go_on(jobs: Jobs, home: Path, name: str) -> Job:
    """Go on with a run that is there, whoever began it. TwofileError where nothing says how."""
    job = next((job for job in jobs.all() if job.name == name and job.kind != "arena"), None)
    if job is not None:
        return resume(jobs, job)
    run = home / "runs" / name
    if (run / "tune.json").exists():
        raise TwofileError(f"{name} was begun with a command that is not known here", "take another name")
    return jobs.begin("train", name, ["train", "--out", name, "--run", str(run), "--resume"])
