"""The report on a vocabulary."""

import json
from pathlib import Path

import numpy as np
import pytest

from twofile.train.pretrain.tokenizer import BYTES, learn, tokenizer
from twofile.train.pretrain.tokens import packing
from twofile.train.pretrain.usage import usage, words
from twofile.train.report.usage import section

TEXTS = ["the little cat sat on the mat with the little dog"] * 20
OTHER = ["the little cat"] * 5


def test_usage(tmp_path: Path) -> None:
    vocabulary = learn(TEXTS, BYTES + 24)
    with packing(vocabulary, tmp_path / "a.npy") as packer:
        for text in OTHER:
            packer.add(text)
        taken = packer.take()
    found = usage(vocabulary, packer.uses_V, {"other": taken, "none": type(taken)()})
    bpe = tokenizer(vocabulary)
    ids = [bpe.encode(text).ids for text in OTHER]
    count = sum(map(len, ids))
    each = found["sources"]["other"]
    assert each["bytes_per_token"] == pytest.approx(5 * 14 / count, abs=1e-3)
    assert each["tokens_per_word"] == pytest.approx(count / 15, abs=1e-3)
    assert found["sources"]["none"] == {"bytes_per_token": None, "tokens_per_word": None}
    assert found["longest"][0] == " little"
    used = set(np.concatenate(ids).tolist())
    learned = set(range(BYTES, BYTES + 24))
    assert found["never_used"] == len(learned - used) == len(found["never_used_first"])
    assert " dog" in found["never_used_first"]
    assert " cat" not in found["never_used_first"]
    assert found["bytes_never_used"] == 256 - len(used - learned)
    assert json.loads(json.dumps(found)) == found
    said = words(found)
    assert said[0].startswith("other: ")
    assert f"{len(learned - used)} of {BYTES + 24} tokens never occur" in said[-1]
    html = section(found)
    assert "&quot; little&quot;" in html
    assert "tokens per word" in html
