"""Errands come out right when they are done by their plans, and only then; each step is in the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from twofile.cli.main import cli
from twofile.engine.engine import Engine
from twofile.errors import ToolError
from twofile.tools.errands.errand import errands, invest
from twofile.tools.errands.run import Office
from twofile.tools.errands.site import Site
from twofile.tools.errands.world import World
from twofile.tools.sandbox.interpreter import which

for name in ("matplotlib", "trafilatura"):
    pytest.importorskip(name, reason=f"{name} is not installed")

BUNDLED = Path(__file__).resolve().parents[3] / "twofile" / "models" / "assistant.gguf"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    try:
        which()
    except ToolError as error:
        pytest.skip(str(error))
    log = tmp_path_factory.mktemp("errands") / "errands.db"
    with Office.open(log, str(BUNDLED), lambda name, _: Engine(name)) as opened:
        yield opened


def test_the_whole_of_it(office: Office) -> None:
    """Search, read, work out, plot, answer with the source: what the talk shows."""
    company = World().companies[3]
    done = office.run(invest(office.site.address, company), scripted=True)
    assert done.right
    assert done.calls == ("search", "browser", "calculator", "calculator", "python")
    assert f"Source: {office.site.address}/funding/{company.slug}" in done.answer
    assert done.answer.count("(worked out)") == 2
    for one in company.rounds[:2]:
        missing = round(one.amount * company.known_ratio, 1)
        assert f"| {one.letter} | {one.year} | {one.amount:g} | {missing:g} (worked out) |" in done.answer
    (picture,) = done.pictures
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = CliRunner().invoke(cli, ["strace", str(done.process), "--log", str(office.kernel.log.path)], obj={})
    shown = [re.match(r"\S+ (\w+)\(", line) for line in said.output.splitlines()]
    assert tuple(one[1] for one in shown if one) == done.calls


def test_one_of_each_kind_by_its_plan(office: Office) -> None:
    made = errands(World(), office.site.address)
    assert [sum(one.steps == steps for one in made) for steps in (1, 2, 3, 4)] == [18, 14, 10, 8]
    for one in (made[0], made[7], made[13], made[20], made[25], made[32], made[40]):
        done = office.run(one, scripted=True)
        assert done.right, (one.asked, done)
        assert set(done.calls) <= set(one.tools)


def test_a_wrong_answer_is_wrong(office: Office) -> None:
    made = errands(World(), office.site.address)
    for one in made:
        assert not one.right("I do not know.", 1)
        other = "Graz" if isinstance(one.wanted, str) and one.wanted != "Graz" else "123456789"
        assert not one.right(other, 1)
    whole = made[-1]
    assert isinstance(whole.wanted, float)
    assert whole.right(f"It is {whole.wanted:.0f}.", 1)
    assert not whole.right(f"It is {whole.wanted:.0f}.", 0)  # without its picture


def test_the_model_is_asked_as_the_plan_is(office: Office) -> None:
    """By the bundled model: whatever comes of it, it is a process with its calls in the log."""
    made = errands(World(), office.site.address)
    done = office.run(made[0], scripted=False)
    events = office.kernel.log.events(done.process)
    assert [event.kind for event in events][:2] == ["begin", "user"]
    assert len([event for event in events if event.kind == "result"]) == len(done.calls)
    assert done.right == (bool(done.calls) and made[0].right(done.answer))


def test_the_world_is_the_same_for_the_same_seed() -> None:
    assert World(3).companies == World(3).companies != World(4).companies
    world = World()
    for company in world.companies:
        first = world.search(f"{company.name} funding rounds")[0]
        assert first.path == f"/funding/{company.slug}"
        assert str(company.employees) in world.search(f"{company.name} employees")[0].line


def test_the_site_serves_only_its_pages() -> None:
    import httpx2

    with Site(World()) as site, httpx2.Client(trust_env=False) as client:
        assert client.get(f"{site.address}{World().pages[0].path}").status_code == 200
        assert client.get(f"{site.address}/../../etc/passwd").status_code == 404
        assert client.get(f"{site.address}/search?q=nothing-like-it&format=json").json() == {"results": []}
