"""The frame of the pages: where one can go, who is refused, light and dark, a phone."""

from __future__ import annotations

import http.client

import pytest
from playwright.sync_api import expect

from tests.serve.pages.conftest import Site, Watched, serious
from twofile.serve.pages.frame import PLACES


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_is_accessible(watched: Watched, place: str, dark: bool) -> None:
    page = watched.open(place, dark=dark)
    expect(page.locator("main :is(h1, textarea)").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert serious(page) == []


@pytest.mark.parametrize("place", list(PLACES))
def test_a_phone_shows_all_of_a_page(watched: Watched, place: str) -> None:
    page = watched.open(place, width=360, height=740)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360


def test_the_first_paint_comes_within_a_second(watched: Watched) -> None:
    watched.open("/")  # the files of the package are read from the disk once
    page = watched.open("/")
    paints = page.evaluate("performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)")
    assert paints[0] < 1000


def test_pages_are_reached_by_keys_and_the_theme_is_kept(watched: Watched) -> None:
    page = watched.open("/")
    page.keyboard.press("Alt+4")
    page.wait_for_url("**/library")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("place", [*PLACES, "/live/1/0", "/kept/x", "/assets/pages.css"])
def test_other_names_and_other_pages_are_refused(site: Site, place: str) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        connection.request("GET", place, headers=headers)
        assert connection.getresponse().status == 403
        connection.close()


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}], ids=str
)
def test_a_socket_of_another_page_is_refused(site: Site, headers: dict[str, str]) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    for given, status in ((upgrade | key, 101), (upgrade | key | headers, 403)):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        connection.request("GET", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", headers=given)
        assert connection.getresponse().status == status
        connection.close()


def test_the_policy_forbids_what_a_page_does_not_need(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request("GET", "/")
    policy = connection.getresponse().getheader("Content-Security-Policy") or ""
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";") if " " in rule.strip())
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert rules["img-src"] == rules["connect-src"] == "'self'"
    connection.close()


@pytest.mark.parametrize(
    "place", ["/", "/chat/1", "/export/1.json", "/label/api/next?labeller=x", "/kept/x", "/favicon.ico"]
)
def test_what_another_page_loads_is_refused_and_a_link_is_followed(site: Site, place: str) -> None:
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    frame = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for headers, refused in ((image, True), (frame, True), (link, False)):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        connection.request("GET", place, headers=headers)
        assert (connection.getresponse().status == 403) is refused
        connection.close()
