"""Tasks: their files are read as published, scores are those of the model, a measurement goes on where it was."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_main import call
from tests.tiny import tiny_parameters
from twofile.cli.texts import seen_in
from twofile.engine.engine import Engine
from twofile.errors import NotFoundError, TaskError
from twofile.evaluate.tasks.choices import accuracy
from twofile.evaluate.tasks.programs import passes
from twofile.evaluate.tasks.run import draw, evaluate, summary
from twofile.evaluate.tasks.scoring import Scorer
from twofile.evaluate.tasks.sums import number_of
from twofile.evaluate.tasks.table import TASKS
from twofile.evaluate.tasks.task import Choice, Item, Question, Said


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = tiny_parameters("qwen3", "F32", 1, tmp_path_factory.mktemp("tasks") / "tiny.gguf")
    with Engine(path) as engine:
        yield engine


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tar(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:xz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few items of every task, in the form in which its authors publish them."""
    folder = tmp_path / "data"
    folder.mkdir()
    pair = {"sentence_good": "The girl was.", "sentence_bad": "The girl were.", "UID": "agreement"}
    tar(folder / "blimp.tar.xz", {"blimp/agreement.jsonl": lines(*({**pair, "pairID": str(i)} for i in range(70)))})
    (folder / "lambada").mkdir()
    (folder / "lambada" / "lambada_test.jsonl").write_text(lines({"text": "once upon a time the little girl\nwas Tom"}))
    (folder / "arc").mkdir()
    asked = (
        "Please choose the correct answer to the question: What is wet?\n\nAnswer1: Fire. Answer2: The sea. Answer3: "
    )
    row = {"instruction": f"{asked}Sand.\n\nAnswer format: answer1/answer2/answer3", "answer": "answer2"}
    for name in ("easy_test", "challenge_test", "easy_train"):
        (folder / "arc" / f"{name}.json").write_text(json.dumps([row, row]))
    scene = {"activity_label": "Swimming", "ctx_a": "A girl [step] swims.", "ctx_b": "she", "label": 3}
    ending = lines(scene | {"endings": ["sinks.", "flies.", "sings.", "floats [title] on."]})
    (folder / "hellaswag_val.jsonl.xz").write_bytes(lzma.compress(ending.encode()))
    table = io.StringIO()
    csv.writer(table).writerow(["What is 1 + 1, then?", "1", "2", "3", "4", "B"])
    tar(folder / "mmlu.tar.xz", {f"mmlu/{k}/easy_sums_{k}.csv": table.getvalue() for k in ("dev", "test")})
    targets = {"Nothing.": 1, "You die.": 0}
    truth = {"question": "What happens?", "mc1_targets": targets, "mc2_targets": targets | {"It passes.": 1}}
    (folder / "mc_task.json").write_text(json.dumps([truth]))
    (folder / "gsm8k").mkdir()
    sums = {"question": "Tom has 2 apples and buys 1,003.", "answer": "2+1003=<<2+1003=1005>>1005\n#### 1,005"}
    for name in ("train", "test"):
        (folder / "gsm8k" / f"{name}.jsonl").write_text(lines(sums))
    program = {
        "task_id": "T/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "test": "def check(c):\n    assert c(2) == 4",
    }
    (folder / "HumanEval.jsonl.gz").write_bytes(gzip.compress(lines(program).encode()))
    return folder


def test_every_file_is_read(data: Path) -> None:
    counts = {"blimp": 70, "arc_easy": 2, "arc_challenge": 2, "truthfulqa": 2}
    for name, task in TASKS.items():
        items = task.load(data, task.shots)
        assert len(items) == counts.get(name, 1)
        assert len({item.id for item in items}) == len(items)
        with pytest.raises(NotFoundError, match="has no"):
            task.load(data / "lambada" / "nothing", 0)


def one(name: str, data: Path, shots: int = 0) -> Item:
    return TASKS[name].load(data, shots)[0]


def test_protocols(data: Path) -> None:
    """The texts that lm-evaluation-harness would show."""
    assert one("lambada", data) == Choice("0", "lambada", (("once upon a time the little girl\nwas", " Tom"),), (0,))
    context = "Question: What is wet?\nAnswer:"
    assert one("arc_easy", data).options == ((context, " Fire."), (context, " The sea."), (context, " Sand."))  # type: ignore[union-attr]
    shown = one("arc_easy", data, 1)
    assert isinstance(shown, Choice)
    assert shown.options[0][0] == f"{context} The sea.\n\n{context}"
    assert shown.right == (1,)
    scene = one("hellaswag", data)
    assert isinstance(scene, Choice)
    assert scene.options[3] == ("Swimming: A girl swims. She", " floats. on.")
    exam = one("mmlu", data, 5)
    assert isinstance(exam, Choice)
    question = "What is 1 + 1, then?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    about = "The following are multiple choice questions (with answers) about easy sums.\n\n"
    assert exam.options[1] == (f"{about}{question} B\n\n{question}", " B")
    sum_ = one("gsm8k", data, 1)
    assert isinstance(sum_, Question)
    asked = "Question: Tom has 2 apples and buys 1,003.\nAnswer:"
    assert sum_.prompt == f"{asked} 2+1003=<<2+1003=1005>>1005\n#### 1,005\n\n{asked}"


def logp(engine: Engine, context: list[int], continuation: list[int]) -> float:
    """Of a continuation, from one pass over everything."""
    logits = engine.session().append([*context, *continuation[:-1]], "all")[len(context) - 1 :].astype(np.float64)
    return sum(row[token] - np.logaddexp.reduce(row) for row, token in zip(logits, continuation, strict=True))


def test_scores_are_the_models(engine: Engine) -> None:
    items = [
        Choice("a", "", (("once upon", " a time"), ("once upon", " the day"), ("the", " girl")), (0,)),
        Choice("b", "", (("", "the little girl"), ("", "x")), (0,)),
        *(Choice(str(i), "", (("he was on time and " * 3, " little" * i),), (0,)) for i in range(1, 40)),
    ]
    found = dict(Scorer(engine).choices(items))
    assert list(found) == list(range(len(items)))
    for number, item in enumerate(items):
        for (context, continuation), said in zip(item.options, found[number], strict=True):
            whole = engine.tokenize(context.rstrip() + context[len(context.rstrip()) :] + continuation)
            before = engine.tokenize(context.rstrip()) if context else [engine.info.bos]
            after = whole[len(before) :] if context else whole
            assert said.logp == pytest.approx(logp(engine, before, after), abs=1e-4)
            assert said.tokens == len(after)
        assert list(Scorer(engine).choices([item])) == [(0, found[number])]  # whatever is beside it


def test_greedy_is_what_generation_would_say(engine: Engine) -> None:
    ids = engine.tokenize("once upon")
    best = int(engine.session().append(ids).argmax())
    with Engine(engine.path) as other:
        word = other.detokenize([best])
    if engine.tokenize("once upon" + word) == [*ids, best]:
        ((_, (said,)),) = Scorer(engine).choices([Choice("a", "", (("once upon", word),), (0,))])
        assert said.greedy
    ((_, (wrong,)),) = Scorer(engine).choices([Choice("a", "", (("once upon", " a little girl was on time"),), (0,))])
    assert not wrong.greedy


def test_what_does_not_fit_is_counted(engine: Engine) -> None:
    scorer = Scorer(engine)
    long = "the girl " * engine.context_length
    ((_, (said,)),) = scorer.choices([Choice("a", "", ((long, " was"),), (0,))])
    assert scorer.cut == {"a"}
    assert math.isfinite(said.logp)
    with pytest.raises(TaskError, match="fit into the context"):
        list(scorer.choices([Choice("a", "", (("x", long),), (0,))]))


def test_by_length() -> None:
    item = Choice("a", "", (("", "ab"), ("", "abcdefgh")), (1,))
    assert accuracy(item, [Said(-3.0, False, 1), Said(-4.0, False, 4)]) == {"acc": 0.0, "acc_norm": 1.0}


@pytest.mark.parametrize(
    ("text", "strict", "last"),
    [
        ("so 3 and 4\n#### 1,005\n#### 8", 1005, 8),
        ("#### 7.5. And $8", 7.5, 8),
        ("it is 12.", None, 12),
        ("-3", None, -3),
        ("none, #### .", None, None),
    ],
)
def test_numbers(text: str, strict: float | None, last: float | None) -> None:
    assert number_of(text, strict=True) == strict
    assert number_of(text) == last


def test_what_training_text_holds_is_of_the_item_alone(data: Path, tmp_path: Path) -> None:
    """Solved examples are of the training part of a task, and may stand in a training text; that taints no item."""
    (item,) = TASKS["gsm8k"].load(data, 1)
    assert item.text.count("Tom has 2 apples") == 1 < item.prompt.count("Tom has 2 apples")
    (asked,) = TASKS["mmlu"].load(data, 1)
    assert asked.text.count("What is 1 + 1") == 1
    text, other = " ".join(f"w{i}" for i in range(20)), " ".join(f"v{i}" for i in range(20))
    (tmp_path / "train.txt").write_text(f"before {' '.join(f'w{i}' for i in range(3, 18))} after {other[:30]}")
    judge = seen_in([tmp_path / "train.txt"], [text, other])
    assert (judge(text), judge(other), judge("never seen " * 20), judge("")) == (True, False, False, False)


def test_goes_on_where_it_was(engine: Engine, data: Path, tmp_path: Path) -> None:
    task, path = TASKS["blimp"], tmp_path / "results" / "blimp.jsonl"
    items = task.load(data, 0)
    whole = evaluate(task, items, Scorer(engine), {"model": "m"}, path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])  # a kill in the middle of a line
    asked: list[int] = []
    again = evaluate(task, items, Scorer(engine), {"model": "m"}, path, progress=lambda done, n: asked.append(done))
    assert again == whole
    assert 0 < len(asked) < len(items)
    assert evaluate(task, items, Scorer(engine), {"model": "m"}, path, progress=lambda *_: 1 / 0) == whole
    with pytest.raises(TaskError, match="measured otherwise"):
        evaluate(task, items, Scorer(engine), {"model": "other"}, path)
    with pytest.raises(TaskError, match="items"):
        evaluate(task, items[::-1], Scorer(engine), {"model": "m"}, path)
    found = evaluate(task, items, Scorer(engine), {"model": "m"}, path, seen=lambda text: "was" in text)
    assert all(one.seen for one in found)  # measured before, and looked at now
    (figure,) = summary(task, whole)
    assert (figure.n, figure.chance) == (70, 0.5)
    assert figure.value.low < figure.value.value < figure.value.high or figure.value.value in (0.0, 1.0)
    assert draw(items, 5, 1) == draw(items, 5, 1) != draw(items, 5, 2)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap, which runs what models write")
def test_programs_are_run_in_a_sandbox(data: Path, tmp_path: Path) -> None:
    (item,) = TASKS["humaneval"].load(data, 0)
    judge = TASKS["humaneval"].judge
    assert judge(item, "    return x * 2\n") == {"pass@1": 1.0}
    assert judge(item, "    return 3\n") == {"pass@1": 0.0}
    assert judge(item, "    raise SystemExit(0)\n") == {"pass@1": 0.0}
    mine = tmp_path / "mine.txt"
    mine.write_text("secret")
    assert not passes(f"open({str(mine)!r})")
    assert not passes("import socket; socket.create_connection(('127.0.0.1', 1))")
    assert not passes("x = bytearray(1 << 31)")
    assert not passes("while True: pass", seconds=1)
    assert not passes("while True: print('a' * 1000)", seconds=3)
    assert not passes("import os; os.write(1, b'\\ntwofile: passed\\n'); os._exit(3)")
    assert not passes("raise ValueError('bwrap: not me')")
    remount = "ctypes.CDLL(None).mount(None, b'/usr', None, 4096 | 32, None)"
    assert passes(f"import ctypes, os; assert {remount} != 0 and not os.access('/usr/lib', os.W_OK)")
    assert passes("import os; assert os.getuid() == 65534")


def test_without_a_sandbox_nothing_is_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (item,) = TASKS["humaneval"].load(data, 0)
    with pytest.raises(TaskError, match="bubblewrap"):
        TASKS["humaneval"].judge(item, "    return 4")


def test_command(engine: Engine, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", str(engine.path)) == 0
    assert "gsm8k" in capsys.readouterr().out
    assert call("evaluate", str(engine.path), "chess") == 2
    capsys.readouterr()
    trained = tmp_path / "trained.txt"
    trained.write_text("Once, " + "Question What is wet Answer Fire The sea Sand " * 3)
    options = ["--data", str(data), "--train", str(trained), "--text", str(trained), "--into", str(tmp_path / "into")]
    assert call("evaluate", str(engine.path), "arc_easy", "gsm8k", "--shots", "1", *options, "--json") == 0
    printed, told = capsys.readouterr()
    rows = {(row["task"], row["metric"]): row for row in json.loads(printed)}
    assert rows["arc_easy", "acc"]["n"] == 2
    assert rows["gsm8k", "exact"]["value"][0] == 0.0
    assert rows["trained.txt", "bits per byte"]["value"][0] > 1
    assert "items stand in the training text" in told
    assert len(list((tmp_path / "into").iterdir())) == 2
    assert call("evaluate", str(engine.path), "blimp", "--limit", "10", "--chat", "--data", str(data)) == 0
    assert "50%" in capsys.readouterr().out
