"""Reading a run back, and the page about it."""

import json
import math
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from twofile.errors import NotFoundError
from twofile.html.curves import Scale, smooth
from twofile.html.figures import quantity, short_span
from twofile.train.history import POINTS, read
from twofile.train.machine import memory
from twofile.train.report.report import report


def step(number: int, loss: float = 2.0, **more: Any) -> dict[str, Any]:
    return {
        "step": number,
        "loss": loss,
        "norm": 0.5,
        "rate": 1.0,
        "tokens": 100 * number,
        "seconds": 2.0 * number,
    } | more


def write(folder: Path, lines: Iterable[dict[str, Any] | str]) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "log.jsonl").open("w") as stream:
        for line in lines:
            stream.write(line if isinstance(line, str) else json.dumps(line) + "\n")
    return folder


class Page(HTMLParser):
    """The page taken apart: are its tags closed, what does it load, what text is in it?"""

    ALONE = frozenset({"meta", "input", "hr", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.classes: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.paths: list[dict[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = {key: value or "" for key, value in attrs}
        self.classes += found.get("class", "").split()
        self.loads += [found[key] for key in ("src", "href", "srcset", "data", "action") if key in found]
        if tag == "path":
            self.paths.append(found)
        elif tag not in self.ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data + " "


def page(*folders: Path) -> Page:
    return Page(report([read(folder) for folder in folders]))


def test_of_a_step_written_twice_the_later_counts(tmp_path: Path) -> None:
    """Steps 1 to 10, back to 6, on to 8: the steps 6 to 10 of the first time are gone."""
    first = [step(i, loss=9.0, bpb=9.0) for i in range(1, 11)]
    lost = [{"event": "dream", "step": 9, "text": "lost"}]
    again = [{"event": "resumed", "step": 5}, *(step(i, loss=1.0) for i in range(6, 9))]
    history = read(write(tmp_path / "run", [*first, *lost, *again]))
    assert [group.at.step for group in history.groups] == [*range(1, 9)]
    assert [group.of["loss"].mean for group in history.groups] == [9.0] * 5 + [1.0] * 3
    assert [at.step for at, _ in history.validations] == [1, 2, 3, 4, 5]
    assert [(mark.step, mark.tokens, mark.seconds) for mark in history.resumed] == [(5, 500, 10.0)]
    assert history.end.step == 8


def test_a_run_that_went_back_twice(tmp_path: Path) -> None:
    parts = [range(1, 11), range(6, 9), range(4, 13)]
    lines = [step(i, loss=float(part)) for part, steps in enumerate(parts) for i in steps]
    history = read(write(tmp_path / "run", lines))
    assert [group.of["loss"].mean for group in history.groups] == [0.0] * 3 + [2.0] * 9
    assert len(history.resumed) == 1  # what came between was thrown away with its steps


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    broken = [
        "nonsense\n",
        "[1, 2]\n",
        "\n",
        '{"step": 3, "lo{"step": 3, "loss": 1.5}\n',
        "[" * 5000 + "\n",
        '{"step": 4',
    ]
    history = read(write(tmp_path / "run", [step(1), step(2), *broken]))
    assert [group.at.step for group in history.groups] == [1, 2, 3]
    assert history.groups[-1].of["loss"].mean == 1.5
    assert history.unreadable == 4


def test_every_length_of_a_cut_log_can_be_read(tmp_path: Path) -> None:
    lines = [step(1), {"event": "dream", "step": 1, "text": 'a "quoted" {"step": 9'}, step(2, bpb=1.0), step(1)]
    whole = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1, "tokens": 100, "finished": true}\n'
    for length in range(len(whole) + 1):
        history = read(write(tmp_path / "run", [whole[:length]]))
        assert history.unreadable <= 1
        report([history])
    assert history.finished
    assert [group.at.step for group in history.groups] == [1]


@pytest.mark.parametrize("value", [None, "x", True, [], {}, math.nan, math.inf, 10**400, -1e308, -5.0])
def test_a_value_that_is_no_number_is_no_fault(tmp_path: Path, value: object) -> None:
    for key in ("step", "loss", "norm", "tokens", "seconds", "bpb", "speed"):
        read_back = read(write(tmp_path / "run", [step(1), step(2, **{key: value}), step(3)]))
        Page(report([read_back]))


def test_many_steps_are_few_points_and_no_spike_is_lost(tmp_path: Path) -> None:
    n = 100_000
    loss = {n // 3: 50.0}
    folder = write(tmp_path / "run", (step(i, loss=loss.get(i, 2.0)) for i in range(1, n + 1)))
    before = memory()
    history = read(folder)
    assert (folder / "log.jsonl").stat().st_size > 9_000_000
    assert memory() - before < 4_000_000
    assert len(history.groups) == POINTS
    assert sum(group.of["loss"].n for group in history.groups) == n
    assert max(group.of["loss"].high for group in history.groups) == 50.0
    assert len(report([history])) < 300_000


def test_validations_and_dreams_are_thinned_and_the_last_stays(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for i in range(1, 5002):
        lines += [step(i, bpb=i / 1000), {"event": "dream", "step": i, "text": f"dream {i}"}]
    history = read(write(tmp_path / "run", lines))
    assert len(history.validations) <= 401
    assert history.validations[-1][1] == {"": 5.001}
    assert len(history.dreams) <= 25
    assert history.dreams[0] == (1, "dream 1")
    assert history.dreams[-1] == (5001, "dream 5001")


def test_the_page_needs_nothing_else_and_escapes_everything(tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script><img src="https://example.org/x">'
    folder = write(
        tmp_path / "run<b>", [step(1, **{f"bpb_{evil}": 1.0}), step(2), {"event": "dream", "step": 2, "text": evil}]
    )
    (folder / "recipe.json").write_text(json.dumps({"name": evil, evil: {"a": evil}, "derived": [{evil: evil}]}))
    (folder / "corpus.json").write_text(json.dumps({"sources": {evil: {"sha256": "0" * 64, evil: 1}, "b": {"x": 2}}}))
    html = report([read(folder)])
    found = Page(html)
    assert found.loads == []
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert "alert(1)" in found.text
    assert "url(" not in html
    assert not re.search(r"@import|https?://(?!example)", html)


def test_the_script_is_the_one_that_the_policy_names(tmp_path: Path) -> None:
    import base64
    import hashlib

    html = report([read(write(tmp_path / "run", [step(1)]))])
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    named = re.search(r"script-src 'sha256-([^']+)'", html)
    assert named
    assert named[1] == base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@pytest.mark.parametrize("n", [1, 2, 3, 700])
def test_curves_show_what_was_logged(tmp_path: Path, n: int) -> None:
    found = page(write(tmp_path / "run", [step(i, loss=3.0 + 1 / i, share=0.5, memory=2e9) for i in range(1, n + 1)]))
    for title in ("Loss", "Learning rate", "Gradient norm", "Share of the matrix peak", "Memory"):
        assert title in found.text
    lines = [path for path in found.paths if "data-name" in path]
    assert lines
    for path in found.paths:
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path["d"]):
            assert -1000 <= float(x) <= 1000
            assert -1000 <= float(y) <= 2000
    if n == 1:
        assert "dots" in found.classes  # a line of one point would not be seen


def test_an_older_log_without_speed_and_share(tmp_path: Path) -> None:
    """Only the clock: the speed follows from it, the share is not shown."""
    end = {"step": 400, "tokens": 40000, "finished": True, "bpb_tales": 0.72, "bpb_wiki": 1.5}
    found = page(write(tmp_path / "run", [*(step(i) for i in range(1, 401)), end]))
    assert "finished" in found.text
    assert " 50 tokens/s, median" in found.text
    assert "0.720 – 1.500" in found.text
    assert "matrix peak" not in found.text
    assert "Memory" not in found.text


def test_several_runs_are_overlaid_with_what_differs(tmp_path: Path) -> None:
    folders = []
    for name, rate in (("low", 0.01), ("high", 0.02)):
        folder = write(tmp_path / name, [step(i, loss=5 * rate + 2, bpb=1 + rate) for i in range(1, 30)])
        (folder / "recipe.json").write_text(json.dumps({"seed": 1, "plan": {"matrix_rate": rate}}))
        folders.append(folder)
    found = page(*folders)
    assert "low, high" in found.text
    differ = found.text.split("Where they differ")[1].split("low  seed")[0]
    assert "plan, matrix rate" in differ
    assert "0.01" in differ
    assert "0.02" in differ
    assert "legend" in found.classes
    assert {path["data-name"] for path in found.paths if "data-name" in path} == {"low", "high"}


def test_a_resumption_is_marked(tmp_path: Path) -> None:
    lines = [*(step(i) for i in range(1, 11)), *(step(i) for i in range(6, 21))]
    found = page(write(tmp_path / "run", lines))
    assert "resumed once" in found.text
    assert "mark" in found.classes


def test_a_ladder_shows_prediction_beside_outcome(tmp_path: Path) -> None:
    ladder = {
        "points": [{"params": 1e6, "tokens": 2e7, "loss": 4.0, "interval": [3.9, 4.1]}, {"params": 0}, "nonsense"],
        "fit": {"E": {"value": 1.69, "interval": [1.6, 1.8]}, "alpha": {"value": 0.34, "interval": [0.3, 0.4]}},
        "predictions": [
            {"params": 8e6, "tokens": 1.6e8, "predicted": 3.06, "low": 3.0, "high": 3.1, "outcome": 3.0},
            {"params": 6.4e7, "tokens": 1e9, "predicted": 2.5, "low": 2.4, "high": 2.6, "outcome": None},
        ],
    }
    (tmp_path / "ladder.json").write_text(json.dumps(ladder))
    found = page(tmp_path)
    for words in (
        "prediction and outcome",
        "3.0600",
        "3.0000 to 3.1000",
        "+2.00%",
        "not trained yet",
        "1.69",
        "0.3, 0.4",
    ):
        assert words in found.text, words
    drawn = {path["data-name"]: path for path in found.paths if "data-name" in path}
    assert set(drawn) == {"fitted", "predicted", "outcome"}
    assert drawn["predicted"]["d"].count("M") == 2
    assert drawn["outcome"]["d"].count("M") == 1


def test_a_recipe_with_every_derived_number(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "run", [step(1), {"event": "machine", "processor": "Abacus 3", "peak": 7.35e11, "memory": 16e9}]
    )
    derived = [{"name": "batch", "value": 65536, "law": "grows with the tokens", "source": "arXiv:2410.21676"}]
    (folder / "recipe.json").write_text(json.dumps({"seed": 3, "model": {"n_layers": 12}, "derived": derived}))
    found = page(folder)
    for words in (
        "65,536",
        "grows with the tokens",
        "arXiv:2410.21676",
        "n layers",
        "12",
        "Abacus 3",
        "735 GFLOP/s",
        "16.0 GB",
    ):
        assert words in found.text, words


def test_warnings_and_lines_that_could_not_be_read_are_told(tmp_path: Path) -> None:
    found = page(
        write(tmp_path / "run", ["rubbish\n", {"event": "warning", "text": "a <checkpoint> is damaged"}, step(1)])
    )
    assert "run: a <checkpoint> is damaged" in found.text
    assert "run: 1 lines of the log could not be read" in found.text


def test_the_card_of_a_corpus(tmp_path: Path) -> None:
    """Tables within tables, like and unlike ones."""
    folder = write(tmp_path / "run", [step(1)])
    dropped = [
        {"filter": "gopher", "documents": 12, "reasons": {"short": 7, "symbols": 5}},
        {"filter": "dedup", "documents": 3, "reasons": {}},
    ]
    sources = [{"name": name, "licence": "CC0", "train": {"documents": 5, "bytes": 12345}} for name in ("a", "b")]
    (folder / "card.json").write_text(json.dumps({"sources": sources, "dropped": dropped}))
    (folder / "corpus.json").write_text(json.dumps({"train": {"tokens": 777_000}}))
    found = page(folder)
    for words in ("777,000", "12,345", "train, documents", "gopher", "short 7, symbols 5", "CC0"):
        assert words in found.text, words


def test_the_vocabulary_has_a_section(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [step(1)])
    tokenizer = {"never_used": 7, "longest": [" <b>once"], "sources": {"tales": {"bytes_per_token": 4.125}}}
    made = {"tokenizer": tokenizer, "made_from": {"vocab_size": 4097}, "stamps": {"tales": "a1b2"}}
    (folder / "corpus.json").write_text(json.dumps(made | {"train": {"tokens": 5}}))
    found = page(folder)
    for words in ("The vocabulary", "never used", '" <b>once"', "4.125"):
        assert words in found.text, words
    assert "4,097" not in found.text
    assert "a1b2" not in found.text
    (folder / "corpus.json").write_text(json.dumps({"tokenizer": ["<b>"], "train": {"tokens": 5}}))
    assert "The vocabulary" not in page(folder).text


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    assert "no step in the log yet" in page(write(tmp_path / "run", [{"event": "machine"}])).text
    assert "no step in the log yet" in page(write(tmp_path / "run", [])).text


def test_no_run_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no log\.jsonl"):
        read(tmp_path)
    with pytest.raises(NotFoundError, match="there is no run"):
        read(tmp_path / "nowhere")


def test_the_running_median_keeps_a_step_and_drops_a_spike() -> None:
    values = [5.0] * 100 + [1.0] * 100
    values[150] = 99.0
    assert smooth(values) == [5.0] * 100 + [1.0] * 100
    falling = [1 / (i + 1) for i in range(300)]
    assert smooth(falling)[:140] == falling[:140]


def test_ticks_are_round_and_few() -> None:
    assert Scale(0, 9.3).ticks() == [0, 2, 4, 6, 8]
    assert Scale(1.83, 2.31).ticks() == pytest.approx([1.9, 2.0, 2.1, 2.2, 2.3])
    assert Scale(0.02, 30, True).ticks() == pytest.approx([0.1, 1, 10])
    assert Scale(0, 11000).times() == [0, 3600, 7200, 10800]
    assert Scale(0, 100).times() == [0, 20, 40, 60, 80, 100]
    for low, high, log in [(1e-9, 1e9, True), (3, 3.0001, False), (0, 1e15, False), (1, 2, True)]:
        scale = Scale(low, high, log)
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 11
        assert all(-0.001 <= scale(tick) <= 1.001 for tick in ticks)


def test_numbers_and_times_are_short() -> None:
    assert [quantity(x) for x in (0, 0.123456, 999, 4000, 12_345, 9_283_584, 2.5e15)] == [
        "0",
        "0.123",
        "999",
        "4,000",
        "12.3 k",
        "9.28 M",
        "2.5 P",
    ]
    assert [short_span(x) for x in (0, 45, 90, 120, 5400, 7200, 172800)] == [
        "0",
        "45 s",
        "90 s",
        "2 min",
        "90 min",
        "2 h",
        "2 d",
    ]
