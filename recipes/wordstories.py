"""Little stories with given words: conversations to tune on, prompts, and an oracle that knows how good a story is.

    python recipes/wordstories.py --stories DATA/pretrain/tinystories_train.jsonl.xz --into FOLDER [--most 6000]

Writes `talks.jsonl` (a request with three words of a story, in one of many phrasings, and the beginning of that story)
and `prompts.jsonl` (requests alone, of other stories, with `words`); phrasings of the prompts are not among those of
the talks. `gold` is a reward for `twofile reinforce --reward recipes/wordstories.py:gold`, and the truth that reward
models of it are measured by. The standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

WORD = re.compile(r"[a-z]+")
SENTENCE = re.compile(r".*?[.!?][\"']?(?=\s|$)", re.DOTALL)
LONGEST = 60  # words of a story
COMMON = 400  # of the words of all stories, at most half: too frequent to ask for
RARE = 30  # stories that have a word: fewer, and a small model cannot know it

LEARNED = (
    "Write a little story with the words {0}, {1} and {2}.",
    "Tell me a short story that has {0}, {1} and {2} in it.",
    "Please write a story. Use the words {0}, {1} and {2}.",
    "I would like a story about {0}, {1} and {2}.",
    "Can you make up a story with {0}, {1} and {2}?",
    "Use {0}, {1} and {2} in a very short story.",
)
HELD_OUT = (
    "A story, please, with {0}, {1} and {2}!",
    "My words are {0}, {1} and {2}. What story do they tell?",
)
MEASURED = (
    "Make a story out of {0}, {1} and {2}, please.",
    "Could I have a short story in which {0}, {1} and {2} occur?",
    "Story time! Words: {0}, {1}, {2}.",
)


def gold(messages: Sequence[Mapping[str, Any]], reply: str, row: Mapping[str, Any]) -> float:
    """From 0 to 5: up to 3 for the words that are there, 1 for whole sentences of a fair length (15 to 60 words), 1 for
    not saying the same again."""
    said = WORD.findall(reply.lower())
    if not said:
        return 0.0
    there = sum(word in said for word in row["words"]) / len(row["words"])
    whole = reply.rstrip().endswith((".", "!", "?", '"')) and 15 <= len(said) <= LONGEST
    threes = Counter(zip(said, said[1:], said[2:], strict=False))
    again = sum(n - 1 for n in threes.values()) / max(1, sum(threes.values()))
    return 3 * there + whole + max(0.0, 1 - 5 * again)


def stories(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"].strip()


def beginning(story: str) -> str:
    """Its first sentences, as long as they are together."""
    kept, words = [], 0
    for sentence in SENTENCE.findall(story):
        words += len(WORD.findall(sentence.lower()))
        if words > LONGEST:
            break
        kept.append(sentence)
    return "".join(kept).strip()


def requests(path: Path, most: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Conversations, and requests alone, from at most so many stories."""
    draw = random.Random(1)
    texts = [text for text, _ in zip(stories(path), range(most), strict=False)]
    count = Counter(word for text in texts for word in set(WORD.findall(text.lower())))
    common = {word for word, _ in count.most_common(min(COMMON, len(count) // 2))}
    good = {word for word, n in count.items() if n >= min(RARE, len(texts) // 100) and len(word) > 2} - common
    talks, prompts = [], []
    for number, text in enumerate(texts):
        story = beginning(text)
        words = sorted(set(WORD.findall(story.lower())) & good)
        if len(words) < 3 or len(WORD.findall(story)) < 15:
            continue
        chosen = draw.sample(words, 3)
        held_out = number % 5 == 0
        asked = draw.choice(HELD_OUT if held_out else LEARNED).format(*chosen)
        messages = [{"role": "user", "content": asked}]
        if held_out:
            prompts.append({"messages": messages, "words": chosen})
        else:
            talks.append({"messages": [*messages, {"role": "assistant", "content": story}], "words": chosen})
    return talks, prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--most", type=int, default=10**9, help="stories that are used")
    given = parser.parse_args()
    talks, prompts = requests(given.stories, given.most)
    given.into.mkdir(parents=True, exist_ok=True)
    for name, rows in (("talks", talks), ("prompts", prompts)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (given.into / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{name}.jsonl: {len(rows)}")


if __name__ == "__main__":
    main()
