"""Downloads: from a hub on loopback, with its faults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.params.hub import Hub, serving
from twofile.errors import DownloadError, NotFoundError
from twofile.params.names import resolve
from twofile.params.pull import HubName, choose, pull

CONTENT = bytes(range(256)) * 40
REPO = "ada/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with serving(Hub({REPO: {"tiny.gguf": CONTENT, "README.md": b"small"}})) as hub:
        turn_to(hub.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        yield hub
        close_session()


def turn_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What setting HF_ENDPOINT before the start of the process does."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def get(text: str, folder: Path, **options: object) -> Path:
    return pull(HubName.parse(text), folder, **options)  # type: ignore[arg-type]


def test_download(hub: Hub, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = get("hf:ada/tiny", tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "hf" / "ada" / "tiny" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert list(path.parent.iterdir()) == [path]


def test_small_file_is_checked_by_its_git_id(hub: Hub, tmp_path: Path) -> None:
    hub.large = 10**9
    assert get("hf:ada/tiny:tiny.gguf", tmp_path).read_bytes() == CONTENT
    (tmp_path / "hf").rename(tmp_path / "gone")
    hub.lie = CONTENT[::-1]
    with pytest.raises(DownloadError, match="damaged"):
        get("hf:ada/tiny:tiny.gguf", tmp_path)


def test_broken_connection_resumes_in_the_same_call(hub: Hub, tmp_path: Path) -> None:
    hub.break_after = 4000
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT
    assert [request.get("range") for request in hub.asked("/storage/")] == [None, "bytes=4000-"]


def test_a_reset_connection_resumes_in_the_same_call(hub: Hub, tmp_path: Path) -> None:
    hub.reset_after = 4000
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT
    assert [request.get("range") for request in hub.asked("/storage/")] == [None, "bytes=4000-"]


def test_a_stalled_connection_resumes_in_the_same_call(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.stall_after = 4000
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT
    assert [request.get("range") for request in hub.asked("/storage/")] == [None, "bytes=4000-"]


def test_a_byte_damaged_on_the_way_is_caught_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.damage_at = 5000
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT
    assert [request.get("range") for request in hub.asked("/storage/")] == [None, None]


def interrupt_at(count: int) -> object:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_interrupted_download_goes_on_in_the_next_call(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        get("hf:ada/tiny", tmp_path, progress=interrupt_at(5000))
    (part,) = (tmp_path / "hf/ada/tiny").iterdir()
    assert part.suffix == ".part"
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT
    assert hub.asked("/storage/")[-1]["range"] == "bytes=5000-"
    assert not part.exists()


def test_resuming_from_a_server_without_ranges_starts_again(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    with pytest.raises(KeyboardInterrupt):
        get("hf:ada/tiny", tmp_path, progress=interrupt_at(5000))
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("lie", [CONTENT[:-1] + b"x", CONTENT[:-1], CONTENT + b"x"], ids=["changed", "short", "long"])
def test_wrong_content_is_refused(hub: Hub, tmp_path: Path, lie: bytes) -> None:
    hub.lie = lie
    with pytest.raises(DownloadError):
        get("hf:ada/tiny", tmp_path)
    assert not (tmp_path / "hf/ada/tiny/tiny.gguf").exists()
    hub.lie = None
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT


def test_a_changed_file_is_pulled_again_and_an_unchanged_one_is_not(hub: Hub, tmp_path: Path) -> None:
    path = get("hf:ada/tiny", tmp_path)
    assert get("hf:ada/tiny", tmp_path) == path
    assert len(hub.asked("/storage/")) == 1
    hub.files[REPO]["tiny.gguf"] = CONTENT[::-1]
    assert get("hf:ada/tiny", tmp_path).read_bytes() == CONTENT[::-1]


def test_the_token_stays_with_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get("hf:ada/tiny", tmp_path)
    assert "hf_secret" in hub.asked("/resolve/")[0]["authorization"]
    assert "authorization" not in hub.asked("/storage/")[0]


def test_unknown_and_gated_repositories(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="has no repository ada/giant"):
        get("hf:ada/giant", tmp_path)
    hub.gated = True
    with pytest.raises(DownloadError, match="gated") as caught:
        get("hf:ada/tiny", tmp_path)
    assert f"{hub.url}/ada/tiny" in caught.value.hint


def test_unknown_file_names_the_files(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"has no file tinny\.gguf; it has:\n  hf:ada/tiny:tiny\.gguf") as caught:
        get("hf:ada/tiny:tinny.gguf", tmp_path)
    assert caught.value.hint == "twofile pull hf:ada/tiny:tiny.gguf"


def test_several_files_are_listed(hub: Hub, tmp_path: Path) -> None:
    hub.files[REPO]["other.gguf"] = b"other"
    with pytest.raises(DownloadError, match=r"hf:ada/tiny:other\.gguf\n  hf:ada/tiny:tiny\.gguf"):
        get("hf:ada/tiny", tmp_path)


def test_no_parameters_file(hub: Hub, tmp_path: Path) -> None:
    hub.files[REPO] = {"model.safetensors": b"x"}
    with pytest.raises(DownloadError, match=r"has no \.gguf file") as caught:
        get("hf:ada/tiny", tmp_path)
    assert "twofile import" in caught.value.hint


def test_a_listing_cannot_lead_out_of_the_folder(hub: Hub, tmp_path: Path) -> None:
    hub.files[REPO] = {"../../../../escaped.gguf": CONTENT}
    with pytest.raises(NotFoundError, match="cannot be part"):
        get("hf:ada/tiny", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "listing",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"id": "x", "siblings": [{}]}',
        b'{"id": "x", "sha": "../..", "siblings": [{"rfilename": "a.gguf"}]}',
    ],
)
def test_an_answer_that_is_no_listing(hub: Hub, tmp_path: Path, listing: bytes) -> None:
    hub.listing = listing
    with pytest.raises(DownloadError):
        get("hf:ada/tiny", tmp_path)


def test_no_connection(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(DownloadError, match="did not come from") as caught:
        get("hf:ada/tiny", tmp_path)
    assert "twofile list" in caught.value.hint


def test_one_process_at_a_time(hub: Hub, tmp_path: Path) -> None:
    def pull_once_more(done: int, total: int) -> None:
        with pytest.raises(DownloadError, match="another process"):
            get("hf:ada/tiny", tmp_path)

    get("hf:ada/tiny", tmp_path, progress=pull_once_more)


def test_a_pulled_file_needs_no_network(hub: Hub, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    path = resolve("hf:ada/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert resolve("hf:ada/tiny") == resolve("hf:ada/tiny:tiny.gguf") == path
    assert len(hub.requests) == asked
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        resolve("hf:ada/tiny:more.gguf")


def test_the_environment_chooses_the_hub(hub: Hub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "TWOFILE_HOME": str(tmp_path)}
    code = "from twofile import resolve; print(resolve('hf:ada/tiny'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.gguf"], "a.gguf"),
        (["a-Q8_0.gguf", "a-Q4_K_M.gguf", "a-f16.gguf"], "a-Q4_K_M.gguf"),
        (["a.q8_0.gguf", "a.q2_k.gguf"], "a.q8_0.gguf"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "b-Q8_0.gguf"], "b-Q8_0.gguf"),
        (["a-Q4_K_M-00001-of-00002.gguf", "a-Q4_K_M-00002-of-00002.gguf", "a-Q8_0.gguf"], "a-Q8_0.gguf"),
        (["mmproj-a-f16.gguf", "a-f16.gguf"], "a-f16.gguf"),
        (["a-IQ4_XS.gguf", "a-f16.gguf"], None),
        ([], None),
    ],
)
def test_choose(files: list[str], chosen: str | None) -> None:
    assert choose(files) == chosen


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:ada", "hf:ada/..", "hf:../tiny", "hf:ada/tiny:", "hf:ada/tiny:../x.gguf", "hf:ada/tiny:/x.gguf",
     "hf:ada/tiny:a//x.gguf", "hf:ada/tiny:a\\x.gguf", "hf:ada/tiny:x.bin", "hf:a b/tiny", "hf:ada/tiny/x",
     "hf:ada/tiny:a\0.gguf"],
)  # fmt: skip
def test_bad_hub_names(name: str) -> None:
    with pytest.raises(NotFoundError):
        HubName.parse(name)
