"""The page Train: what it computes, and a model made in the browser while the server is killed under it."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.serve.pages.conftest import Site, Watched, serious
from twofile.errors import TwofileError
from twofile.serve.label.store import Item, Label, Store
from twofile.serve.pages import training
from twofile.serve.pages.jobs import Job, Jobs
from twofile.serve.pages.training import Reader, StartedError, Texts


def _text() -> str:
    """Some 200 kB of simple sentences, the same ones each time."""
    chance = random.Random(7)
    who = ["The cat", "A dog", "My friend", "The old man", "A small bird", "The girl", "A grey horse"]
    does = ["sees", "likes", "finds", "follows", "watches", "remembers"]
    what = ["the red ball", "a warm house", "the quiet river", "some green apples", "a bright star"]
    said = (f"{chance.choice(who)} {chance.choice(does)} {chance.choice(what)}." for _ in range(6400))
    return "\n\n".join(" ".join(part) for part in zip(*[said] * 8, strict=True)) + "\n"


class _Jobs(Jobs):
    """Remembers what was begun, and begins nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.begun: list[Job] = []

    def begin(self, kind: str, name: str, argv: Any, about: Any = None) -> Job:
        job = Job(self.folder / f"{kind}-{name}", kind, name, tuple(argv), time.time(), about or {})
        self.begun.append(job)
        return job


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    monkeypatch.setenv("TWOFILE_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "uploads").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def jobs(home: Path) -> _Jobs:
    return _Jobs(home / "jobs")


def _uploaded(home: Path, text: str = "One.\n\nTwo.\n", number: int = 1, kind: str = "text") -> str:
    id = f"{number:016x}.{kind}"
    (home / "uploads" / id).write_text(text)
    return id


def _log(run: Path, steps: int, *, finished: bool = False, minutes: float = 2.0) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(json.dumps({"plan": {"steps": None, "minutes": minutes}}))
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": 5 / step, "tokens": 100 * step, "seconds": step, "speed": 100.0}
        for step in range(1, steps + 1)
    ]
    lines[-1]["bpb"] = 1.5
    lines.insert(1, {"event": "dream", "step": 1, "text": "\x1b[1mgib<b>berish"})
    lines.append({"event": "dream", "step": steps, "text": "Words in order."})
    if finished:
        lines.append({"step": steps, "tokens": 100 * steps, "finished": True, "bpb": 1.4})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_training_is_a_command_with_texts_that_stay(home: Path, jobs: _Jobs) -> None:
    texts = Texts(((_uploaded(home), "My Tales.txt"), (_uploaded(home, "x", 2), "notes.py")), "", "blank")
    job = training.begin_training(jobs, home, texts, 0.5, "tales")
    folder, run = home / "texts" / "tales", home / "runs" / "tales"
    assert job.argv[:4] == ("train", *(str(folder / n) for n in ("samples.toml", "My Tales.txt", "notes.py.txt")))
    assert job.argv[4:8] == ("--minutes", "0.5", "--split", r"\n\s*\n")
    assert job.argv[8:] == ("--out", "tales", "--run", str(run))
    shutil.rmtree(home / "uploads")
    assert (folder / "My Tales.txt").read_text() == "One.\n\nTwo.\n"


def test_a_run_goes_on_with_resume_where_it_has_a_log(home: Path, jobs: _Jobs) -> None:
    job = training.begin_training(jobs, home, Texts(((_uploaded(home), "a.txt"),)), 0.5, "tales")
    assert "--split" not in job.argv
    assert training.resume(jobs, job).argv == job.argv
    _log(home / "runs" / "tales", 2)
    again = training.resume(jobs, job)
    assert again.argv == (*job.argv, "--resume")
    assert training.resume(jobs, again).argv == again.argv
    with pytest.raises(StartedError, match="is there already"):
        training.begin_training(jobs, home, Texts(((_uploaded(home), "a.txt"),)), 0.5, "tales")
    assert training.free_name(home, "tales") == "tales-2"
    assert training.go_on(jobs, home, "tales").argv[-1] == "--resume"


@pytest.mark.parametrize(
    ("texts", "minutes", "name", "says"),
    [
        (Texts(), 1.0, "tales", "nothing to learn from"),
        (Texts(path="/no/such/folder"), 1.0, "tales", "there is no file or folder"),
        (Texts(path="~nobody/\0"), 1.0, "tales", "there is no file or folder"),
        (Texts((("../../etc/passwd", "a.txt"),)), 1.0, "tales", "not here any more"),
        (Texts((("0000000000000009.pdf", "a.pdf"),)), 1.0, "tales", "is no text"),
        (Texts((("0000000000000001.text", "a.txt"),)), 0.0, "tales", "no time to train"),
        (Texts((("0000000000000001.text", "a.txt"),)), float("nan"), "tales", "no time to train"),
        (Texts((("0000000000000001.text", "a.txt"),)), 1.0, "", "no name yet"),
        (Texts((("0000000000000001.text", "a.txt"),)), 1.0, "../tales", "cannot be a name"),
        (Texts((("0000000000000001.text", "a.txt"),)), 1.0, "--force", "cannot be a name"),
        (Texts((("0000000000000001.text", "a.txt"),)), 1.0, "x.gguf", "cannot be a name"),
        (Texts((("0000000000000001.text", "a.txt"),)), 1.0, "here", "a model here is there already"),
    ],
)
def test_what_cannot_be_trained_begins_nothing(
    home: Path, jobs: _Jobs, texts: Texts, minutes: float, name: str, says: str
) -> None:
    _uploaded(home)
    _uploaded(home, number=9, kind="pdf")
    (home / "models").mkdir()
    (home / "models" / "here.gguf").touch()
    with pytest.raises(TwofileError, match=says):
        training.begin_training(jobs, home, texts, minutes, name)
    assert jobs.begun == []
    assert not (home / "runs").exists()


def test_tuning_and_preferences_take_one_file_or_labels(home: Path, jobs: _Jobs) -> None:
    rows = Texts(((_uploaded(home, "{}\n"), "talks"),))
    job = training.begin_learning(jobs, home, "tune", "/models/base.gguf", rows, 2.0, "steps", "mine")
    rest = ("--steps", "2", "--out", "mine", "--run", str(home / "runs" / "mine"))
    assert job.argv == ("tune", "/models/base.gguf", str(home / "texts" / "mine" / "talks.jsonl"), *rest)
    store = Store(home / "labels.db")
    with pytest.raises(TwofileError, match="nothing in the labels"):
        training.begin_learning(jobs, home, "prefer", "/models/base.gguf", store, 1.0, "minutes", "liked")
    store.add([Item(({"role": "user", "content": "Hello"},), ("Hello.", "No."))])
    store.submit(Label("1", store.items()[0].id, "me", "first"))
    job = training.begin_learning(jobs, home, "prefer", "/models/base.gguf", store, 1.0, "minutes", "liked")
    store.close()
    assert json.loads(Path(job.argv[2]).read_text())["chosen"]
    for length, unit in ((1.5, "steps"), (0.0, "minutes")):
        with pytest.raises(TwofileError):
            training.begin_learning(jobs, home, "tune", "/models/base.gguf", rows, length, unit, "other")


def test_an_arena_asks_everyday_questions_and_shows_its_table(home: Path, jobs: _Jobs) -> None:
    with pytest.raises(TwofileError, match="two models"):
        training.begin_arena(jobs, home, ["/a.gguf", "/a.gguf", ""], Texts(), 64, "arena")
    job = training.begin_arena(jobs, home, ["/a.gguf", "/b.gguf", ""], Texts(), 64, "arena")
    prompts = Path(job.argv[job.argv.index("--prompts") + 1])
    assert len(prompts.read_text().splitlines()) == len(training.EVERYDAY)
    job.folder.mkdir(parents=True)
    row = {"name": "a", "rating": 1010.0, "low": 900.0, "high": 1100.0, "wins": 1.0, "comparisons": 2}
    (job.folder / "out").write_text(json.dumps({"people": [row]}) + "\n")
    (job.folder / "err").write_text("11 comparisons wait for people: twofile label\n")
    assert [one.name for one in training.ratings(job)] == ["a"]
    assert training.waiting(job) == 11
    (job.folder / "out").write_text('{"people": [{"name": 1}]}\nnothing')
    assert training.ratings(job) == []


def test_a_run_is_read_while_it_grows(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "run")
    assert reader.look() is None
    _log(tmp_path / "run", 30)
    standing = reader.look()
    assert standing is not None
    assert (standing.step, standing.share, standing.bits, standing.finished) == (30, 0.25, 1.5, False)
    assert standing.left == pytest.approx(90, abs=5)
    assert [step for step, _ in standing.samples] == [30, 1]
    assert "<svg" in standing.curves
    _log(tmp_path / "run", 120, finished=True)
    done = reader.look(running=False)
    assert done is not None
    assert (done.step, done.share, done.left, done.finished) == (120, 1.0, 0.0, True)
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 12')
    torn = reader.look(running=False)
    assert torn is not None
    assert torn.step == 120


def test_names_and_texts_in_words(tmp_path: Path) -> None:
    names = {"My Tales.txt": "my-tales", "/a/b.tar.gz": "b", "...": "mine", "a/--x--.md": "x", "ä ö.txt": "ä-ö"}
    assert {file: training.name_of(file) for file in names} == names
    assert training.plain(" a\x1b[1m\u202eb\nc ") == "a\ufffd[1m\ufffdb\nc"
    with pytest.raises(TwofileError, match="there is no text in"):
        training.about_path(str(tmp_path))
    (tmp_path / "a.txt").write_text("x" * 2000)
    assert training.about_path(str(tmp_path)) == "a folder with one text, 2.0 kB"
    assert training.about_path(str(tmp_path / "a.txt"), False) == "a file of 2.0 kB"


def _fill(page: Page, tmp_path: Path, name: str, minutes: str) -> None:
    file = tmp_path / f"{name}.txt"
    file.write_text(_text())
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_role("list", name="Chosen files")).to_contain_text(f"{name}.txt")
    expect(page.get_by_label("Name of the new model")).to_have_value(name)
    page.get_by_label("Minutes to train").fill(minutes)


def _job(site: Site, name: str) -> Job:
    job = Jobs(site.home / "jobs").get("train", name)
    assert job is not None
    return job


def test_what_is_missing_is_said_and_nothing_is_begun(watched: Watched, site: Site, tmp_path: Path) -> None:
    page = watched.open("/train")
    start = page.get_by_role("button", name="Start training")
    start.click()
    expect(page.get_by_role("status").filter(has_text="nothing to learn from")).to_be_visible()
    page.get_by_label("Or a file or folder").fill("/no/such/place")
    expect(page.get_by_text("there is no file or folder '/no/such/place'").first).to_be_visible()
    page.get_by_label("Name of the new model").fill("x")
    start.click()
    expect(page.locator(".notice", has_text="/no/such/place")).to_be_visible()
    page.get_by_label("Or a file or folder").fill("")
    _fill(page, tmp_path, "x", "0.2")
    page.get_by_label("Name of the new model").fill("../x")
    start.click()
    expect(page.locator(".notice", has_text="cannot be a name")).to_be_visible()
    page.get_by_label("Minutes to train").fill("")
    page.get_by_label("Name of the new model").fill("x")
    start.click()
    expect(page.locator(".notice", has_text="is no number")).to_be_visible()
    assert Jobs(site.home / "jobs").all() == []
    assert not (site.home / "runs").exists()


@pytest.mark.parametrize("stage", ["tune", "prefer", "arena"])
def test_the_other_stages_say_what_they_need(watched: Watched, stage: str) -> None:
    page = watched.open(f"/train?stage={stage}", width=360, height=740)
    expect(page.locator("section.card h2")).to_be_visible()
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360
    assert serious(page) == []
    if stage == "arena":
        page.get_by_label("Second model").select_option(page.get_by_label("First model").input_value())
    page.locator("section.card .primary").click()
    words = "compares two models" if stage == "arena" else "nothing to learn from"
    expect(page.locator(".notice", has_text=words)).to_be_visible()


def test_what_is_typed_slowly_stays(watched: Watched) -> None:
    page = watched.open("/train")
    page.get_by_label("Minutes to train").fill("3")
    page.get_by_label("Or a file or folder").press_sequentially("/nowhere", delay=80)
    expect(page.get_by_text("there is no file or folder '/nowhere'")).to_be_visible()
    expect(page.get_by_label("Minutes to train")).to_have_value("3")
    expect(page.get_by_label("Or a file or folder")).to_have_value("/nowhere")


def test_what_a_job_and_a_model_say_is_text(watched: Watched, site: Site) -> None:
    evil = "<img src=x onerror=alert(1)>"
    folder = site.home / "jobs" / "train-evil"
    folder.mkdir(parents=True)
    about = {"texts": [evil], "minutes": 2}
    table = {"kind": "train", "name": "evil", "argv": ["train", evil], "begun": time.time() - 9, "about": about}
    (folder / "job.json").write_text(json.dumps(table))
    (folder / "status").write_text("1\n")
    (folder / "err").write_text(f"error: {evil}\n")
    _log(site.home / "runs" / "evil", 5)
    with (site.home / "runs" / "evil" / "log.jsonl").open("a") as log:
        log.write(json.dumps({"event": "dream", "step": 5, "text": f"{evil} \u202e"}) + "\n")
    page = watched.open("/train")
    expect(page.locator(".job .problem")).to_have_text(evil)
    page.get_by_role("link", name="evil", exact=True).click()
    expect(page.locator(".samples li p").first).to_have_text(f"{evil} \ufffd")
    expect(page.locator("main .card.problem")).to_have_text(evil)
    assert page.locator("main img").count() == 0
    assert "<img" not in page.request.get(f"{site.address}/train/report/evil").text()
    watched.open("/train").get_by_role("button", name="Forget evil").click()
    expect(page.get_by_role("heading", name="Train", exact=True)).to_be_visible()
    shutil.rmtree(site.home / "runs" / "evil")


def test_two_minutes_and_a_killed_server_make_a_model(watched: Watched, site: Site, tmp_path: Path) -> None:
    page = watched.open("/train")
    _fill(page, tmp_path, "tales", "2")
    page.get_by_text("What this would train").click()
    expect(page.locator(".foretold .headline")).to_contain_text("parameters", timeout=60_000)
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/train?job=tales")
    expect(page.locator("main svg").first).to_be_visible(timeout=90_000)
    expect(page.get_by_role("heading", name="What it says by now")).to_be_visible(timeout=60_000)
    assert _job(site, "tales").state == "running"
    site.kill()
    page.context.close()
    log = site.home / "runs" / "tales" / "log.jsonl"
    size, until = log.stat().st_size, time.monotonic() + 60
    while log.stat().st_size == size:  # it goes on without a server
        assert time.monotonic() < until
        time.sleep(0.1)
    site.start()
    page = watched.open("/train")
    link = page.get_by_role("link", name="tales", exact=True)
    expect(link).to_be_visible()
    link.click()
    chat = page.get_by_role("link", name="Chat with it")
    expect(chat).to_be_visible(timeout=300_000)
    expect(page.locator("main .tag")).to_have_text("done")
    assert page.locator(".samples li").count() >= 1
    page.get_by_role("button", name="time", exact=True).click()
    expect(page.locator(".plots .seconds svg").first).to_be_visible()
    assert serious(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360
    report = page.request.get(f"{site.address}/train/report/tales")
    assert report.ok
    assert "twofile report" in report.text()
    assert page.request.get(f"{site.address}/train/report/none").status == 404
    chat.click()
    page.wait_for_url(re.compile(r"/\?model=tales$"))
    expect(page.locator(".welcome")).to_contain_text("tales is a base model")
    page.get_by_label("Message the model").fill("The")
    page.keyboard.press("Enter")
    expect(page.locator(".message.reply:not(.live-reply)")).to_have_count(1)
    said = page.locator(".message.reply .markup").inner_text()
    known = set(re.findall(r"\w+", _text()))
    assert len(set(re.findall(r"\w+", said)) & known) >= 3, said


def test_a_training_is_stopped_and_goes_on(watched: Watched, site: Site, tmp_path: Path) -> None:
    page = watched.open("/train", dark=True)
    _fill(page, tmp_path, "pause", "0.25")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/train?job=pause")
    expect(page.locator("main svg").first).to_be_visible(timeout=90_000)
    page.get_by_role("button", name="Stop pause").click()
    expect(page.locator("main .tag")).to_have_text("stopped", timeout=60_000)
    assert serious(page) == []
    steps = page.locator(".tile", has_text="step").locator("b")
    before = int(steps.inner_text().replace(",", ""))
    again = watched.open("/train")
    again.get_by_label("Or a file or folder").fill(str(tmp_path / "pause.txt"))
    again.get_by_label("Name of the new model").fill("pause")
    again.get_by_role("button", name="Start training").click()
    expect(again.get_by_role("alert")).to_contain_text("A run pause is there already")
    expect(again.get_by_role("button", name="Call it pause-2")).to_be_visible()
    page.get_by_role("button", name="Resume pause").click()
    expect(page.locator("main .tag")).to_have_text("running")
    assert "--resume" in _job(site, "pause").argv
    expect(page.locator("main .tag")).to_have_text("done", timeout=90_000)
    assert int(steps.inner_text().replace(",", "")) > before
    again.goto(f"{site.address}/train")
    again.get_by_role("button", name="Forget pause").click()
    expect(again.get_by_role("link", name="pause", exact=True)).to_have_count(0)
    assert (site.home / "models" / "pause.gguf").exists()
