"""`twofile corpus` as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_main import call
from tests.train.corpus.test_refine import TEXTS
from twofile.train.corpus.sources import documents, named


def test_one_command_makes_a_corpus_that_training_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    for i, text in enumerate(TEXTS[:20]):
        (tmp_path / "notes" / f"{i:02}.md").write_text(text)
    (tmp_path / "notes" / "table.csv").write_text(f"text,licence\n{TEXTS[30]},CC0\n{TEXTS[31]},NC\n")
    (tmp_path / "notes" / "picture.png").write_bytes(b"\xff")
    (tmp_path / "recipe.toml").write_text(
        '[[source]]\npath = "notes/0*.md"\nname = "first"\nlicence = "CC-BY-4.0"\nattribution = "Ada"\n'
    )
    options = ["--into", "out", "--held-out", "0.2", "--workers", "1", "--drop", "licence=NC", "--licence", "CC0-1.0"]
    assert call("corpus", "notes", "recipe.toml", "--check", "notes/01.md", *options) == 0
    shown = capsys.readouterr()
    assert "dedup" in shown.out
    assert shown.out.splitlines()[-1] == str(tmp_path / "out")
    assert "of 01, 1 of 1 documents overlap" in shown.err
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert [(source["name"], source["licence"]) for source in card["sources"]] == [
        ("notes", "CC0-1.0"),
        ("first", "CC-BY-4.0"),
    ]
    assert card["dropped"][-1]["documents"] == 10  # the recipe's notes are the folder's
    found = [d.text for s in named(["out"]) for side in (False, True) for d in documents(s, Path(), held_out=side)]
    assert sorted(found) == sorted([*TEXTS[:20], TEXTS[30]])
    assert call("corpus", "notes", *options) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert call("corpus", "notes", "--force", *options) == 0


def test_tasks_are_looked_for(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    for i, text in enumerate(TEXTS[:20]):
        (tmp_path / "notes" / f"{i:02}.md").write_text(text)
    (tmp_path / "tasks").mkdir()
    rows = [{"text": TEXTS[3]}, {"text": "one two three four five six seven eight nine ten eleven twelve thirteen"}]
    (tmp_path / "tasks" / "lambada_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = ["notes", "--into", "out", "--held-out", "0", "--workers", "1", "--filters", "none"]
    assert call("corpus", *how, "--check-tasks", "tasks") == 0
    said = capsys.readouterr().err
    assert "of lambada, 1 of 2 documents overlap" in said
    assert "blimp is not checked" in said
    assert "of lambada, 1 of 2 are too short" not in said
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"content": text}) + "\n" for text in TEXTS[:20]))
    column = ["rows.jsonl", "--into", "of-rows", *how[3:], "--column", "content"]
    assert call("corpus", *column, "--check-tasks", "tasks") == 0
    assert "of lambada, 1 of 2 documents overlap" in capsys.readouterr().err
    assert call("corpus", *how[:2], "other", "--check-tasks", "notes") == 1
    assert "no task" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["nowhere"], 1, "nowhere does not exist"),
        (["--filters", "gofer", "."], 1, "there is no filter gofer"),
        (["--drop", "licence", "."], 2, "KEY=VALUE"),
        (["hf:ada/stories"], 1, "hf:datasets/user/repo"),
        (["hf:datasets/ada/stories"], 1, "HF_HUB_OFFLINE"),
        (["."], 1, "no text"),
    ],
)
def test_wrong_calls(
    tmp_path: Path,
    args: list[str],
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    assert call("corpus", *args, "--into", str(tmp_path / "out")) == status
    assert words in capsys.readouterr().err
