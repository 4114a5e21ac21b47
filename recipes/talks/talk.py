"""What a skill makes, and the words that several skills choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any


@dataclass(frozen=True)
class Talk:
    """A conversation; where it is a question, `check` has what a right answer must have (see `conversations.score`)."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)


def exchange(*texts: str, system: str = "") -> list[dict[str, Any]]:
    """Messages of a user and the assistant by turns."""
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def a(word: str) -> str:
    """With its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def part(learned: Sequence[str], held_out: Sequence[str], which: bool) -> Sequence[str]:
    return held_out if which else learned


def name(draw: Random, held_out: bool = False) -> str:
    return draw.choice(part(NAMES, OTHER_NAMES, held_out))


NAMES = (
    "Anna", "Ben", "Clara", "Dan", "Ella", "Finn", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mia", "Noah", "Olga",
    "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Zoe", "Amir", "Bella", "Carlos", "Dora", "Emil", "Fatima", "George",
    "Hana", "Ivan", "Julia", "Karim", "Lucy", "Max", "Nina", "Oscar", "Priya", "Robin", "Sara", "Tom", "Uma", "Vera", "Walter",
    "Lily", "Tim", "Sue", "Mary", "Peter", "Jane", "Alice", "Bob", "Emma", "David", "Laura", "Simon", "Helen", "Mark",
)  # fmt: skip
OTHER_NAMES = ("Greta", "Hugo", "Marta", "Felix", "Irene", "Jonas", "Sofia", "Theo")
THINGS = (
    "apples", "pears", "books", "coins", "stamps", "marbles", "cards", "flowers", "eggs", "stickers", "balloons", "pencils",
    "shells", "stones", "cookies", "cakes", "toys", "oranges", "buttons", "candles", "cups", "plates", "chairs", "boxes",
    "hats", "socks", "fish", "birds", "sheep", "trees", "nuts", "plums", "letters", "photos", "keys", "lemons",
)  # fmt: skip
OTHER_THINGS = ("beads", "peaches", "carrots", "crayons", "lamps", "tickets")
ANIMALS = ("dog", "cat", "rabbit", "bird", "horse", "hamster", "goat", "duck", "mouse", "parrot", "pony", "turtle")
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey", "orange", "pink", "purple", "golden")
FOODS = (
    "apple pie", "bread", "soup", "cheese", "rice", "fish", "ice cream", "honey", "salad", "chocolate", "pizza", "porridge",
    "cake", "plum jam", "tomato soup", "nut bread", "pumpkin pie", "fried rice", "fruit salad", "cherry cake",
)  # fmt: skip
HOBBIES = (
    "painting", "swimming", "singing", "reading", "dancing", "fishing", "cooking", "running", "gardening", "drawing",
    "climbing", "chess", "football", "sewing", "sailing", "cycling", "photography", "skating", "baking", "hiking",
)  # fmt: skip
PLACES = (
    "a small village", "a big city", "a quiet town", "a house by the sea", "a farmhouse", "a cottage in the forest",
    "a house near the river", "a flat above a bakery", "a castle in the hills", "a house at the edge of the woods",
    "an old mill", "a house next to the school", "a cabin in the mountains", "a houseboat", "a tall tower",
)  # fmt: skip
JOBS = (
    "baker", "teacher", "farmer", "nurse", "pilot", "sailor", "doctor", "tailor", "gardener", "carpenter", "painter",
    "fisherman", "cook", "postman", "librarian", "blacksmith", "shepherd", "musician", "driver", "builder",
)  # fmt: skip
