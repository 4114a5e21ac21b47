"""What the library of models computes: what each file is, what it needs to run, what a smaller type would take; names,
and the commands of jobs, made from what a person typed.

Guarantees: a damaged file is listed with what is wrong with it, and takes nothing else with it; what is deleted is a
file of the models folder, never one of the package. Cost: the header of each file, read once as long as it is the same.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twofile.errors import NotFoundError, TwofileError
from twofile.params import names
from twofile.params.adapter import Adapter
from twofile.params.atomic import atomic_path
from twofile.params.blocks import size
from twofile.params.container import Container
from twofile.params.hyper import Hyperparameters
from twofile.params.mixture import FILE_TYPES, file_type, plan
from twofile.params.parameters import Parameters
from twofile.params.pull import HubName
from twofile.serve.pages.jobs import Job, Jobs, State

__all__ = [
    "KINDS",
    "Details",
    "Entry",
    "Need",
    "Shelf",
    "Standing",
    "adopt",
    "delete",
    "exported",
    "forget_parts",
    "hub_name",
    "imported",
    "job_name",
    "new_name",
    "parts",
    "progress_of",
    "quantised",
    "source",
    "standings",
]

KINDS = ("pull", "quantise", "import", "export")
"""The kinds of jobs that the library begins."""

_ROWS, _PASS = 512, 64 << 20  # of a pass at the most (most_rows in run.c)
_LANES = 16  # numbers to whose multiple a head is padded in the cache
_PLACES = re.compile(r"([\d,]+) of ([\d,]+) bytes")
_HUBS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_CARDS = ("# Report card of ",)


@dataclass(frozen=True)
class Need:
    """Bytes of memory that a model takes: its weights, the keys and values of one full context, and what a pass works
    in."""

    weights: int
    cache: int
    work: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.work

    @classmethod
    def of(cls, hyper: Hyperparameters, weights: int, cache_item: int = 2) -> Need:
        """`cache_item`: bytes of a number in the cache, 4 where all matrices are F32."""
        padded = math.ceil(hyper.head_dim / _LANES) * _LANES
        cache = 2 * hyper.n_layers * hyper.n_kv_heads * padded * cache_item * hyper.context_length
        heads = (2 * hyper.n_heads + 2 * hyper.n_kv_heads) * hyper.head_dim
        row = 4 * (2 * hyper.dim + hyper.ffn_dim + heads)
        rows = max(1, min(_ROWS, _PASS // row))
        angles = 4 * hyper.head_dim * hyper.context_length
        return cls(weights, cache, rows * row + 4 * hyper.vocab_size * 2 + angles)


@dataclass(frozen=True)
class Details:
    """What a parameters file says of itself. `type`: what it was quantised to, else that of most of it; `bits`: a
    weight's; `types`: what else the whole file could be, with the bytes of it; `chat`: it was trained as an
    assistant."""

    title: str
    family: str
    parameters: int
    type: str
    bits: float
    context: int
    chat: bool
    license: str
    need: Need
    types: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Entry:
    """A file of the library. `details`: None for an adapter, and where there is a `problem`."""

    name: str
    path: Path
    where: Literal["bundled", "local", "pulled"]
    bytes: int
    details: Details | None = None
    adapter: str = ""
    problem: str = ""

    @property
    def short(self) -> str:
        """What a file made of it could be called."""
        return re.sub(r"[^\w.+-]", "-", self.path.stem).lstrip(".-") or "model"


@dataclass(frozen=True)
class Standing:
    """A job as it stands. `progress`: bytes done and in all, where it has said so; `left`: bytes that came of a hub's
    file and are not whole yet."""

    job: Job
    state: State
    problem: str
    progress: tuple[int, int] | None
    left: int = 0


class Shelf:
    """The models and adapters of this machine, each header read once. Of any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], Entry] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """All of them, those of the user first."""
        found: list[Entry] = []
        with self._lock:
            for where, known in (("local", names.local()), ("pulled", names.pulled()), ("bundled", names.bundled())):
                for name, path in known.items():
                    try:
                        status = path.stat()
                    except OSError:
                        continue  # it has just gone
                    key = (path, status.st_mtime_ns, status.st_size)
                    if key not in self._known:
                        self._known[key] = _entry(name, path, where, status.st_size)  # type: ignore[arg-type]
                    found.append(self._known[key])
        return found


def _entry(name: str, path: Path, where: Literal["bundled", "local", "pulled"], bytes: int) -> Entry:
    try:
        if Adapter.is_in(path):
            changed = len(Container(path).tensors) // 2
            return Entry(name, path, where, bytes, adapter=f"low-rank changes of {changed} matrices")
        with Parameters.open(path) as parameters:
            return Entry(name, path, where, bytes, _details(parameters, bytes))
    except (TwofileError, OSError, ValueError) as error:
        said = error.message if isinstance(error, TwofileError) else str(error)
        return Entry(name, path, where, bytes, problem=said or type(error).__name__)


def _details(parameters: Parameters, bytes: int) -> Details:
    hyper, tensors = parameters.hyper, list(parameters.tensors.values())
    weights = sum(one.bytes for one in tensors)
    by_type: dict[str, int] = {}
    for one in tensors:
        by_type[one.type] = by_type.get(one.type, 0) + math.prod(one.shape)
    matrices = {one.type for one in tensors if len(one.shape) > 1}
    declared = parameters.metadata.get("general.file_type")
    named = next((type for type in FILE_TYPES if file_type(type) == declared), "")
    others = tuple((type, _size_in(hyper, type) + bytes - weights) for type in FILE_TYPES)
    return Details(
        title=parameters.provenance.name,
        family=hyper.architecture,
        parameters=hyper.n_parameters,
        type=named or max(by_type, key=lambda type: by_type[type]),
        bits=8 * weights / sum(by_type.values()),
        context=hyper.context_length,
        chat=bool(parameters.vocabulary.chat_template),
        license=parameters.provenance.license,
        need=Need.of(hyper, weights, 4 if matrices == {"F32"} else 2),
        types=others,
    )


def _size_in(hyper: Hyperparameters, type: str) -> int:
    """Bytes of all tensors in a type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that fit no block: the size has that in it
        return sum(size(kind, shape) for shape, kind in plan(hyper, type).values())


def new_name(name: str) -> str:
    """A local name that is free. TwofileError for one that is none, or is taken."""
    wanted = name.strip().removesuffix(".gguf")
    if not wanted:
        raise TwofileError("a name is missing", "letters, digits and . _ + - only")
    if "/" in wanted or "\\" in wanted or wanted.startswith("-"):
        raise TwofileError(f"{name!r} cannot be a name", "letters, digits and . _ + - only, and not a dot first")
    if names.target(wanted).exists():
        raise TwofileError(f"there is a model {wanted} already", "give another name, or delete that one")
    return wanted


def hub_name(text: str) -> str:
    """A hub's name as it was typed, or of a page's address that was pasted. NotFoundError for what is none."""
    given = text.strip()
    if _HUBS.match(given):
        repo, _, file = _HUBS.sub("", given).partition("?")[0].strip("/").partition("/blob/")
        file = file or repo.partition("/resolve/")[2]
        repo, file = repo.partition("/resolve/")[0], file.partition("/")[2]
        given = f"hf:{'/'.join(repo.split('/')[:2])}" + (f":{file}" if file.endswith(".gguf") else "")
    elif re.fullmatch(r"[\w.-]+/[\w.-]+(:.+)?", given, re.ASCII):
        given = f"hf:{given}"
    HubName.parse(given)
    return given


def job_name(name: str) -> str:
    """What the job of a hub's name is called: one for each."""
    sign = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^a-zA-Z0-9_.+-]', '-', name.removeprefix('hf:')).lstrip('.')[:80]}-{sign}"


def source(text: str) -> Path:
    """A file or folder as it was typed. TwofileError for one that is not there."""
    try:
        path = Path(text.strip()).expanduser()
        there = path.is_absolute() and path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise TwofileError(f"{text!r} is no path: {error}") from None
    if not text.strip() or not path.is_absolute():
        raise TwofileError("the whole path is needed", "it begins with / or ~")
    if not there:
        raise NotFoundError(
            f"{path} does not exist", "give a Hugging Face folder, a llama2.c .bin file or a .gguf file"
        )
    return path


def progress_of(job: Job) -> tuple[int, int] | None:
    """Bytes that have come and bytes in all, where a job has said so."""
    found = _PLACES.findall(job.printed())
    if not found:
        return None
    done, total = (int(number.replace(",", "")) for number in found[-1])
    return (done, total) if total else None


def standings(jobs: Jobs) -> list[Standing]:
    """The jobs of the library as they stand, the newest first."""
    found = []
    for job in jobs.all():
        if job.kind not in KINDS:
            continue
        state, left = job.state, 0
        if job.kind == "pull" and state != "done":
            left = _bytes(parts(str(job.about.get("model", ""))))
        found.append(Standing(job, state, job.problem, progress_of(job) if job.kind == "pull" else None, left))
    return found


def _bytes(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        with suppress(OSError):  # it has just become whole
            total += path.stat().st_size
    return total


def adopt(path: Path, name: str) -> Path:
    """Copy a parameters file into the models folder once it is known to be one. TwofileError where it is none, or there
    is no room."""
    target = names.target(new_name(name))
    if Adapter.is_in(path):
        Adapter.open(path)
    else:
        Parameters.open(path).close()
    free, wanted = shutil.disk_usage(target.parent).free, path.stat().st_size
    if wanted > free:
        raise TwofileError(f"{path.name} has {wanted:,} bytes, and the disk has room for {free:,}", "delete something")
    with atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)
    return target


def delete(entry: Entry) -> None:
    """Delete a file that is the user's, and its report card beside it. TwofileError for one of the package."""
    root = names.models_folder()
    if entry.where == "bundled" or root not in entry.path.parents:
        raise TwofileError(f"{entry.name} came with the program", "only your own models can be deleted")
    entry.path.unlink(missing_ok=True)
    card = entry.path.with_suffix(".md")
    if card.is_file() and card.read_text("utf-8", "replace").startswith(_CARDS):
        card.unlink()
    _empty(entry.path.parent, root)


def parts(name: str) -> list[Path]:
    """What has come of a hub's file that is not whole."""
    try:
        wanted = HubName.parse(name)
    except NotFoundError:
        return []
    folder = names.models_folder() / "hf" / Path(*wanted.repo.split("/"))
    found = [path for path in folder.rglob("*.part") if re.search(r"\.gguf\.[0-9a-f]{16}\.part$", path.name)]
    if wanted.file is None:
        return found
    return [path for path in found if str(path.relative_to(folder)).startswith(f"{wanted.file}.")]


def forget_parts(name: str) -> None:
    """Delete what has come of a hub's file that is not whole."""
    for path in parts(name):
        path.unlink(missing_ok=True)
        _empty(path.parent, names.models_folder())


def _empty(folder: Path, root: Path) -> None:
    """Remove a folder below another, and those above it, where nothing is left in them."""
    while root in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def quantised(entry: Entry, type: str, name: str) -> Sequence[str]:
    """The command that makes a file in another type."""
    return ["quantise", "--out", name, "--", str(entry.path), type]


def imported(path: Path, name: str, type: str = "", tokenizer: Path | None = None) -> Sequence[str]:
    """The command that makes a parameters file of other people's layouts."""
    options = ["--type", type] if type else []
    return ["import", *options, *(["--tokenizer", str(tokenizer)] if tokenizer else []), "--", str(path), name]


def exported(entry: Entry, folder: str, type: str = "") -> tuple[Path, Sequence[str]]:
    """The folder, and the command that makes it. TwofileError for one that cannot be made, or has something in it."""
    try:
        path = Path(folder.strip()).expanduser()
    except RuntimeError as error:
        raise TwofileError(f"{folder!r} is no path: {error}") from None
    if not folder.strip() or not path.is_absolute():
        raise TwofileError("the whole path of a folder is needed", "it begins with / or ~")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise TwofileError(f"{path} is there already", "give a folder that is new or empty")
    return path, ["export", *(["--type", type] if type else []), "--", str(entry.path), str(path)]
