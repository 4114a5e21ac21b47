"""What the tests of the browser share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.tools.browser.web import Door, Site


@pytest.fixture
def door() -> Iterator[Door]:
    """A door on loopback that nobody may open."""
    door = Door()
    yield door
    door.close()


@pytest.fixture
def site() -> Iterator[Callable[[dict[str, Any]], Site]]:
    """Makes sites."""
    made: list[Site] = []

    def make(routes: dict[str, Any]) -> Site:
        made.append(Site(routes))
        return made[-1]

    yield make
    for one in made:
        one.close()
