"""Plots and drawings: what is in the picture, what is said of it, and what cannot be drawn."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import httpx2
import pytest

from twofile.errors import ToolError
from twofile.kernel.driver import Context, Drivers, Outcome, run_driver
from twofile.tools.draw import Draw
from twofile.tools.plot import Plot

pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def ran(driver: Any, **arguments: Any) -> Outcome:
    return run_driver(driver, arguments, Context(1, time.monotonic() + 30))


def opened(outcome: Outcome) -> Any:
    assert not outcome.error, outcome.text
    return pillow.open(io.BytesIO(outcome.images[0]["data"])).convert("RGB")


def test_drivers_are_taken() -> None:
    Drivers([Plot(), Draw()])


def test_a_plot_says_what_it_shows() -> None:
    series = [{"label": "value", "x": [1, 2, 3, 4], "y": [10, 30, 20, 40]}]
    found = ran(Plot(), series=series, title="Growth of $1", trend=True, until=6, x="round", y="million")
    assert found.text == (
        "[image: a plot “Growth of $1”: 4 points, value: from 10 at 1 to 40 at 4, lowest 10 at 1, highest 40 at 4; "
        "trend of value: y = 8 * x + 5, 53 at 6]"
    )
    picture = opened(found)
    assert picture.size == (800, 500)
    assert len(picture.getcolors(1 << 20)) > 20


@pytest.mark.parametrize("kind", ["line", "scatter", "bar"])
def test_kinds_and_names(kind: str) -> None:
    series = [{"x": ["Mon", "Tue"], "y": [1, 2]}, {"x": ["Mon", "Tue"], "y": [2, 1], "label": "b"}]
    found = ran(Plot(), kind=kind, series=series, trend=True)
    assert "2 points, from 1 at Mon to 2 at Tue" in found.text
    opened(found)


@pytest.mark.parametrize(
    ("series", "why"),
    [
        ([], "nothing to draw"),
        ([{"y": []}], "one at least"),
        ([{"x": [1], "y": [1, 2]}], "as many of both"),
        ([{"y": [float("nan")]}], "no number"),
        ([{"y": [1] * 6000}], "more than 5000"),
        ([{"x": [2, 2], "y": [1, 3]}], "two different x"),
    ],
)
def test_what_cannot_be_plotted(series: Any, why: str) -> None:
    found = ran(Plot(), series=series, trend=True)
    assert found.error
    assert why in found.text


def test_shapes_are_where_they_should_be() -> None:
    shapes = [
        {"shape": "rectangle", "points": [[10, 10], [50, 50]], "fill": "red"},
        {"shape": "ellipse", "points": [[60, 60], [90, 90]], "fill": "#0000ff"},
        {"shape": "line", "points": [[0, 99], [99, 99]], "outline": "green", "width": 3},
        {"shape": "polygon", "points": [[60, 10], [90, 10], [75, 40]], "fill": "yellow"},
        {"shape": "text", "points": [[10, 70]], "text": "hi", "fill": "black", "size": 14},
    ]
    found = ran(Draw(), width=100, height=100, shapes=shapes)
    assert "a drawing, 100 by 100: 1 red rectangle, 1 #0000ff ellipse, 1 line, 1 yellow polygon" in found.text
    picture = opened(found)
    places = {(30, 30): (255, 0, 0), (75, 75): (0, 0, 255), (75, 20): (255, 255, 0), (2, 2): (255, 255, 255)}
    assert {place: picture.getpixel(place) for place in places} == places
    assert any(picture.getpixel((x, y)) == (0, 0, 0) for x in range(8, 30) for y in range(68, 90))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "nothing to draw"),
        ({"width": 10**6, "shapes": [{"shape": "line", "points": [[0, 0], [1, 1]]}]}, "at most 2048"),
        ({"shapes": [{"shape": "ellipse", "points": [[0, 0]]}]}, "shape 1 cannot be drawn"),
        ({"shapes": [{"shape": "line", "points": [[0, 0], [1e300, 1]]}]}, "too far away"),
        ({"shapes": [{"shape": "line", "points": [[0, 0], [1, 1]], "outline": "nocolour"}]}, "is no colour"),
        ({"description": "a cat"}, "give shapes"),
    ],
)
def test_what_cannot_be_drawn(asked: Any, why: str) -> None:
    found = ran(Draw(), **asked)
    assert found.error
    assert why in found.text


def served(answer: httpx2.Response) -> Draw:
    def handle(request: httpx2.Request) -> httpx2.Response:
        assert json.loads(request.content)["prompt"] == "a cat"
        assert request.headers["authorization"] == "Bearer key"
        return answer

    return Draw("http://pictures.example:7860/", "key", httpx2.Client(transport=httpx2.MockTransport(handle)))


def test_a_description_goes_to_the_user_s_server() -> None:
    file = io.BytesIO()
    pillow.new("RGB", (8, 8), "red").save(file, "JPEG")
    encoded = base64.b64encode(file.getvalue()).decode()
    draw = served(httpx2.Response(200, json={"data": [{"b64_json": encoded}]}))
    assert draw.needs({"description": "a cat"}) == ("net:pictures.example",)
    assert draw.needs({"shapes": []}) == ()
    found = ran(draw, description="a cat")
    assert found.text == "[image: made by pictures.example of: a cat]"
    assert opened(found).size == (8, 8)


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(500, text="busy"),
        httpx2.Response(200, text="no json"),
        httpx2.Response(200, json={"data": []}),
        httpx2.Response(200, json={"data": [{"b64_json": "AAAA"}]}),
        httpx2.Response(200, content=b"x" * (1 << 25)),
    ],
)
def test_what_a_server_may_say(answer: httpx2.Response) -> None:
    found = ran(served(answer), description="a cat")
    assert found.error
    assert "pictures.example" in found.text or "no picture" in found.text


def test_an_address_that_is_none() -> None:
    with pytest.raises(ToolError, match="no address"):
        Draw("file:///etc/passwd")
