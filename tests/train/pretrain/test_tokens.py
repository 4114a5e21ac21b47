"""The packed token file and its loader."""

from pathlib import Path

import numpy as np
import pytest

from twofile.errors import TrainError
from twofile.train.pretrain import tokens as tokens_module
from twofile.train.pretrain.tokenizer import learn
from twofile.train.pretrain.tokens import Rows, files, pack, packing

TEXTS = [f"This is the text of number {i}, and it is short." for i in range(300)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "train.npy"
    summary = pack(TEXTS, learn(TEXTS, 280), path)
    assert summary.documents == 300
    assert summary.bytes == sum(map(len, TEXTS))
    assert summary.tokens == len(np.load(path))
    assert summary.words == sum(len(text.split()) for text in TEXTS)
    return path


def test_documents_come_back(packed: Path) -> None:
    vocabulary, tokens = learn(TEXTS, 280), np.load(packed)
    assert tokens.dtype == np.uint16
    starts = np.flatnonzero(tokens == 0)
    assert len(starts) == 301
    assert starts[0] == 0
    assert starts[-1] == len(tokens) - 1
    for text, start, end in zip(TEXTS, starts[:-1], starts[1:], strict=True):
        assert b"".join(vocabulary.token_bytes(int(i)) for i in tokens[start + 1 : end]).decode() == text


def test_rows_are_a_function_of_seed_and_number(packed: Path) -> None:
    a, b, other = Rows(packed, 16, seed=3), Rows(packed, 16, seed=3), Rows(packed, 16, seed=4)
    first = [a.batch(row, 4) for row in range(0, 4 * a.blocks, 4)]  # four epochs
    assert all(np.array_equal(b.batch(4 * i, 4), first[i]) for i in reversed(range(len(first))))
    assert first[0].shape == (4, 17)
    assert not np.array_equal(other.batch(0, 4), first[0])


def test_an_epoch_has_every_block_once(packed: Path) -> None:
    rows, tokens = Rows(packed, 16), np.load(packed)
    for epoch in (0, 1):
        seen = rows.batch(epoch * rows.blocks, rows.blocks)[:, :-1].ravel()
        assert len(seen) == rows.blocks * 16
        shift = rows._shift
        assert np.array_equal(np.sort(seen), np.sort(tokens[shift : shift + len(seen)]))
    assert len(list(rows.in_order())) == rows.blocks
    assert np.array_equal(np.stack(list(rows.in_order(2)))[:, 0], tokens[[0, 16]])


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"no array")
    np.save(tmp_path / "b.npy", np.zeros(10))
    np.save(tmp_path / "c.npy", np.zeros(20, np.uint16))
    for name in ("a.npy", "b.npy", "none.npy"):
        with pytest.raises(TrainError, match=name):
            Rows(tmp_path / name, 16)
    with pytest.raises(TrainError, match="fewer than two contexts"):
        Rows(tmp_path / "c.npy", 16)


def test_a_packer_counts_what_it_took_and_how_often_each_token(tmp_path: Path) -> None:
    vocabulary, odd = learn(TEXTS, 280), [" a  b\n\nc ", "", "x"]
    with packing(vocabulary, tmp_path / "a.npy") as packer:
        parts = []
        for texts in (TEXTS, odd, []):
            for text in texts:
                packer.add(text)
            parts.append(packer.take())
    assert [(part.documents, part.words) for part in parts] == [(300, 3300), (3, 4), (0, 0)]
    assert [part.bytes for part in parts] == [sum(len(text) for text in texts) for texts in (TEXTS, odd, [])]
    tokens = np.load(tmp_path / "a.npy")
    assert packer.total.tokens == len(tokens) == sum(part.tokens for part in parts) + 1
    assert packer.uses_V[0] == 0
    assert np.array_equal(packer.uses_V[1:], np.bincount(tokens, minlength=280)[1:])


def test_an_error_while_packing_leaves_nothing(tmp_path: Path) -> None:
    vocabulary = learn(TEXTS, 280)

    def fail() -> None:
        with packing(vocabulary, tmp_path / "a.npy") as packer:
            packer.add("some text")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_several_files_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, path = learn(TEXTS, 280), tmp_path / "train.npy"
    monkeypatch.setattr(tokens_module, "_BATCH", 2000)
    many = TEXTS * 6
    whole = pack(many, vocabulary, tmp_path / "whole.npy")
    summary = pack(many, vocabulary, path, shard=whole.tokens // 4)
    names = [file.name for file in files(path)]
    assert names == ["train.npy", "train.1.npy", "train.2.npy", "train.3.npy"]
    assert summary.documents == whole.documents == 1800
    assert summary.tokens == whole.tokens + len(names) - 1  # each file ends with a separator
    rows = Rows(path, 16)
    assert rows.blocks == sum((len(np.load(file)) - 16) // 16 for file in files(path))
    seen = rows.batch(0, rows.blocks)
    for file, part in zip(files(path), rows.parts, strict=True):
        shift, blocks = rows._shift, (len(part) - 16) // 16
        expected = {np.load(file)[at : at + 17].tobytes() for at in range(shift, shift + 16 * blocks, 16)}
        assert expected <= {row.astype(np.uint16).tobytes() for row in seen}
    again = pack(TEXTS, vocabulary, path)
    assert [file.name for file in files(path)] == ["train.npy"]
    assert again.documents == 300
