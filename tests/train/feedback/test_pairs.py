"""Pairs and prompts: every form that people keep them in, and what is none."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from twofile.errors import TrainError
from twofile.train.feedback.pairs import Pair, pair, read_pairs
from twofile.train.feedback.prompts import read_prompts

USER, GOOD, BAD = ({"role": r, "content": c} for r, c in (("user", "Q"), ("assistant", "A"), ("assistant", "B")))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER], "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [USER], "chosen": GOOD, "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Q", "messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        {"instruction": "Q", "response1": "B", "response2": "A", "annotator1": 2, "annotator2": 2, "annotator3": 1},
    ],
)
def test_forms(row: dict[str, Any]) -> None:
    assert pair(row) == Pair((USER,), GOOD, BAD)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "A"},
        {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]},
        {"instruction": "Q", "response1": "B", "response2": "A", "annotator1": 2, "annotator2": 0, "annotator3": 1},
    ],
)
def test_nothing_was_preferred(row: dict[str, Any]) -> None:
    assert pair(row) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "no JSON object"),
        ({"prompt": "Q", "chosen": "A"}, "no chosen and rejected"),
        ({"chosen": "A", "rejected": "B"}, "no prompt"),
        ({"prompt": "Q", "chosen": USER, "rejected": BAD}, "not the assistant's"),
        ({"prompt": None, "chosen": "A", "rejected": "B"}, "not iterable"),
        ({"prompt": "Q", "chosen": {"role": "king", "content": ""}, "rejected": "B"}, "no role"),
    ],
)
def test_what_is_no_pair(tmp_path: Path, row: Any, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Q", "chosen": "A", "rejected": "B"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(TrainError, match=f"line 2: .*{message}"):
        list(read_pairs(path))


def test_tools_as_text() -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "tools": '[{"name": "f"}]'}
    assert pair(row) == Pair((USER,), GOOD, BAD, ({"name": "f"},))


def test_an_array_in_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json.xz"
    rows = [{"prompt": f"Q{i}", "chosen": "A", "rejected": "B"} for i in range(3)]
    path.write_bytes(lzma.compress(json.dumps(rows, indent=1).encode()))
    assert [one.messages[0]["content"] for one in read_pairs(path) if one] == ["Q0", "Q1", "Q2"]
    path.write_bytes(lzma.compress(json.dumps([*rows, 7]).encode()))
    with pytest.raises(TrainError, match="row 4: it is no JSON object"):
        list(read_pairs(path))


def test_prompts_of_every_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "Q", "answer": 42},
        {"messages": [USER, GOOD]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"messages": [USER], "chosen": "A", "rejected": "B"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(read_prompts(path))
    assert [messages for messages, _, _ in found] == [(USER,)] * 6
    assert found[0][2]["answer"] == 42
    path.write_text(json.dumps({"messages": [GOOD]}) + "\n")
    with pytest.raises(TrainError, match="does not end with a user"):
        list(read_prompts(path))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("hh_rlhf_harmless_base_test.jsonl.xz", 2000),
        ("pandalm_testset-v1.json.xz", 700),
        ("llamafactory_dpo_en_demo.json.xz", 299),
    ],
)
def test_pairs_that_people_made(shared_data: Path, name: str, least: int) -> None:
    assert sum(one is not None for one in read_pairs(shared_data / "pref" / name)) >= least
