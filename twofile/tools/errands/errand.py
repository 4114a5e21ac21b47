"""Fifty errands of one to four steps, each with what a right answer has, and the plan of who knows how to do it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from twofile.tools.errands.script import Plan
from twofile.tools.errands.world import Company, World

__all__ = ["Errand", "errands", "invest"]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Errand:
    """`steps`: calls that it takes; `tools`: those that are offered; `wanted`: a number, or words, that a right answer
    has; `plan`: how it is done, given the address of the site."""

    asked: str
    steps: int
    tools: tuple[str, ...]
    wanted: float | str
    plan: Callable[[], Plan]
    picture: bool = False

    def right(self, said: str, pictures: int = 0) -> bool:
        """Whether an answer is right: of numbers one must be within half a percent."""
        if self.picture and not pictures:
            return False
        if isinstance(self.wanted, str):
            return re.search(rf"(?<!\w){re.escape(self.wanted)}(?!\w)", said, re.IGNORECASE) is not None
        found = [float(one.replace(",", "")) for one in _NUMBER.findall(said)]
        return any(abs(one - self.wanted) <= max(1e-6, 0.005 * abs(self.wanted)) for one in found)


def errands(world: World, address: str, seed: int = 1) -> list[Errand]:
    """All of them, the same for the same seed: 18 of one step, 14 of two, 10 of three, 8 of four."""
    draw = Random(seed)
    companies = draw.sample(world.companies, len(world.companies))
    made = [_sum(draw) for _ in range(6)] + [_word(draw) for _ in range(6)]
    made += [_fact(draw, companies[i]) for i in range(6)]
    made += [_fact_and_sum(draw, companies[i]) for i in range(6, 13)]
    made += [_read(address, draw, companies[i]) for i in range(7)]
    made += [_two_facts(companies[i], companies[i + 1]) for i in range(10, 15)]
    made += [_read_and_sum(address, companies[i]) for i in range(5)]
    made += [invest(address, companies[i]) for i in range(8)]
    return made


def _sum(draw: Random) -> Errand:
    a, b, c = draw.randint(20, 999), draw.randint(20, 999), draw.randint(2, 12)
    asked, expression, wanted = draw.choice((
        (f"What is {a} + {b}?", f"{a} + {b}", a + b),
        (f"What is {a} times {c}?", f"{a} * {c}", a * c),
        (f"A box holds {a} nuts. How many nuts are in {c} boxes?", f"{a} * {c}", a * c),
        (f"Anna had {a + b} stamps and sold {b}. How many are left?", f"{a + b} - {b}", a),
    ))  # fmt: skip

    def plan() -> Plan:
        found = yield "calculator", {"expression": expression}
        return f"That is {found}."

    return Errand(asked, 1, ("calculator",), float(wanted), plan)


def _word(draw: Random) -> Errand:
    word = draw.choice(("butterfly", "mountain", "strawberry", "lantern", "umbrella", "notebook", "elephant", "planet"))
    numbers = [draw.randint(1, 200) for _ in range(4)]
    listed = ", ".join(map(str, numbers))
    asked, code, wanted = draw.choice((
        (f"How many letters does the word {word} have?", f"print(len({word!r}))", float(len(word))),
        (f"What is {word} backwards?", f"print({word!r}[::-1])", word[::-1]),
        (f"What is the largest of {listed}?", f"print(max([{listed}]))", float(max(numbers))),
        (f"Write {word} in capital letters.", f"print({word!r}.upper())", word.upper()),
    ))  # fmt: skip

    def plan() -> Plan:
        found = yield "python", {"code": code}
        return f"It is {found.strip()}."

    return Errand(asked, 1, ("python",), wanted, plan)


def _of(company: Company, draw: Random) -> tuple[str, str, float | str]:
    """Something that is true of a company: how it is asked, how it is looked up, what it is."""
    return draw.choice((
        (f"Which city is {company.name} in?", f"{company.name} city", company.city),
        (f"Who founded {company.name}?", f"{company.name} founder", company.founder),
        (f"How many employees does {company.name} have?", f"{company.name} employees", float(company.employees)),
    ))  # fmt: skip


def _told(text: str, company: Company, pattern: str) -> str:
    """What a search tells of a company. ValueError where it does not."""
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"nothing is said of {company.name}")
    return found[1]


def _employees(text: str, company: Company) -> int:
    return int(_told(text, company, rf"{company.name} has (\d+) employees"))


def _fact(draw: Random, company: Company) -> Errand:
    asked, query, wanted = _of(company, draw)

    def plan() -> Plan:
        found = yield "search", {"query": query}
        if isinstance(wanted, float):
            return f"{company.name} has {_employees(found, company)} employees."
        pattern = rf"{company.name} is a company in (\w+)" if "city" in asked else rf"(\w+ \w+) founded {company.name}"
        return f"{_told(found, company, pattern)}, as the page of {company.name} says."

    return Errand(asked, 1, ("search",), wanted, plan)


def _fact_and_sum(draw: Random, company: Company) -> Errand:
    factor = draw.randint(2, 9)
    asked = f"How many employees would {company.name} have if it had {factor} times as many as now?"

    def plan() -> Plan:
        found = yield "search", {"query": f"{company.name} employees"}
        result = yield "calculator", {"expression": f"{_employees(found, company)} * {factor}"}
        return f"It would have {result} employees."

    return Errand(asked, 2, ("search", "calculator"), float(company.employees * factor), plan)


def _two_facts(one: Company, other: Company) -> Errand:
    asked = f"How many employees do {one.name} and {other.name} have together?"

    def plan() -> Plan:
        first = yield "search", {"query": f"{one.name} employees"}
        second = yield "search", {"query": f"{other.name} employees"}
        summed = f"{_employees(first, one)} + {_employees(second, other)}"
        result = yield "calculator", {"expression": summed}
        return f"Together they have {result} employees."

    return Errand(asked, 3, ("search", "calculator"), float(one.employees + other.employees), plan)


def _funding(address: str, found: str, company: Company) -> str:
    """The address of the page of rounds, as the search gives it."""
    return _told(found, company, rf"\(({re.escape(address)}/funding/[a-z-]+)\)")


def _rounds(page: str) -> list[tuple[str, int, float, float | None]]:
    """The rows of the table of a page of rounds."""
    row = re.compile(r"\|\s*Series ([A-Z])\s*\|\s*(\d{4})\s*\|\s*([\d.]+)\s*\|\s*([\d.]+|not disclosed)\s*\|")
    return [
        (letter, int(year), float(amount), None if value == "not disclosed" else float(value))
        for letter, year, amount, value in row.findall(page)
    ]


def _read(address: str, draw: Random, company: Company) -> Errand:
    one = draw.choice(company.rounds)
    asked = f"How many million dollars did {company.name} raise in its Series {one.letter}?"

    def plan() -> Plan:
        found = yield "search", {"query": f"{company.name} funding rounds"}
        page = yield "browser", {"url": _funding(address, found, company)}
        amount = next(amount for letter, _, amount, _ in _rounds(page) if letter == one.letter)
        return f"{company.name} raised {amount:g} million dollars."

    return Errand(asked, 2, ("search", "browser"), one.amount, plan)


def _read_and_sum(address: str, company: Company) -> Errand:
    asked = f"How many million dollars has {company.name} raised in all its rounds together?"

    def plan() -> Plan:
        found = yield "search", {"query": f"{company.name} funding rounds"}
        page = yield "browser", {"url": _funding(address, found, company)}
        total = yield "calculator", {"expression": " + ".join(f"{amount:g}" for _, _, amount, _ in _rounds(page))}
        return f"{company.name} has raised {total} million dollars in all."

    wanted = sum(one.amount for one in company.rounds)
    return Errand(asked, 3, ("search", "browser", "calculator"), wanted, plan)


_PROGRAM = """
import numpy as np
import matplotlib.pyplot as plt
years, values, until = {years}, {values}, {until}
slope, start = np.polyfit(years, values, 1)
ahead = np.arange(min(years), until + 1)
plt.plot(years, values, "o", label="valuation")
plt.plot(ahead, slope * ahead + start, "--", label="trend")
plt.title({title!r})
plt.xlabel("year")
plt.ylabel("million USD")
plt.legend()
print(round(slope * until + start))
"""


def invest(address: str, company: Company) -> Errand:
    """The whole of it: search, read, work out what is missing, plot with a trend, answer with sources."""
    until = company.rounds[-1].year + 3
    asked = (
        f"Collect the funding rounds of {company.name} in a table. Work out the valuations that are missing from the "
        f"ratio of valuation to amount raised in the other rounds. Plot the valuation over the years with a trend up "
        f"to {until}, and say what it would be then."
    )
    values = [one.amount * company.known_ratio if one.valuation is None else one.valuation for one in company.rounds]
    years = [one.year for one in company.rounds]

    def plan() -> Plan:
        found = yield "search", {"query": f"{company.name} funding rounds"}
        source = _funding(address, found, company)
        rounds = _rounds((yield "browser", {"url": source}))
        known = [(amount, value) for _, _, amount, value in rounds if value is not None]
        mean = f"({' + '.join(f'{value:g} / {amount:g}' for amount, value in known)}) / {len(known)}"
        missing = [amount for _, _, amount, value in rounds if value is None]
        worked_out = []
        for amount in missing:
            said = yield "calculator", {"expression": f"round({amount:g} * {mean}, 1)"}
            worked_out.append(float(said.split()[0]))
        left = iter(worked_out)
        whole = [
            (letter, year, amount, value, next(left) if value is None else value)
            for letter, year, amount, value in rounds
        ]
        program = _PROGRAM.format(
            years=[one[1] for one in whole], values=[one[4] for one in whole], until=until,
            title=f"Valuation of {company.name}",
        )  # fmt: skip
        forecast = (yield "python", {"code": program}).split()[0]
        lines = ["| round | year | raised | valuation |", "|---|---|---|---|"]
        lines += [
            f"| {letter} | {year} | {amount:g} | {value:g}{'' if told is not None else ' (worked out)'} |"
            for letter, year, amount, told, value in whole
        ]
        lines += [
            "",
            f"Millions of dollars. By the trend the valuation in {until} would be {forecast} million dollars.",
            f"Source: {source}",
        ]
        return "\n".join(lines)

    slope, start = map(float, np.polyfit(years, values, 1))
    tools = ("search", "browser", "calculator", "python")
    return Errand(asked, 4, tools, slope * until + start, plan, picture=True)
