"""The index of a folder: what is found, and that it is the folder, whatever happened on the way."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.search.samples import docx, locked, pdf
from twofile.errors import ToolError
from twofile.tools.search.index import Index, Kept
from twofile.tools.search.words import Tantivy

Make = Callable[..., Index]


@pytest.fixture(params=["fts5", "tantivy"])
def words(request: pytest.FixtureRequest) -> Kept:
    if request.param == "tantivy":
        pytest.importorskip("tantivy")
    kept: Kept = request.param
    return kept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.mkdir()
    return path


@pytest.fixture
def make(tmp_path: Path, folder: Path, words: Kept) -> Iterator[Make]:
    """Indexes of the folder, closed in the end."""
    made = []

    def one(name: str = "index", **options: Any) -> Index:
        made.append(Index(folder, tmp_path / f"{name}.sqlite3", **{"words": words, **options}))
        return made[-1]

    yield one
    for index in made:
        index.close()


def places(index: Index, query: str, count: int = 5) -> list[str]:
    return [one.place for one in index.search(query, count)]


def check(index: Index) -> None:
    """Nothing is corrupt, and the words are those of the passages."""
    assert index.database.rows("PRAGMA integrity_check") == [("ok",)]
    assert index.database.rows("SELECT count(*) FROM passage WHERE file NOT IN (SELECT id FROM file)") == [(0,)]
    if index._rows("SELECT value FROM meta WHERE key = 'words'") == [("fts5",)]:
        index.database.connection.execute("INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")
    else:
        kept = index._words()
        assert isinstance(kept, Tantivy)
        opened, done = kept._opened()
        opened.reload()
        assert opened.searcher().num_docs == index._rows("SELECT count(*) FROM passage")[0][0]
        assert [(done,)] == index._rows("SELECT max(id) FROM file")


def inside(index: Index) -> list[Any]:
    """All that is in an index, without its numbers."""
    return sorted(
        index.database.rows(
            "SELECT path, file.title, problem, place, text FROM file LEFT JOIN passage ON passage.file = file.id"
        ),
        key=repr,
    )


def test_every_kind_is_found_and_cited(folder: Path, make: Make) -> None:
    (folder / "sub").mkdir()
    (folder / "report.pdf").write_bytes(pdf(["nothing of note", "zebras", "The giraffe eats acacia leaves"], "Animals"))
    (folder / "sub" / "letter.docx").write_bytes(
        docx([(1, "Money"), (0, "x"), (2, "Rent"), (0, "The landlord wants more")])
    )
    (folder / "setup.md").write_text("# Setup\na\n## Linux\nInstall the compiler first.\n# End\nb\n")
    (folder / "page.html").write_text("<title>Recipes</title><h1>Soup</h1><p>Boil the lentils slowly.</p>")
    (folder / "log.txt").write_text("start\n\n" + "filler words\n" * 80 + "\nthe reactor overheated\n")
    (folder / "data.bin").write_bytes(b"giraffe")
    (folder / ".hidden.txt").write_text("giraffe")
    index = make()
    report = index.update()
    assert (report.files, report.read, report.removed, report.others, report.complete) == (5, 5, 0, 1, True)
    assert not report.unread
    assert places(index, "what does a giraffe eat?") == ["notes/report.pdf, page 3"]
    assert places(index, "landlords") == ["notes/sub/letter.docx, Money > Rent"]
    assert places(index, "installing compilers") == ["notes/setup.md, Setup > Linux"]
    assert places(index, "lentil soup") == ["notes/page.html, Soup"]
    assert places(index, "reactor") == ["notes/log.txt, line 84"]
    (one,) = index.search("giraffe")
    assert (one.title, one.text) == ("Animals", "The giraffe eats acacia leaves")
    check(index)


def test_titles_weigh_more_and_names_are_found(folder: Path, make: Make) -> None:
    (folder / "a.md").write_text("# Volcanoes\nsome text about mountains that are hot")
    (folder / "b.md").write_text("# Other\nvolcanoes once, some text about mountains that are hot")
    (folder / "budget_2031.txt").write_text("figures")
    index = make()
    index.update()
    assert places(index, "volcanoes")[0] == "notes/a.md, Volcanoes"
    assert places(index, "2031") == ["notes/budget_2031.txt, line 1"]


def test_phrases_accents_and_scripts(folder: Path, make: Make) -> None:
    (folder / "a.txt").write_text("the red house stood by a café in Zürich")
    (folder / "b.txt").write_text("a house that is red")
    (folder / "c.txt").write_text("日本の首都は東京です。京都ではない。")
    (folder / "d.txt").write_text("大韓民國의 수도는 서울이다")
    index = make()
    index.update()
    assert places(index, '"red house"') == ["notes/a.txt, line 1"]
    assert set(places(index, "red house")) == {"notes/a.txt, line 1", "notes/b.txt, line 1"}
    assert places(index, '"red house" "by a cafe"') == ["notes/a.txt, line 1"]
    assert places(index, '"red house" "that is"') == []
    assert places(index, '"red house" red that') == ["notes/a.txt, line 1"]
    assert places(index, "zurich") == ["notes/a.txt, line 1"]
    assert places(index, "東京") == ["notes/c.txt, line 1"]
    assert places(index, "日本の首都はどこですか") == ["notes/c.txt, line 1"]
    assert places(index, '"首都は東京"') == ["notes/c.txt, line 1"]
    assert places(index, '"東都"') == []
    assert places(index, "서울") == ["notes/d.txt, line 1"]
    assert index.search("東京")[0].text == "日本の首都は東京です。京都ではない。"


def test_no_more_than_two_of_a_file(folder: Path, make: Make) -> None:
    (folder / "a.md").write_text("".join(f"# H{n}\ntortoise\n" for n in range(9)))
    (folder / "b.md").write_text("# H\n" + "a tortoise among a great many other words that stand here " * 3)
    index = make()
    index.update()
    found = places(index, "tortoise")
    assert len(found) == 3
    assert "notes/b.md, H" in found


def test_what_changed_and_what_is_gone(folder: Path, make: Make) -> None:
    for n in range(5):
        (folder / f"{n}.txt").write_text(f"common word{n}")
    index = make()
    assert index.update().read == 5
    assert index.update().read == 0
    (folder / "0.txt").write_text("common changed")
    (folder / "1.txt").unlink()
    (folder / "2.txt").rename(folder / "renamed.txt")
    (folder / "5.txt").write_text("common new")
    times = (folder / "3.txt").stat()
    (folder / "3.txt").write_text("common WORD3")  # the same size, and the times are set back
    os.utime(folder / "3.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    report = index.update()
    assert (report.files, report.read, report.removed) == (5, 4, 2)
    assert places(index, "word0") == places(index, "word1") == []
    assert places(index, "changed") == ["notes/0.txt, line 1"]
    assert places(index, "word2") == ["notes/renamed.txt, line 1"]
    assert len(places(index, "common", 20)) == 5
    check(index)
    fresh = make("fresh")
    fresh.update()
    assert inside(index) == inside(fresh)


def test_what_cannot_be_read_is_counted_and_stops_nothing(folder: Path, make: Make) -> None:
    (folder / "good.txt").write_text("the needle")
    (folder / "locked.pdf").write_bytes(locked(pdf(["needle"])))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 needle")
    (folder / "broken.docx").write_bytes(b"PK needle")
    (folder / "empty.txt").touch()
    (folder / "out.txt").symlink_to("/etc/passwd")
    (folder / "way").symlink_to("/etc")
    os.mkfifo(folder / "pipe.txt")
    with open(folder / "large.pdf", "wb") as file:
        file.truncate(200 << 20)
    (folder / "z.txt").write_text("the last needle")
    index = make()
    report = index.update()
    assert report.unread == {
        "encrypted": 1, "damaged": 2, "no text in it": 1,
        "a link, which is not followed": 2, "no plain file": 1, "larger than 100 MB": 1,
    }  # fmt: skip
    assert (report.files, report.complete) == (2, True)
    assert sorted(places(index, "needle")) == ["notes/good.txt, line 1", "notes/z.txt, line 1"]
    again = index.update()
    assert (again.read, again.unread) == (0, report.unread)
    (folder / "broken.pdf").write_bytes(pdf(["mended needle"]))
    assert index.update().read == 1
    assert "notes/broken.pdf, page 1" in places(index, "mended")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_counted(folder: Path, make: Make) -> None:
    (folder / "a.txt").write_text("needle")
    (folder / "a.txt").chmod(0)
    (folder / "closed").mkdir(0)
    index = make()
    assert index.update().unread == {"there is no permission": 2}
    (folder / "a.txt").chmod(0o600)
    assert index.update().files == 1


def test_odd_names_are_cited_in_one_line(folder: Path, make: Make) -> None:
    for name in ("line\nbreak.txt", os.fsdecode(b"bytes\xff.txt"), "tab\t.txt"):
        (folder / name).write_text("needle")
    index = make()
    assert index.update().files == 3
    found = places(index, "needle")
    assert len(found) == 3
    assert all(place.isprintable() for place in found)
    assert '"notes/line\\nbreak.txt", line 1' in found


def test_an_update_that_has_no_time_goes_on_later(folder: Path, make: Make) -> None:
    for n in range(30):
        (folder / f"{n}.txt").write_text(f"needle {n}")
    index = make()
    calls = iter(range(100))
    report = index.update(stop=lambda: next(calls) > 10)
    assert (report.files, report.complete) == (11, False)
    assert len(places(index, "needle", 50)) == 11
    report = index.update(until=time.monotonic() - 1)
    assert (report.files, report.complete) == (11, False)
    report = index.update()
    assert (report.files, report.read, report.removed, report.complete) == (30, 19, 0, True)


def test_a_folder_that_is_away_empties_nothing(folder: Path, make: Make) -> None:
    (folder / "a.txt").write_text("needle")
    index = make()
    index.update()
    folder.rename(folder.with_name("away"))
    with pytest.raises(ValueError, match="no such file"):
        index.update()
    assert places(index, "needle")


def test_it_grows_into_tantivy(folder: Path, make: Make) -> None:
    pytest.importorskip("tantivy")
    (folder / "a.txt").write_text("first needle")
    index = make(words="auto", large=2)
    other = make(words="auto", large=2)
    index.update()
    assert index._rows("SELECT value FROM meta WHERE key = 'words'") == [("fts5",)]
    for name in "bcd":
        (folder / f"{name}.txt").write_text(f"needle {name}")
    index.update()
    assert index._rows("SELECT value FROM meta WHERE key = 'words'") == [("tantivy",)]
    assert len(places(index, "needle")) == len(places(other, "needle")) == 4
    (folder / "b.txt").unlink()
    (folder / "c.txt").write_text("changed")
    other.update()
    assert len(places(index, "needle")) == 2
    check(other)
    back = make(words="fts5")
    back.update()
    assert len(places(index, "needle")) == len(places(back, "needle")) == 2
    check(back)


def test_tantivy_makes_up_for_what_it_lacks(folder: Path, make: Make, tmp_path: Path, words: Kept) -> None:
    if words == "fts5":
        pytest.skip("of the other kind")
    import shutil

    for n in range(4):
        (folder / f"{n}.txt").write_text(f"needle {n}")
    index = make()
    index.update()
    with index.database.writing():  # killed between its commit and that of the database
        index.database.connection.execute("UPDATE meta SET value = 2 WHERE key = 'tantivy'")
    (folder / "4.txt").write_text("needle 4")
    index.update()
    assert len(places(index, "needle", 20)) == 5
    check(index)
    shutil.rmtree(tmp_path / "index.tantivy")
    (folder / "5.txt").write_text("needle 5")
    index.update()
    assert len(places(index, "needle", 20)) == 6
    check(index)


def test_a_file_of_something_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (folder / "a.txt").write_text("x")
    (tmp_path / "text").write_text("no database, but a text that is long enough to be looked at " * 20)
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE mine(x)")
    connection.close()
    before = [(tmp_path / name).read_bytes() for name in ("text", "other")]
    for name in ("text", "other", "notes"):
        with pytest.raises(ToolError):
            Index(folder, tmp_path / name)
    assert [(tmp_path / name).read_bytes() for name in ("text", "other")] == before
    Index(folder, tmp_path / "index").close()
    (tmp_path / "second").mkdir()
    with pytest.raises(ToolError, match="of another folder"):
        Index(tmp_path / "second", tmp_path / "index")


def test_nobody_else_reads_it(folder: Path, make: Make, tmp_path: Path) -> None:
    (folder / "a.txt").write_text("secret")
    index = make()
    index.update()
    kept = [one for one in tmp_path.iterdir() if one.name.startswith("index.") and one.suffix != ".lock"]
    assert len(kept) > 2
    assert not any(one.stat().st_mode & 0o077 for one in kept), [(one.name, oct(one.stat().st_mode)) for one in kept]


UPDATE = """
import sys
from pathlib import Path
from twofile.tools.search.index import Index
index = Index(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
print("ready", flush=True)
print(index.update(stop=lambda: print("next", flush=True)).files, flush=True)
"""


def updating(folder: Path, path: Path, words: Kept) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", UPDATE, str(folder), str(path), words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def many(folder: Path, files: int) -> None:
    draw = random.Random(1)
    vocabulary = [f"word{n}" for n in range(500)]
    for n in range(files):
        text = "\n\n".join(" ".join(draw.choices(vocabulary, k=60)) for _ in range(8))
        (folder / f"{n:04}.{draw.choice(['txt', 'md', 'html'])}").write_text(text)


def test_killed_at_any_moment(folder: Path, make: Make, tmp_path: Path, words: Kept) -> None:
    """Ten times: indexing begins or goes on and is killed; each time what is there is whole. In the end it is the same
    as one that was never disturbed, and files that changed meanwhile are as they are now."""
    many(folder, 250)
    draw = random.Random(7)
    sizes = []
    for turn in range(10):
        process = updating(folder, tmp_path / "index.sqlite3", words)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            for _ in range(draw.choice([0, 20, 60, 120, 200, 250])):  # files; after 250, words are made up for
                assert process.stdout.readline() == "next\n"
            time.sleep(draw.uniform(0, 0.05))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        index = make()
        assert index.database.rows("PRAGMA integrity_check") == [("ok",)]
        whole = (
            "SELECT count(*) FROM file WHERE problem = '' AND NOT EXISTS (SELECT 1 FROM passage WHERE file = file.id)"
        )
        assert index._rows(whole) == [(0,)], "a file without its passages"
        sizes.append(index._rows("SELECT count(*) FROM file")[0][0])
        index.search("word7", 3)
        index.close()
        (folder / f"{turn:04}.txt").write_text(f"changed in turn {turn}")
    assert any(0 < size < 250 for size in sizes), f"no kill came in the midst: {sizes}"
    index = make()
    index.update()
    check(index)
    fresh = make("fresh")
    fresh.update()
    assert inside(index) == inside(fresh)
    for query in ("word7", '"turn 3"', "word1 word2 word3"):
        assert sorted(places(index, query, 300)) == sorted(places(fresh, query, 300))


def test_two_at_once(folder: Path, make: Make, tmp_path: Path, words: Kept) -> None:
    many(folder, 150)
    processes = [updating(folder, tmp_path / "index.sqlite3", words) for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=60)[0].split()[-1] == "150"
        assert process.returncode == 0
    index = make()
    index.update()
    check(index)
    assert index._rows("SELECT count(*), count(DISTINCT path) FROM file") == [(150, 150)]
    fresh = make("fresh")
    fresh.update()
    assert inside(index) == inside(fresh)
