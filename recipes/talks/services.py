"""What the other two tools are for: python for words and lists, search for facts about countries. And questions that need
no tool, with tools at hand."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from random import Random
from typing import Any

from talks import chat
from talks.talk import ANIMALS, COLOURS, FOODS, HOBBIES, THINGS, Talk, exchange, part
from talks.tools import PYTHON, SEARCH, call, some

WORDS = (*ANIMALS, *COLOURS, *HOBBIES, *THINGS, *(food for food in FOODS if " " not in food), "banana", "river", "window", "garden",
         "mountain", "butterfly", "strawberry", "kitchen", "summer", "winter", "morning", "letter", "silver", "planet")  # fmt: skip
OTHER_WORDS = ("blueberry", "elephant", "notebook", "thunder", "pumpkin", "umbrella", "feather", "lantern")

# how it is asked, what is run, how the answer is said; w a word, l a letter of it, s a list of words, i a list of numbers
JOBS = (
    (("How many letters does the word {w} have?", "How long is the word {w}?", "Count the letters of {w}.", "{w}: how many letters is that?",
      "Tell me how many letters {w} has.", "What is the length of {w}?"),
     ("How many letters are there in {w}?",), "print(len({w!r}))", "The word {w} has {r} letters."),
    (("Spell {w} backwards.", "What is {w} backwards?", "Turn the word {w} around.", "Say {w} from its end to its beginning.",
      "Reverse the word {w}.", "How does {w} look the other way round?"),
     ("Write {w} in reverse.",), "print({w!r}[::-1])", "Backwards, {w} is {r}."),
    (("How often is the letter {l} in {w}?", "How many times does {w} have the letter {l}?", "Count the letter {l} in {w}.",
      "How many times is there an {l} in {w}?", "In the word {w}, how many letters are {l}?", "Tell me how many {l} {w} contains."),
     ("How many {l} are in the word {w}?",), "print({w!r}.count({l!r}))", "The letter {l} occurs in {w} this often: {r}."),
    (("Sort these words: {S}.", "Put these words in order: {S}.", "Bring {S} into alphabetical order.",
      "Arrange the words {S} as in a dictionary.", "Which order do {S} have in the alphabet?"),
     ("Order these words by the alphabet: {S}.",), "print(', '.join(sorted({s})))", "In order: {r}."),
    (("What is the largest of {I}?", "Which of these numbers is the biggest: {I}?", "Find the greatest number: {I}.",
      "Of {I}, which number is the largest?", "Give me the maximum of {I}."),
     ("Tell me the largest number of {I}.",), "print(max({i}))", "The largest is {r}."),
    (("Which of these numbers is the smallest: {I}?", "What is the smallest of {I}?", "Find the least number: {I}.",
      "Of {I}, which number is the smallest?", "Give me the minimum of {I}."),
     ("Tell me the smallest number of {I}.",), "print(min({i}))", "The smallest is {r}."),
    (("Sort these numbers: {I}.", "Put the numbers {I} in order.",
      "Arrange {I} from small to large.", "Which order do the numbers {I} have?"),
     ("Order these numbers: {I}.",), "print(sorted({i}))", "In order: {r}."),
    (("Write {w} in capital letters.", "Make {w} all capitals.", "How is {w} written in big letters?", "{w} in capitals, please."),
     ("Put {w} into capital letters.",), "print({w!r}.upper())", "{r}."),
    (("What is the average of {I}?", "Work out the average of {I}.", "Tell me the mean of {I}.", "{I}: what is their average?"),
     ("Find the average of {I}.",), "print(round(sum({i}) / {n}, 2))", "The average is {r}."),
)  # fmt: skip


def python(draw: Random, held_out: bool) -> Talk:
    learned, others, code, done = draw.choice(JOBS)
    pool = part(WORDS, OTHER_WORDS, held_out)
    w = draw.choice(pool)
    numbers = [draw.randint(1, 200) for _ in range(draw.randint(3, 5))]
    s = draw.sample(pool, draw.randint(3, 4))
    values: dict[str, Any] = {
        "w": w, "l": draw.choice(w), "s": s, "S": ", ".join(s), "i": numbers, "I": ", ".join(map(str, numbers)),
        "n": len(numbers),
    }  # fmt: skip
    program = code.format(**values)
    result = _printed(code, values)
    reply = {"role": "assistant", "content": done.format(r=result, **values)}
    asked = draw.choice(part(learned, others, held_out)).format(**values)
    messages = [*exchange(asked), call(PYTHON, program), {"role": "tool", "content": result}, reply]
    return Talk(messages, some(draw, PYTHON), {"skill": "python", "text": result, "code": program})


def _printed(code: str, v: dict[str, Any]) -> str:
    """What the program prints."""
    numbers: list[int] = v["i"]
    found: dict[str, Any] = {
        "len": len(v["w"]), "[::-1]": v["w"][::-1], "count": v["w"].count(v["l"]), "', '": ", ".join(sorted(v["s"])),
        "max": max(numbers), "min": min(numbers), "sorted({i": sorted(numbers), "upper": v["w"].upper(),
        "sum": round(sum(numbers) / len(numbers), 2),
    }  # fmt: skip
    return str(next(value for mark, value in found.items() if mark in code))


# of a fact: its key in the Factbook, how it is asked, what is looked up, how the answer is said
FACTS = (
    ("Capital, name", ("What is the capital of {c}?", "Which city is the capital of {c}?", "Tell me the capital of {c}."),
     ("Do you know the capital of {c}?", "I need the name of the capital of {c}."), "capital of {c}", "The capital of {c} is {v}."),
    ("Population, total", ("How many people live in {c}?", "What is the population of {c}?", "Tell me how many people {c} has."),
     ("How large is the population of {c}?",), "population of {c}", "About {v} people live in {c}."),
    ("Area, total", ("How big is {c}?", "What is the area of {c}?", "How large is the country {c}?"),
     ("Tell me the area of {c}.",), "area of {c}", "The area of {c} is {v}."),
    ("Elevation, highest point", ("What is the highest point of {c}?", "What is the highest mountain of {c}?"),
     ("Which place in {c} is the highest?",), "highest point of {c}", "The highest point of {c} is {v}."),
    ("Location", ("Where is {c}?", "Where does {c} lie?", "In which part of the world is {c}?"),
     ("Where can I find {c}?",), "location of {c}", "{c} lies here: {v}."),
    ("Climate", ("What is the climate of {c}?", "What is the weather like in {c}?"),
     ("How is the climate in {c}?",), "climate of {c}", "The climate of {c}: {v}."),
)  # fmt: skip
OTHER_COUNTRIES = 10  # every so many of them


class Countries:
    """What the World Factbook says of countries. A search finds one entry of it."""

    def __init__(self, path: Path) -> None:
        self.facts: dict[str, dict[str, str]] = {}
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                held: dict[str, str] = {}
                for key, said in row["facts"]:
                    held.setdefault(", ".join(key.strip().split(" > ")[1:]), _short(str(said)))
                found = {key: held[key] for key, *_ in FACTS if held.get(key)}
                plain = row["country"] and "(" not in row["country"] and row["country"] not in ("none", "The world")
                if plain and "Capital, name" in found and len(found) > 2:
                    self.facts[row["country"]] = found
        self.names = sorted(self.facts)

    def make(self, draw: Random, held_out: bool) -> Talk:
        which = part(
            [c for i, c in enumerate(self.names) if i % OTHER_COUNTRIES],
            [c for i, c in enumerate(self.names) if not i % OTHER_COUNTRIES],
            held_out,
        )
        country = draw.choice(which)
        key, learned, others, query, done = draw.choice([fact for fact in FACTS if fact[0] in self.facts[country]])
        said = self.facts[country][key]
        asked = draw.choice(part(learned, others, held_out)).format(c=country)
        reply = {"role": "assistant", "content": done.format(c=country, v=said)}
        result = {"role": "tool", "content": f"{country}. {key}: {said}"}
        messages = [*exchange(asked), call(SEARCH, query.format(c=country)), result, reply]
        check = {"skill": "search", "text": said, "result": result["content"], "words": [country]}
        return Talk(messages, some(draw, SEARCH), check)


def _short(text: str) -> str:
    """The first statement of an entry."""
    for mark in ("(", ";", "note", " - "):
        text = text.partition(mark)[0]
    short = text.strip().rstrip(".,:")
    return short if len(short) <= 80 else ""


def needless(draw: Random, held_out: bool) -> Talk:
    """A talk that needs none of the tools it has."""
    talk = draw.choice((chat.make, chat.about_itself, chat.unknown))(draw, held_out)
    return Talk(talk.messages, some(draw), {**talk.check, "none": True})
