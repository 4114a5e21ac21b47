"""Conversations for the bundled assistant, made by program, and questions to measure it with.

    python recipes/conversations.py --data DATA --into FOLDER [--count 40000] [--stories 9000]

DATA has `pretrain/` and, where it is there, `sft/`. Writes `talks.jsonl`, conversations to learn from: the skills of
`talks/`, stories with given words (`wordstories.py`), facts of the World Factbook by a search, passages of FairytaleQA,
role play of GPTeacher; `prompts.jsonl`, requests for stories to reinforce with; and `questions.jsonl`, conversations
whose last request is in a phrasing that neither has, each with a `check` that `score` judges a reply by, while `tool`
plays the tools. Without `--data` the skills that need no data. The standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import wordstories
from talks import chat, passages, services, sums
from talks.talk import Talk, exchange
from talks.tools import calculate

Skill = Callable[[Random, bool], Talk]

SHARES: tuple[tuple[float, Skill], ...] = (
    (0.35, sums.make), (0.04, sums.alone), (0.17, passages.make), (0.12, chat.make), (0.05, chat.about_itself),
    (0.03, chat.unknown), (0.13, chat.persona), (0.07, services.python), (0.04, services.needless),
)  # fmt: skip
SEARCHED = 0.06  # in place of as much of the first
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
SHORTEST = 150  # words that a passage of a tale may have


def score(messages: Sequence[Mapping[str, Any]], reply: str, row: Mapping[str, Any]) -> float:
    """1 for a reply that has what `row["check"]` asks, else 0; for requests of stories, what the oracle says of 5."""
    check = row["check"]
    said = reply.strip()
    if check["skill"] == "stories":
        return wordstories.gold(messages, reply, row) / 5
    if "number" in check:
        found = NUMBER.findall(said)
        return float(bool(found) and abs(float(found[-1].replace(",", "")) - float(check["number"])) < 1e-6)
    good = bool(said) and not (check.get("none") and row.get("calls"))  # tools that were of no use
    if "text" in check:
        whole = rf"(?<![\w.]){re.escape(check['text'])}(?!\w|\.\d)"
        good = good and re.search(whole, said, re.IGNORECASE) is not None
    if "any" in check:
        good = good and any(text in said.lower() for text in check["any"])
    if "lower" in check:
        good = good and said == said.lower()
    if "upper" in check:
        good = good and said == said.upper()
    if "start" in check:
        good = good and said.startswith(check["start"])
    if "end" in check:
        good = good and said.endswith(check["end"])
    return float(good)


def tool(name: str, arguments: Any, row: Mapping[str, Any]) -> str:
    """What a tool gives: the calculator works, a search finds what the question is about, and of programs only that is
    run which the question needs. ValueError where it gives nothing."""
    check = row["check"]
    values = list(arguments.values()) if isinstance(arguments, dict) else []
    if len(values) != 1 or not isinstance(values[0], str):
        raise ValueError("one argument, a text, is needed")
    if name == "calculator":
        return calculate(values[0])
    if name == "python" and values[0] == check.get("code"):
        return str(check["text"])
    if name == "search" and any(word in values[0] for word in check.get("words", ())):
        return str(check["result"])
    raise ValueError("nothing was found" if name == "search" else f"{name} cannot do that")


def tales(path: Path) -> Iterator[Talk]:
    """Short passages of fairy tales, with a question and its answer; those of the tales that are not for tests."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["split"] == "train" and len(row["context"].split()) <= SHORTEST and row["answers"]:
                answer = row["answers"][0].strip()
                answer = answer[:1].upper() + answer[1:] + ("" if answer.endswith((".", "!", "?")) else ".")
                yield Talk(exchange(f"{row['context'].strip()}\n\n{row['question'].strip()}", answer))


def roles(path: Path) -> Iterator[Talk]:
    """Role play of a fair length."""
    for row in json.loads(lzma.decompress(path.read_bytes())):
        asked = "\n".join(part for part in (row["instruction"].strip(), (row.get("input") or "").strip()) if part)
        if 0 < len(row["response"]) <= 800 and len(asked) <= 400:
            yield Talk(exchange(asked, row["response"].strip()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40000, help="conversations of the skills")
    parser.add_argument("--stories", type=int, default=10**9, help="stories that are used")
    parser.add_argument("--questions", type=int, default=200, help="of each skill, to measure with")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    draw = Random(given.seed)
    skills = list(SHARES)
    book = None if given.data is None else given.data / "pretrain" / "cia_factbook.jsonl.xz"
    if book is not None and book.exists():
        searches = services.Countries(book).make
        skills = [(skills[0][0] - SEARCHED, skills[0][1]), *skills[1:], (SEARCHED, searches)]
    made = [
        skill(draw, False)
        for skill in draw.choices([skill for _, skill in skills], [share for share, _ in skills], k=given.count)
    ]
    questions = [skill(draw, True) for _, skill in skills for _ in range(given.questions)]
    prompts: list[dict[str, Any]] = []
    if given.data is not None:
        for read, name in ((tales, "fairytaleqa.jsonl.xz"), (roles, "gpteacher_roleplay.json.xz")):
            if (path := given.data / "sft" / name).exists():
                made += read(path)
        found, prompts = wordstories.requests(given.data / "pretrain" / "tinystories_train.jsonl.xz", given.stories)
        made += [Talk(row["messages"]) for row in found]
    draw.shuffle(made)
    rows = [
        {
            "messages": talk.messages[: _asked(talk)],
            "tools": talk.tools,
            "check": talk.check,
            "group": "needless tools" if talk.check.get("none") else talk.check["skill"],
        }
        for talk in questions
        if talk.check
    ]
    kept = len(prompts) - min(given.questions, len(prompts) // 4)
    prompts, measured = prompts[:kept], prompts[kept:]
    for row in measured:
        asked = draw.choice(wordstories.MEASURED).format(*row["words"])
        messages = [{"role": "user", "content": asked}]
        rows.append({**row, "messages": messages, "tools": [], "check": {"skill": "stories"}, "group": "stories"})
    given.into.mkdir(parents=True, exist_ok=True)
    learned = [{"messages": talk.messages, **({"tools": talk.tools} if talk.tools else {})} for talk in made]
    for name, lines in (("talks", learned), ("prompts", prompts), ("questions", rows)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (given.into / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}.jsonl: {len(lines)}")
    print(dict(Counter(row["group"] for row in rows)))


def _asked(talk: Talk) -> int:
    """Up to the last message of the user."""
    return max(i for i, message in enumerate(talk.messages) if message["role"] == "user") + 1


if __name__ == "__main__":
    main()
