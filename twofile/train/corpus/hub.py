"""Datasets on a hub: `hf:datasets/user/repo[@revision][:pattern]` as a list of files that come when they are read.

Guarantees: the files of one name stay those of one commit for the life of the process; a file is read only once all of
it is here and its checksum is the hub's. So a dataset is streamed a file at a time, and costs disk for the files that
are open or kept, under `<TWOFILE_HOME>/data/hf/<user>/<repo>/<commit>/`. Without network (HF_HUB_OFFLINE) the files
that were kept are found again by the list that lies beside them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from glob import has_magic
from hashlib import sha256
from pathlib import Path

from twofile.errors import DownloadError, NotFoundError
from twofile.params.atomic import write_json
from twofile.params.names import models_folder
from twofile.params.pull import Remote, checked_parts, explained
from twofile.train.corpus.reading import KINDS, File, kind

__all__ = ["Dataset", "listing"]

_NAME = re.compile(r"hf:datasets/([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::(.+))?", re.ASCII)
_USAGE = "a dataset's name reads hf:datasets/user/repo, with :data/*.parquet behind it for some of its files"


@dataclass(frozen=True)
class Dataset:
    """Some files of a dataset: those whose path matches `pattern`, in which * also stands for a slash."""

    repo: str
    revision: str | None
    pattern: str

    @classmethod
    def parse(cls, name: str) -> Dataset:
        match = _NAME.fullmatch(name)
        if not match:
            raise NotFoundError(f"{name!r} is not the name of a dataset", _USAGE)
        repo, revision, pattern = match.groups()
        checked_parts(name, repo.split("/"), _USAGE)
        return cls(repo, revision, pattern or "*")

    @property
    def folder(self) -> str:
        """The folder of the repository in which all that matches must lie; empty for the whole."""
        fixed = self.pattern.split("/")[:-1]
        for i, part in enumerate(fixed):
            if has_magic(part):
                return "/".join(fixed[:i])
        return "/".join(fixed)


def listing(name: str) -> list[File]:
    """The files that a name means, sorted by path. DownloadError where the hub does not say, NotFoundError for none."""
    from huggingface_hub import constants

    return list(_listing(name, constants.ENDPOINT, models_folder().parent / "data" / "hf"))


@cache  # what a name means must not change between the first and the last reading of a corpus
def _listing(name: str, _endpoint: str, root: Path) -> tuple[File, ...]:
    from huggingface_hub import constants

    dataset = Dataset.parse(name)
    home = root.joinpath(*dataset.repo.split("/"))
    remembered = home / f"{sha256(name.encode()).hexdigest()[:16]}.json"
    if constants.HF_HUB_OFFLINE:
        if not remembered.exists():
            raise DownloadError(f"{name} is not on this machine, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
        found = [Remote(**entry) for entry in json.loads(remembered.read_text(encoding="utf-8"))]
    else:
        found = _ask(dataset)
        if not found:
            message = f"{name}: the dataset has no file {dataset.pattern} of a kind that can be read"
            raise NotFoundError(message, f"the kinds are {', '.join(KINDS)}, packed too; {_USAGE}")
        home.mkdir(parents=True, exist_ok=True)
        write_json(remembered, [dataclasses.asdict(remote) for remote in found])
    return tuple(
        File(f"{dataset.repo}:{remote.path}", home.joinpath(remote.commit, *remote.path.split("/")), remote)
        for remote in found
    )


def _ask(dataset: Dataset) -> list[Remote]:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import RepoFile

    with explained(f"datasets/{dataset.repo}"):
        try:
            hub = HfApi(library_name="twofile")
            commit = hub.dataset_info(dataset.repo, revision=dataset.revision, timeout=20).sha
            tree = hub.list_repo_tree(
                dataset.repo, dataset.folder or None, recursive=True, revision=commit, repo_type="dataset"
            )
            found = [
                Remote.of(dataset.repo, commit, file, "dataset")
                for file in tree
                if isinstance(file, RepoFile) and kind(file.path) and fnmatchcase(file.path, dataset.pattern)
            ]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{constants.ENDPOINT} answered with something that is no listing ({error})") from error
    for remote in found:
        checked_parts(remote.path, remote.path.split("/"))
    found = [remote for remote in found if dataset.pattern != "*" or not _is_card(remote.path)]
    return sorted(found, key=lambda remote: remote.path)


def _is_card(path: str) -> bool:
    """Whether a file speaks about the dataset rather than being some of it."""
    return path.lower().endswith(".md") or path.lower() in ("license.txt", "licence.txt", "requirements.txt")
