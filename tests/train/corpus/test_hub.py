"""Datasets from a hub on loopback: which files, streaming, faults, offline."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.params.hub import COMMIT, Hub, serving
from tests.params.test_pull import turn_to
from twofile.errors import DownloadError, NotFoundError
from twofile.train.corpus import hub as hub_module
from twofile.train.corpus.hub import Dataset
from twofile.train.corpus.refine import Machines, Settings, refine
from twofile.train.corpus.sources import Source, documents, files, named, sha256

TEXTS = [f"Document {i}" + " with words" * 30 for i in range(60)]
NAME = "hf:datasets/ada/stories"


def lines(texts: list[str]) -> bytes:
    return "\n".join(json.dumps({"text": text}) for text in texts).encode()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    content = {
        "README.md": b"about it",
        "data/b.jsonl.gz": gzip.compress(lines(TEXTS[20:40])),
        "data/a.jsonl": lines(TEXTS[:20]),
        "extra/c.jsonl": lines(TEXTS[40:]),
        "data/picture.png": b"x" * 200,
    }
    with serving(Hub({"datasets/ada/stories": content})) as hub:
        turn_to(hub.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        yield hub
        close_session()
        hub_module._listing.cache_clear()


def read(name: str = NAME) -> list[str]:
    return [document.text for document in documents(Source(name, "a", held_out=0), Path("nowhere"))]


def test_the_files_that_can_be_read_in_order(hub: Hub) -> None:
    assert read() == TEXTS
    assert read(f"{NAME}:data/*") == TEXTS[:40]
    assert read(f"{NAME}:*b.jsonl.gz") == TEXTS[20:40]
    assert not hub.asked("README")
    assert not hub.asked("png")


def test_a_file_comes_when_it_is_read_and_only_once(hub: Hub) -> None:
    stream = documents(Source(NAME, "a", held_out=0), Path())
    for _ in range(20):
        next(stream)
    assert len(hub.asked("/storage/")) == 1
    assert len(list(stream)) == 40
    read()
    assert len(hub.asked("/storage/")) == 3
    assert len(hub.asked("/api/")) == 2


@pytest.mark.parametrize("fault", ["break_after", "reset_after", "stall_after", "damage_at"])
def test_a_fault_of_the_network_is_survived(hub: Hub, fault: str) -> None:
    """Dropped, reset, silent: it goes on where it stopped. A changed byte: caught, and the file fetched again."""
    setattr(hub, fault, 3000)
    assert read(f"{NAME}:data/a.jsonl") == TEXTS[:20]
    again = hub.asked("/storage/")[1].get("range")
    assert again == (None if fault == "damage_at" else "bytes=3000-")


def test_a_damaged_copy_on_the_hub_is_refused_before_a_line_is_read(hub: Hub) -> None:
    hub.lie = lines(TEXTS[:20]).replace(b"Document 7", b"Document 8")
    stream = documents(Source(f"{NAME}:data/a.jsonl", "a", held_out=0), Path())
    with pytest.raises(DownloadError, match="damaged"):
        next(stream)


def test_offline_finds_what_was_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    read(f"{NAME}:data/*")
    hub_module._listing.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert read(f"{NAME}:data/*") == TEXTS[:40]
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        read(f"{NAME}:extra/*")
    assert len(hub.requests) == asked


def test_offline_a_missing_file_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    stream = documents(Source(NAME, "a", held_out=0), Path())
    next(stream)
    hub_module._listing.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"data/b\.jsonl\.gz.*HF_HUB_OFFLINE"):
        read()


def test_a_download_that_is_not_kept(hub: Hub) -> None:
    file = files(Source(NAME, "a"), Path())[0]
    with file.here(keep=False) as path:
        assert path.parts[-3:] == (COMMIT, "data", "a.jsonl")
        assert path.exists()
    assert not path.exists()


def test_refining_a_dataset_streams_it(hub: Hub, tmp_path: Path, own_home: Path) -> None:
    """Through a fault, without keeping what was read, and with the hub's checksums in the card."""
    hub.damage_at, hub.break_after = 1000, 1000
    given = Settings(tuple(named([NAME], clean=False)), filters=(), dedup=False, held_out=0)
    assert refine(given, Machines(tasks=2, workers=1), tmp_path / "out", lambda _: None)
    (source,) = named([str(tmp_path / "out")])
    assert sorted(document.text for document in documents(source, Path())) == sorted(TEXTS)
    assert not [path for path in (own_home / "data").rglob("*") if path.is_file() and path.suffix != ".json"]
    card = json.loads((tmp_path / "out/card.json").read_text())
    read = {file["name"]: file["checksum"] for file in card["sources"][0]["files"]}
    content = hub.files["datasets/ada/stories"]["data/a.jsonl"]
    assert read["ada/stories:data/a.jsonl"] == hashlib.sha256(content).hexdigest()


def test_a_dataset_with_a_dot_gets_a_name(hub: Hub) -> None:
    assert [source.name for source in named(["hf:datasets/ada/stories-v1.2"])] == ["ada-stories-v1-2"]


def test_its_hash_needs_no_download(hub: Hub) -> None:
    before = sha256(Source(NAME, "a"), Path())
    assert not hub.asked("/storage/")
    hub.files["datasets/ada/stories"]["data/a.jsonl"] += b"\n"
    assert sha256(Source(NAME, "a"), Path()) == before  # one process, one commit
    hub_module._listing.cache_clear()
    assert sha256(Source(NAME, "a"), Path()) != before


def test_a_listing_cannot_lead_out_of_the_folder(hub: Hub) -> None:
    hub.files["datasets/ada/stories"] = {"../../../../escaped.txt": b"x"}
    with pytest.raises(NotFoundError, match="cannot be part"):
        read()


def test_nothing_there(hub: Hub) -> None:
    with pytest.raises(DownloadError, match="has no repository"):
        read("hf:datasets/ada/none")
    with pytest.raises(NotFoundError, match=r"no file \*\.csv"):
        read(f"{NAME}:*.csv")


@pytest.mark.parametrize("name", ["hf:ada/stories", "hf:datasets/ada", "hf:datasets/ada/..", "hf:datasets/ada/x:"])
def test_bad_names(name: str) -> None:
    with pytest.raises(NotFoundError):
        Dataset.parse(name)


def test_names() -> None:
    assert Dataset.parse(f"{NAME}@v1:data/en/*.parquet") == Dataset("ada/stories", "v1", "data/en/*.parquet")
    assert Dataset.parse(f"{NAME}:data/en/*.parquet").folder == "data/en"
    assert Dataset.parse(f"{NAME}:data/*/x.parquet").folder == "data"
    assert Dataset.parse(NAME).folder == ""
    assert [source.name for source in named([NAME, f"{NAME}:x.txt"])] == ["ada-stories", "ada-stories-2"]
