"""A small world of companies that there are not, made of a seed: what is true of them, and the pages that tell it."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from random import Random

__all__ = ["Company", "Page", "Round", "World"]

_FIRST = ("Amber", "Birch", "Cobalt", "Delta", "Ember", "Fjord", "Granite", "Harbor", "Indigo", "Juniper", "Kestrel",
          "Lattice", "Meadow", "Nimbus", "Orchid", "Pinecone", "Quartz", "Ripple", "Saffron", "Tundra")  # fmt: skip
_SECOND = ("Robotics", "Foods", "Energy", "Maps", "Health", "Textiles", "Optics", "Logistics")
_CITIES = ("Lisbon", "Oslo", "Turin", "Ghent", "Porto", "Graz", "Cork", "Malmo", "Basel", "Tartu")
_PEOPLE = (
    "Ines Falk",
    "Omar Reyes",
    "Lena Brandt",
    "Tomas Vale",
    "Aiko Mori",
    "Nadia Cole",
    "Pavel Horn",
    "Ruth Amsel",
)
_LETTERS = "ABCDE"


@dataclass(frozen=True)
class Round:
    """A round of funding: when, how many millions of dollars came in, at what valuation in millions; None: not told."""

    letter: str
    year: int
    amount: float
    valuation: float | None
    ratio: float = field(repr=False)  # of valuation to amount


@dataclass(frozen=True)
class Company:
    """What is true of a company."""

    name: str
    city: str
    founder: str
    founded: int
    employees: int
    revenue: int  # millions of dollars
    rounds: tuple[Round, ...]

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")

    @property
    def known_ratio(self) -> float:
        """The mean ratio of valuation to amount, of the rounds that tell both."""
        ratios = [one.valuation / one.amount for one in self.rounds if one.valuation is not None]
        return sum(ratios) / len(ratios)


@dataclass(frozen=True)
class Page:
    """A page: its path, its title, one line that a search shows, and its body in HTML."""

    path: str
    title: str
    line: str
    body: str

    @property
    def html(self) -> str:
        nav = '<nav><a href="/">Home</a> <a href="/about">About</a> <a href="/privacy">Privacy</a></nav>'
        foot = "<footer>Ledger of Small Companies. All of it is made up.</footer>"
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title>'
        main = f"<main><h1>{html.escape(self.title)}</h1>{self.body}</main>"
        return f"<!doctype html><html><head>{head}</head><body>{nav}{main}{foot}</body></html>"


class World:
    """Companies and their pages, the same for the same seed."""

    def __init__(self, seed: int = 1, count: int = 20) -> None:
        draw = Random(seed)
        self.companies = [self._company(draw, first) for first in draw.sample(_FIRST, count)]
        self.pages = [page for company in self.companies for page in _pages(company)]

    @staticmethod
    def _company(draw: Random, first: str) -> Company:
        founded = draw.randint(2005, 2016)
        year, amount = founded + 1, float(draw.randint(2, 9))
        rounds = []
        for number, letter in enumerate(_LETTERS):
            ratio = round(draw.uniform(6, 11), 1)
            told = number >= 2  # the first two valuations are not told
            rounds.append(Round(letter, year, amount, round(amount * ratio) if told else None, ratio))
            year += draw.randint(1, 2)
            amount = round(amount * draw.uniform(1.8, 2.8))
        return Company(
            f"{first} {draw.choice(_SECOND)}", draw.choice(_CITIES), draw.choice(_PEOPLE), founded,
            draw.randint(20, 900), draw.randint(3, 400), tuple(rounds),
        )  # fmt: skip

    def search(self, query: str) -> list[Page]:
        """Pages that have words of a question, those with most of them first."""
        words = {word for word in query.lower().replace("?", " ").replace("'s", " ").split() if len(word) > 2}
        scored = []
        for page in self.pages:
            title, text = page.title.lower(), f"{page.title} {page.line}".lower()
            score = sum(2 * (word in title) + (word in text) for word in words)
            if score:
                scored.append((score, page))
        scored.sort(key=lambda one: -one[0])
        return [page for _, page in scored]


def _pages(company: Company) -> list[Page]:
    name = company.name
    facts = (
        f"{name} is a company in {company.city}. {company.founder} founded {name} in {company.founded}. "
        f"{name} has {company.employees} employees and a revenue of {company.revenue} million dollars."
    )
    rows = "".join(
        f"<tr><td>Series {one.letter}</td><td>{one.year}</td><td>{one.amount:g}</td>"
        f"<td>{'not disclosed' if one.valuation is None else f'{one.valuation:g}'}</td></tr>"
        for one in company.rounds
    )
    head = "<tr><th>Round</th><th>Year</th><th>Raised (million USD)</th><th>Valuation (million USD)</th></tr>"
    table = f"<p>All rounds of funding of {name} that are known.</p><table>{head}{rows}</table>"
    story = (
        f"<p>{name} has grown since {company.founded}. {company.founder} still leads it.</p>"
        f"<p>The office in {company.city} is open to visitors on Fridays.</p>"
    )
    raised = ", ".join(f"Series {one.letter} {one.year}" for one in company.rounds)
    return [
        Page(f"/company/{company.slug}", f"{name}: facts", facts, f"<p>{facts}</p>{story}"),
        Page(f"/funding/{company.slug}", f"{name}: funding rounds", f"Funding rounds of {name}: {raised}.", table),
        Page(f"/news/{company.slug}", f"{name} in the news", f"News of {name} and its visitors.", story),
    ]
