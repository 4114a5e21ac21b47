"""Files from a hub: resumable, checksummed, placed whole or not at all.

`pull` asks the hub for the parameters files of a repository and their checksums; `fetch` downloads a file, and moves it
to its name only when its checksum is the hub's; one that is not, it downloads once more. What was downloaded before an
interruption stays in a `.part` file beside it, and the next call goes on from there. A broken connection is made again
as long as each brings something. (`hf_hub_download` of huggingface_hub 2 throws the part away, which is why the
transfer below it, `http_get`, is called directly.)

Honours what huggingface_hub honours: HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, proxies. Costs one request for the listing,
one for the file, and one reading of the file for the checksum.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from twofile.errors import DownloadError, NotFoundError

__all__ = ["PREFERRED", "HubName", "Progress", "Remote", "checked_parts", "choose", "explained", "fetch", "pull"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), from the thread that works."""

PREFERRED = ("Q4_K_M", "Q8_0")
"""Where a repository has several files, the first of these types that exactly one of them has is taken."""

_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?::(.+))?", re.ASCII)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True)
class HubName:
    """`hf:user/repo[:file]`, checked so that it can only mean a file inside the models folder."""

    repo: str
    file: str | None

    @classmethod
    def parse(cls, name: str) -> HubName:
        match = _NAME.fullmatch(name)
        usage = "a hub name reads hf:user/repo or hf:user/repo:file.gguf"
        if not match:
            raise NotFoundError(f"{name!r} is not a hub name", usage)
        repo, file = match.groups()
        checked_parts(name, [*repo.split("/"), *(file.split("/") if file else [])], usage)
        if file and not file.endswith(".gguf"):
            raise NotFoundError(f"{file!r} is not a parameters file: twofile pulls .gguf files", usage)
        return cls(repo, file)

    def path(self, folder: Path, file: str) -> Path:
        """Where `file` of this repository lies under the models folder."""
        return folder.joinpath("hf", *self.repo.split("/"), *file.split("/"))


def checked_parts(name: str, parts: list[str], usage: str = "") -> list[str]:
    """The parts of a hub's name, or of a path that a hub sent, or a NotFoundError where one would lead elsewhere."""
    for part in parts:
        if part in ("", ".", "..") or "\\" in part or "\0" in part:
            raise NotFoundError(f"{name!r} is not a hub name: {part!r} cannot be part of one", usage)
    return parts


def choose(files: list[str]) -> str | None:
    """The file meant by a repository's name alone: its only one, else by `PREFERRED`; None where neither decides.

    Files that hold a part of a model (shards, `mmproj` of a vision model) do not count."""
    whole = [file for file in files if not _SHARD.search(file) and "mmproj" not in file.lower()]
    if len(whole) == 1:
        return whole[0]
    for kind in PREFERRED:
        of_kind = [file for file in whole if re.search(rf"(?<![A-Z0-9]){kind}(?![A-Z0-9_])", file.upper())]
        if len(of_kind) == 1:
            return of_kind[0]
    return None


def pull(name: HubName, folder: Path, progress: Progress | None = None) -> Path:
    """Download what `name` means into the models folder `folder`; returns the file.

    A file that is already there is checked against the hub and downloaded again only if it differs."""
    with explained(name.repo):
        files = _listing(name)
        file = files[_chosen(name, sorted(files))]
        HubName.parse(f"hf:{name.repo}:{file.path}")  # the listing came from outside: its names are checked too
        path = name.path(folder, file.path)
        if path.is_file() and file.matches(path):
            return path
        return fetch(file, path, progress)


def fetch(file: Remote, path: Path, progress: Progress | None = None) -> Path:
    """Download `file` to `path`, or what is missing of it; returns `path`. DownloadError says why it did not come."""
    part = path.with_name(f"{path.name}.{file.checksum[:16]}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with explained(file.repo), _alone(part) as stream:
        for _ in range(2):
            _transfer(file, stream, progress)
            if file.matches(part):
                part.replace(path)
                return path
            stream.truncate(stream.seek(0))  # damaged on the way, where afresh helps
        part.unlink()
        raise DownloadError(
            f"{file.path} arrived damaged twice: its checksum is not the one the hub names",
            "run the same command again; where that fails too, the hub's copy is damaged",
        )


@dataclass(frozen=True)
class Remote:
    """A file as the hub describes it. `checksum` is the sha256 of a large file (LFS), the git object id of another."""

    repo: str
    path: str
    commit: str
    size: int
    checksum: str
    kind: str = "model"  # of the repository; or "dataset"

    @classmethod
    def of(cls, repo: str, commit: str | None, file: Any, kind: str = "model") -> Remote:
        """From what huggingface_hub says of a file (RepoSibling or RepoFile); TypeError where it lacks a checksum."""
        checksum = _hexadecimal(file.lfs.sha256 if file.lfs else file.blob_id)
        return cls(repo, file.rfilename, _hexadecimal(commit), int(file.size or 0), checksum, kind)

    def matches(self, path: Path) -> bool:
        size = path.stat().st_size
        if size != self.size:
            return False
        large = len(self.checksum) == 64
        digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest() == self.checksum


def _listing(name: HubName) -> dict[str, Remote]:
    """The parameters files of a repository at its newest commit, by path."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise DownloadError(
            f"hf:{name.repo}{f':{name.file}' if name.file else ''} is not on this machine, and HF_HUB_OFFLINE is set",
            "twofile list shows what is here; unset HF_HUB_OFFLINE to download",
        )
    try:
        info = HfApi(library_name="twofile").model_info(name.repo, files_metadata=True, timeout=20)
        files = [file for file in info.siblings or () if file.rfilename.endswith(".gguf")]
        return {file.rfilename: Remote.of(name.repo, info.sha, file) for file in files}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{constants.ENDPOINT} answered with something that is no listing ({error})") from error


def _hexadecimal(text: str | None) -> str:
    """A commit or a checksum, or a TypeError: both become parts of names here."""
    if text is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text):
        raise TypeError(f"{text!r} is no checksum")
    return text


def _chosen(name: HubName, files: list[str]) -> str:
    listing = "".join(f"\n  hf:{name.repo}:{file}" for file in files)
    if name.file is not None:
        if name.file in files:
            return name.file
        near = get_close_matches(name.file, files, n=1, cutoff=0)
        raise DownloadError(
            f"{name.repo} has no file {name.file}" + (f"; it has:{listing}" if files else " and no .gguf file at all"),
            f"twofile pull hf:{name.repo}:{near[0]}" if near else "",
        )
    chosen = choose(files)
    if chosen is not None:
        return chosen
    if not files:
        raise DownloadError(
            f"{name.repo} has no .gguf file",
            f"hf download {name.repo} --local-dir folder && twofile import folder mine   (for safetensors)",
        )
    raise DownloadError(f"{name.repo} has several files; name one:{listing}", f"twofile pull hf:{name.repo}:FILE")


class _Counted(io.BufferedRandom):
    """A file that reports how much has been written."""

    report: Callable[[int], None]

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.report(self.tell())
        return written


def _transfer(file: Remote, stream: _Counted, progress: Progress | None) -> None:
    """Bring `stream`, which holds the first bytes of the file or none, to the file's size and onto the disk.

    http_get itself goes on after a connection that was closed or has been silent for HF_HUB_DOWNLOAD_TIMEOUT seconds;
    after one that was reset it does not."""
    from huggingface_hub import constants, errors, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    stream.report = lambda done: progress(done, file.size) if progress else None
    url = hf_hub_url(file.repo, file.path, repo_type=file.kind, revision=file.commit, endpoint=constants.ENDPOINT)
    headers = build_hf_headers(library_name="twofile") | {"Accept-Encoding": "identity"}
    while True:
        have = stream.seek(0, os.SEEK_END)
        if have > file.size:
            have = stream.truncate(stream.seek(0))
        try:
            http_get(url, stream, resume_size=have, expected_size=file.size, headers=headers, tqdm_class=_Silent)
            break
        except errors.HfHubHTTPError:
            raise
        except errors.HTTPError:  # type: ignore[attr-defined]
            if stream.seek(0, os.SEEK_END) <= have:
                raise
    stream.flush()
    os.fsync(stream.fileno())


class _Silent:
    """Stands in for tqdm: progress is the caller's."""

    def __init__(self, **_: object) -> None: ...

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, n: float = 1) -> None: ...


@contextmanager
def _alone(part: Path) -> Iterator[_Counted]:
    """Open a part file for this process only: two writers would damage it (and the checksum would refuse it)."""
    stream = _Counted(io.FileIO(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b"))
    with stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # no such lock on this system
        except BlockingIOError:
            raise DownloadError(f"another process is downloading {part.name}", "wait for it to finish") from None
        yield stream


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Turn what can go wrong on the way to a hub into what a person can do about it."""
    from huggingface_hub import constants, errors

    again = "run the same command again: it goes on where it stopped. twofile list shows what is here"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{repo} is gated: its owner wants its terms accepted first",
            f"accept them at {constants.ENDPOINT}/{repo}, then: hf auth login",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(
            f"{constants.ENDPOINT} has no repository {repo}, or it is private",
            "check the spelling; for a private one: hf auth login",
        ) from error
    except errors.HFValidationError as error:
        raise DownloadError(f"hf:{repo} is not a hub name: {error}") from error
    except errors.HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(f"{constants.ENDPOINT} refused: {reason}", again) from error
    except (errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]
        # no connection, a broken one, a full disk, an answer that is no listing
        reason = str(error) or type(error).__name__
        raise DownloadError(f"hf:{repo} did not come from {constants.ENDPOINT}: {reason}", again) from error
