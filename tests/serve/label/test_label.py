"""Labels: none is lost, none is doubled, whatever dies; what they become is what training reads."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_main import call
from tests.tiny import tiny_parameters
from twofile.errors import LabelError
from twofile.serve.label.agreement import alpha
from twofile.serve.label.items import agreement, conversations, item, pairs
from twofile.serve.label.store import Item, Label, Store
from twofile.train.feedback.pairs import read_pairs
from twofile.train.tune.conversations import read

ASKED = ({"role": "user", "content": "Q"},)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "labels.db")
    yield store
    store.close()


def asked(number: int, *replies: str) -> Item:
    return Item(({"role": "user", "content": f"Q{number}"},), replies)


def label(item: int, who: str, verdict: Any = "first", **more: str) -> Label:
    return Label(str(uuid.uuid4()), item, who, verdict, **more)


def test_a_label_is_kept_once(store: Store) -> None:
    assert store.add([asked(1, "A", "B"), asked(2), asked(1, "A", "B")]) == 2
    one = label(1, "ann")
    assert [store.submit(one), store.submit(one), store.submit(label(1, "ann"))] == ["kept", "known", "other"]
    assert store.submit(label(1, "bob")) == "kept"
    assert store.counts("ann") == {"items": 2, "done": 1, "labels": 2, "mine": 1}
    with pytest.raises(LabelError, match="no item 9"):
        store.submit(label(9, "ann"))


def test_undo_takes_back_the_last_of_ones_own(store: Store) -> None:
    store.add([asked(1, "A", "B"), asked(2, "A", "B")])
    store.submit(label(1, "ann"))
    store.submit(label(2, "ann", "second", reason="shorter"))
    store.submit(label(2, "bob"))
    undone = store.undo("ann")
    assert undone is not None
    assert (undone.item, undone.verdict, undone.reason) == (2, "second", "shorter")
    assert [(one.item, one.labeller) for one in store.labels()] == [(1, "ann"), (2, "bob")]
    assert store.submit(label(2, "ann", "tie")) == "kept"
    assert store.undo("eve") is None
    first = store.undo("ann", "u1")
    assert first is not None
    assert (first.item, first.verdict) == (2, "tie")
    assert store.undo("ann", "u1") == first  # the answer was lost, and it is asked again
    assert [(one.item, one.labeller) for one in store.labels()] == [(1, "ann"), (2, "bob")]


def test_who_sees_what(store: Store) -> None:
    store.add([asked(i, "A", "B") for i in range(1, 4)])

    def seen(who: str, **more: Any) -> int | None:
        found = store.next(who, **more)
        return None if found is None else found.id

    assert seen("ann") == 1
    assert seen("bob", without=[1]) == 2
    store.submit(label(2, "ann"))
    assert seen("bob") == 1  # one label is enough
    assert seen("bob", each=2) == 2  # two are wanted, and one is there
    assert seen("ann", each=2) == 1
    store.submit(label(1, "ann"))
    store.submit(label(3, "ann"))
    assert seen("ann", each=2) is None


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        (("0100000000", "1110010100"), 0.095),
        (("aabbdcccedda", "babbbccceddd"), 0.692),
        (("123321412   ", "1233224125 3", " 3332342251 ", "12332441251 "), 0.743),
    ],
)
def test_alpha_worked_out(rows: tuple[str, ...], value: float) -> None:
    """The examples of Krippendorff 2011: two values, five values, four observers with values missing."""
    found = alpha([[row[i] for row in rows if row[i] != " "] for i in range(len(rows[0]))])
    assert found == pytest.approx(value, abs=5e-4)


def test_alpha_of_little() -> None:
    assert alpha([["a", "a"], ["b", "b"], ["a"]]) == 1.0
    assert alpha([["a"], ["b"]]) is None
    assert alpha([["a", "a"]]) is None


def test_rows_become_items() -> None:
    assert item({"prompt": "Q", "chosen": "A", "rejected": "B"}) == Item(ASKED, ("A", "B"))
    assert item({"messages": list(ASKED), "replies": ["A", "B"]}) == Item(ASKED, ("A", "B"))
    assert item({"prompt": "Q"}, "a.jsonl") == Item(ASKED, source="a.jsonl")
    with pytest.raises(ValueError, match="not one or two texts"):
        item({"prompt": "Q", "replies": ["A", "B", "C"]})


def test_labels_become_training_data(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.add([asked(1, "A", "B"), asked(2), asked(3, "bad"), asked(4, "A", "B"), asked(5, "A", "B")])
    for who, verdict in (("ann", "second"), ("bob", "second"), ("eve", "first")):
        store.submit(label(1, who, verdict, reason=f"as {who} says"))
    store.submit(label(2, "ann", "text", text="ideal"))
    store.submit(label(3, "ann", "text", text="good"))
    store.submit(label(4, "ann", "tie"))
    store.submit(label(5, "ann", "skip", text="not to be learned"))
    assert store.counts("ann")["done"] == 4
    assert store.next("bob") == store.item(5)  # who passes over an item leaves it to others
    found = list(pairs(store))
    assert [(one["chosen"], one["rejected"]) for one in found] == [("B", "A"), ("good", "bad")]
    assert found[0]["votes"] == {"second": 2, "first": 1}
    assert len(found[0]["reasons"]) == 3
    assert [one["messages"][-1]["content"] for one in conversations(store)] == ["ideal", "good"]
    assert agreement(store) == pytest.approx(alpha([["second", "second", "first"]]))
    folder = tmp_path / "out"
    assert call("label", "--into", str(store.path), "--export", str(folder)) == 0
    assert "alpha" in capsys.readouterr().err
    assert [one.chosen["content"] for one in read_pairs(folder / "pairs.jsonl") if one] == ["B", "good"]
    assert len(list(read(folder / "conversations.jsonl"))) == 2


def test_a_bad_reply_of_a_chat_is_there_to_correct(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    model = tiny_parameters("qwen3", "F32", 1, tmp_path / "tiny.gguf")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"/bad\nhello\n/bad it made no sense\n")))
    assert call("chat", str(model), "-n", "8") == 0
    told = capsys.readouterr().err
    assert "no reply to mark yet" in told
    assert "marked" in told
    store = Store(own_home / "labels.db")
    (found,) = store.items()
    store.close()
    assert found.messages == ({"role": "user", "content": "hello"},)
    assert len(found.replies) == 1
    assert found.source == "chat: it made no sense"


def test_a_model_writes_replies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_parameters("qwen3", "F32", 1, tmp_path / "tiny.gguf")
    prompts, base = tmp_path / "prompts.jsonl", tmp_path / "labels.db"
    prompts.write_text('{"prompt": "once"}\n{"prompt": "upon", "chosen": "A", "rejected": "B"}\n')
    options = ["--into", str(base), "--model", str(model), "--longest", "6", "--export", str(tmp_path / "out")]
    assert call("label", str(prompts), *options) == 0
    store = Store(base)
    first, second = store.items()
    store.close()
    assert len(first.replies) == 2
    assert second.replies == ("A", "B")


def test_what_is_no_file_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.db"
    path.write_text("not a database, but long enough to look like one" * 100)
    assert call("label", "--into", str(path)) == 1
    assert "no file of labels" in capsys.readouterr().err
    assert call("label") == 1
    assert "nothing to label yet" in capsys.readouterr().err


class Server:
    """`twofile label` in a process of its own, which can be killed and started again on the same port."""

    def __init__(self, base: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.command = [
            sys.executable, "-m", "twofile", "label", *arguments, "--into", str(base), "--port", str(self.port),
            "--no-browser",
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.call("/api/progress")
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < deadline
                assert self.process.poll() is None
                time.sleep(0.05)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def call(self, path: str, body: Any = None, **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(*arguments: str) -> Server:
        made.append(Server(tmp_path / "served.db", *arguments))
        return made[-1]

    yield start
    for server in made:
        server.kill()


def test_a_thousand_labels_of_eight_clients_while_the_server_dies(tmp_path: Path, serve: Callable[..., Server]) -> None:
    clients, each = 8, 125
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": f"Q{i}", "replies": ["A", "B"]}) + "\n" for i in range(clients * each))
    )
    server = serve(str(rows), "--each", "8")
    acknowledged: list[str] = []

    def client(number: int) -> None:
        draw = random.Random(number)
        for i in range(each):
            said = {"id": f"{number}-{i}", "item": number * each + i + 1, "labeller": f"c{number}", "verdict": "left"}
            while True:
                try:
                    server.call("/api/label", said)
                    if draw.random() < 0.1:
                        server.call("/api/label", said)  # an answer was lost on its way
                    break
                except (OSError, http.client.HTTPException):
                    time.sleep(0.02)
            acknowledged.append(said["id"])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    draw = random.Random(0)
    for part in range(4):
        wanted = draw.randrange(250 * part, 250 * part + 200)
        while len(acknowledged) < wanted:
            time.sleep(0.001)
        server.kill()
        server.start()
    for thread in threads:
        thread.join()
    store = Store(tmp_path / "served.db")
    ids = [one.id for one in store.labels()]
    store.close()
    assert len(acknowledged) == len(ids) == 1000
    assert set(ids) == set(acknowledged)


def test_blind(tmp_path: Path, serve: Callable[..., Server]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": f"Q{i}", "chosen": "GOOD", "rejected": "BAD"}) + "\n" for i in range(30))
    )
    server = serve(str(rows))
    sides = []
    for i in range(30):
        shown = server.call("/api/next?labeller=ann")["item"]
        side = ["left", "right"][shown["replies"].index("GOOD")]
        assert "chosen" not in json.dumps(shown)
        sides.append(side)
        said = {"id": f"x{i}", "item": shown["id"], "labeller": "ann", "verdict": side, "text": "", "reason": ""}
        assert server.call("/api/label", said) == {"outcome": "kept"}
    assert 5 < sides.count("left") < 25
    assert server.call("/api/next?labeller=ann")["item"] is None
    again = server.call("/api/undo", {"labeller": "ann"})
    assert again["before"]["verdict"] == sides[-1]
    store = Store(tmp_path / "served.db")
    assert {one.verdict for one in store.labels()} == {"first"}
    store.close()


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/api/progress", None, {"Host": "evil.example"}, 403),
        ("/api/label", {}, {"Origin": "http://evil.example"}, 403),
        ("/api/label", {}, {"Content-Type": "text/plain"}, 400),
        ("/api/label", {"labeller": "ann", "item": 77, "id": "1", "verdict": "left"}, {}, 400),
        ("/api/label", {"labeller": "ann", "item": 1, "id": "1", "verdict": "best"}, {}, 400),
        ("/api/label", {"labeller": "ann", "item": 1, "key": "of another", "id": "1", "verdict": "left"}, {}, 400),
        ("/api/label", {"labeller": "ann", "item": 1 << 70, "id": "1", "verdict": "left"}, {}, 400),
        ("/api/label", {"labeller": "ann", "item": True, "id": "1", "verdict": "left"}, {}, 400),
        ("/api/label", {"labeller": "ann", "item": 1, "id": "", "verdict": "left"}, {}, 400),
        ("/api/label", {"labeller": "", "item": 1, "id": "1", "verdict": "left"}, {}, 400),
        ("/api/label", {"labeller": "ann", "item": 1, "id": "1", "verdict": "text", "text": " "}, {}, 400),
        ("/api/label", [1], {}, 400),
        ("/../store.py", None, {}, 404),
    ],
)  # fmt: skip
def test_what_is_refused(shared_server: Server, path: str, body: Any, headers: dict[str, str], status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        shared_server.call(path, body, **headers)
    assert refused.value.code == status
    refused.value.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("label")
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "Q", "replies": ["A", "B"]}) + "\n")
    server = Server(folder / "labels.db", str(rows))
    yield server
    server.kill()
