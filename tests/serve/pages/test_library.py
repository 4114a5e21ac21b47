"""The library: what a model needs, what a person types, and the page with a hub on loopback, jobs and all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.params.hub import Hub, serving
from tests.serve.pages.conftest import Site, Watched, serious
from tests.tiny import tiny_parameters
from twofile.errors import TwofileError
from twofile.params import names
from twofile.params.hyper import Hyperparameters
from twofile.serve.pages import shelf
from twofile.serve.pages.jobs import Job, Jobs
from twofile.serve.pages.shelf import Need, Shelf

CHUNK = 10 << 20  # bytes that the hub's client writes at once
SEEN = 60_000  # milliseconds that a job may take on a busy machine


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    content = names.bundled()["assistant"].read_bytes()
    with serving(Hub({"ada/tiny": {"tiny-Q8_0.gguf": content}})) as made:
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[Site]:
    """A server whose hub is ours."""
    made = Site(tmp_path_factory.mktemp("site") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HUB_OFFLINE", "0")
        made.start()
    yield made
    made.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWOFILE_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path


# What is computed.


def test_the_memory_that_the_bundled_models_need(home: Path) -> None:
    found = {one.name: one for one in Shelf().entries()}
    assert set(found) == {"assistant", "base", "stories"}
    details = found["assistant"].details
    assert details is not None
    # 2 of keys and values, 5 layers, 2 heads of 64 numbers, 512 tokens, 2 bytes
    assert details.need.cache == 2 * 5 * 2 * 64 * 512 * 2 == 1_310_720
    # 10,223,616 numbers of matrices, 34 bytes for 32 of them; 4,864 numbers of norms, 4 bytes
    assert details.need.weights == 10_223_616 // 32 * 34 + 4_864 * 4 == 10_882_048
    assert 0 < details.need.work < 64 << 20
    assert details.need.total == details.need.weights + details.need.cache + details.need.work
    assert (details.type, details.chat, details.context) == ("Q8_0", True, 512)
    assert dict(details.types)["Q8_0"] == found["assistant"].bytes
    base = found["base"].details
    assert base is not None
    assert not base.chat


def test_the_memory_of_a_large_model() -> None:
    eight = Hyperparameters("llama", 128_256, 131_072, 4096, 32, 32, 8, 128, 14_336)
    need = Need.of(eight, 4_900_000_000)
    assert need.cache == 2 * 32 * 8 * 128 * 131_072 * 2 == 16 << 30
    assert need.work < 256 << 20
    assert Need.of(eight, 1, 4).cache == 32 << 30
    odd = Hyperparameters("llama", 100, 10, 40, 1, 2, 2, 20, 40)
    assert Need.of(odd, 1).cache == 2 * 1 * 2 * 32 * 10 * 2  # a head of 20 numbers takes 32


def test_a_damaged_file_is_listed_and_takes_nothing_with_it(home: Path) -> None:
    (home / "models" / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    (home / "models" / "empty.gguf").touch()
    found = {one.name: one for one in Shelf().entries()}
    assert found["broken"].problem
    assert found["empty"].problem
    assert found["base"].details is not None


def test_what_comes_of_a_smaller_type(home: Path) -> None:
    from twofile.params.quantise import quantise

    path = tiny_parameters("qwen3", "F32", 1, home / "models" / "tiny.gguf")
    (entry,) = [one for one in Shelf().entries() if one.name == "tiny"]
    assert entry.details is not None
    for type in ("Q8_0", "F16"):
        quantise(path, home / "models" / "other.gguf", type)
        assert abs(dict(entry.details.types)[type] - (home / "models" / "other.gguf").stat().st_size) < 4096


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("hf:ada/tiny", "hf:ada/tiny"),
        (" ada/tiny ", "hf:ada/tiny"),
        ("ada/tiny:a/b.gguf", "hf:ada/tiny:a/b.gguf"),
        ("https://huggingface.co/ada/tiny", "hf:ada/tiny"),
        ("https://huggingface.co/ada/tiny/tree/main", "hf:ada/tiny"),
        ("https://huggingface.co/ada/tiny/blob/main/b.gguf", "hf:ada/tiny:b.gguf"),
        ("huggingface.co/ada/tiny/resolve/main/a/b.gguf?download=true", "hf:ada/tiny:a/b.gguf"),
    ],
)
def test_names_of_a_hub(typed: str, name: str) -> None:
    assert shelf.hub_name(typed) == name


@pytest.mark.parametrize(
    "typed", ["", "tiny", "hf:../x", "hf:ada/..", "https://evil.example/ada/tiny", "ada/tiny:a.bin"]
)
def test_what_is_no_name_of_a_hub(typed: str) -> None:
    with pytest.raises(TwofileError):
        shelf.hub_name(typed)


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", "-x", ".x", "a\\b", "there"])
def test_what_is_no_new_name(home: Path, name: str) -> None:
    (home / "models" / "there.gguf").touch()
    with pytest.raises(TwofileError):
        shelf.new_name(name)
    assert shelf.new_name("new.gguf") == "new"


def test_what_is_copied_is_checked_first(home: Path, tmp_path: Path) -> None:
    path = tiny_parameters("qwen3", "F32", 1, tmp_path / "mine.gguf")
    assert shelf.adopt(path, "own").read_bytes() == path.read_bytes()
    (tmp_path / "wrong.gguf").write_bytes(b"GGUF no")
    with pytest.raises(TwofileError):
        shelf.adopt(tmp_path / "wrong.gguf", "wrong")
    assert list(names.local()) == ["own"]


def test_only_the_users_files_are_deleted(home: Path) -> None:
    folder = home / "models" / "hf" / "ada" / "tiny"
    folder.mkdir(parents=True)
    path = tiny_parameters("qwen3", "F32", 1, folder / "a.gguf")
    path.with_suffix(".md").write_text("# Report card of a")
    other = tiny_parameters("qwen3", "F32", 1, home / "models" / "b.gguf")
    other.with_suffix(".md").write_text("my own notes")
    found = {one.name: one for one in Shelf().entries()}
    shelf.delete(found["hf:ada/tiny:a.gguf"])
    shelf.delete(found["b"])
    assert not (home / "models" / "hf").exists()
    assert [path.name for path in (home / "models").iterdir()] == ["b.md"]
    with pytest.raises(TwofileError, match="came with the program"):
        shelf.delete(found["base"])


def test_how_far_a_pull_has_come(tmp_path: Path) -> None:
    job = Job(tmp_path, "pull", "x", (), 0.0)
    assert shelf.progress_of(job) is None
    (tmp_path / "err").write_text("1,000 of 12,000 bytes\n11,500 of 12,000 bytes\n")
    assert shelf.progress_of(job) == (11_500, 12_000)


# The page.


def card(page: Page, name: str) -> Any:
    return page.get_by_role("article", name=name, exact=True)


def test_quantised_talked_with_and_deleted(watched: Watched, site: Site) -> None:
    page = watched.open("/library")
    expect(card(page, "assistant")).to_contain_text("8.5 bits a weight")
    expect(card(page, "assistant")).to_contain_text("Memory: 18.1 MB")
    page.get_by_role("button", name="Quantise assistant").click()
    dialog = page.get_by_role("dialog")
    name = dialog.get_by_label("Name of the new model")
    dialog.get_by_label("Type").select_option("Q4_0")
    expect(name).to_have_value("assistant-Q4_0")
    expect(dialog).to_contain_text("11.1 MB becomes 5.98 MB")
    assert serious(page) == []
    for wrong, words in (("../x", "cannot be a name"), ("", "a name is missing")):
        name.fill(wrong)
        dialog.get_by_role("button", name="Quantise").click()
        expect(dialog.get_by_role("alert")).to_contain_text(words)
    name.fill("small")
    dialog.get_by_role("button", name="Quantise").click()
    expect(card(page, "Quantise assistant to Q4_0, as small")).to_contain_text("done", timeout=SEEN)
    expect(card(page, "small")).to_contain_text("Q4_0, 4.5 bits a weight")
    assert card(page, "small").get_by_role("link", name="Chat").get_attribute("href") == "/?model=small"
    assert serious(page) == []
    page.reload()
    expect(card(page, "Quantise assistant to Q4_0, as small")).to_contain_text("done")
    page.get_by_role("button", name="Forget quantise assistant").click()
    expect(page.get_by_role("heading", name="Jobs")).to_have_count(0)
    card(page, "small").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert (site.home / "models" / "small.gguf").exists()
    card(page, "small").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(card(page, "small")).to_have_count(0)
    assert not (site.home / "models" / "small.gguf").exists()


def test_pulled_stopped_and_gone_on_with(watched: Watched, site: Site, hub: Hub) -> None:
    page = watched.open("/library")
    field = page.get_by_label("Pull a model from a hub")
    field.fill("no hub's name")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("is not a hub name")
    hub.stall_after = CHUNK + 1000
    field.fill("ada/tiny")
    field.press("Enter")
    job = card(page, "Pull hf:ada/tiny")
    expect(job).to_contain_text("10.5 MB of 11.1 MB", timeout=SEEN)
    assert serious(page) == []
    job.get_by_role("button", name="Stop").click()
    expect(job).to_contain_text("stopped", timeout=SEEN)
    expect(job).to_contain_text("10.5 MB of 11.1 MB are here")
    job.get_by_role("button", name="Go on").click()
    expect(job).to_contain_text("done", timeout=SEEN)
    assert hub.requests[-1][1]["range"].startswith(f"bytes={CHUNK}-")
    pulled = site.home / "models" / "hf" / "ada" / "tiny" / "tiny-Q8_0.gguf"
    assert pulled.read_bytes() == names.bundled()["assistant"].read_bytes()
    expect(card(page, "hf:ada/tiny:tiny-Q8_0.gguf")).to_contain_text("from a hub")


def test_a_pull_that_fails_says_why_and_what_came_can_be_thrown_away(watched: Watched, site: Site, hub: Hub) -> None:
    page = watched.open("/library")
    page.get_by_label("Pull a model from a hub").fill("ada/none")
    page.get_by_role("button", name="Pull", exact=True).click()
    job = card(page, "Pull hf:ada/none")
    expect(job).to_contain_text("has no repository ada/none", timeout=SEEN)
    part = site.home / "models" / "hf" / "ada" / "none" / f"a.gguf.{'0' * 16}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(12_000))
    expect(job.get_by_role("button", name="Go on")).to_be_visible()
    job.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(job).to_have_count(0)
    assert not part.parent.exists()


def test_imports(watched: Watched, site: Site, tmp_path: Path) -> None:
    page = watched.open("/library")
    page.get_by_role("button", name="Import…").click()
    dialog = page.get_by_role("dialog")
    path, name = dialog.get_by_label("Path on this machine"), dialog.get_by_label("Name of the model here")
    begin = dialog.get_by_role("button", name="Import")
    name.fill("mine")
    for wrong, words in (
        ("", "the whole path is needed"),
        ("models/x", "the whole path"),
        (str(tmp_path / "none"), "not exist"),
    ):
        path.fill(wrong)
        begin.click()
        expect(dialog.get_by_role("alert")).to_contain_text(words)
    assert serious(page) == []
    (tmp_path / "folder").mkdir()
    path.fill(str(tmp_path / "folder"))
    begin.click()
    job = card(page, f"Import {tmp_path / 'folder'} as mine")
    expect(job).to_contain_text("failed", timeout=SEEN)
    expect(job).to_contain_text("config.json")
    page.get_by_role("button", name="Import…").click()
    tiny_parameters("qwen3", "F32", 1, tmp_path / "tiny.gguf")
    page.get_by_role("dialog").get_by_label("Or send a .gguf file").set_input_files(tmp_path / "tiny.gguf")
    expect(page.get_by_role("dialog").get_by_label("Name of the model here")).to_have_value("tiny")
    page.get_by_role("dialog").get_by_role("button", name="Import").click()
    expect(card(page, "tiny")).to_contain_text("made here")
    assert (site.home / "models" / "tiny.gguf").read_bytes() == (tmp_path / "tiny.gguf").read_bytes()


def test_exported(watched: Watched, site: Site, tmp_path: Path) -> None:
    page = watched.open("/library")
    page.get_by_role("button", name="Export stories").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Folder")).to_have_value(str(site.home / "exports" / "stories"))
    dialog.get_by_label("Folder").fill(str(tmp_path / "out"))
    dialog.get_by_role("button", name="Export").click()
    expect(card(page, f"Export stories to {tmp_path / 'out'}")).to_contain_text("done", timeout=SEEN)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["hidden_size"] == 256


def test_jobs_are_found_again_and_what_does_not_fit_is_said(watched: Watched, site: Site, tmp_path: Path) -> None:
    jobs = Jobs(site.home / "jobs")
    jobs.begin("import", "gone", ["import", "--", "/no/such/folder", "gone"], {"title": "/no/such/folder as gone"})
    (site.home / "models").mkdir(exist_ok=True)
    big = tiny_parameters("qwen3", "F32", 1, tmp_path / "big.gguf", context_length=1 << 29)
    shutil.move(big, site.home / "models" / "big.gguf")
    (site.home / "models" / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    site.kill()
    site.start()
    page = watched.open("/library", width=360, height=740)
    expect(card(page, "Import /no/such/folder as gone")).to_contain_text("does not exist", timeout=SEEN)
    expect(card(page, "big")).to_contain_text("does not fit")
    expect(card(page, "big")).to_contain_text("a smaller type may fit")
    expect(card(page, "base")).to_contain_text("fits")
    expect(card(page, "broken")).to_contain_text("It cannot be used")
    assert serious(page) == []
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360
    card(page, "broken").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(card(page, "broken")).to_have_count(0)


def test_unloaded(watched: Watched, site: Site) -> None:
    from twofile.kernel.kernel import Kernel

    with Kernel(site.home / "kernel.db") as kernel:
        pid = kernel.spawn(str(names.bundled()["stories"])).pid
    page = watched.open(f"/processes?pid={pid}")
    page.get_by_role("button", name="Show the pages").click()
    expect(page.locator("#main")).to_contain_text("0 pages", timeout=SEEN)
    page = watched.open("/library")
    expect(card(page, "stories")).to_contain_text("loaded")
    page.get_by_role("button", name="Unload stories").click()
    expect(card(page, "stories")).not_to_contain_text("loaded")
