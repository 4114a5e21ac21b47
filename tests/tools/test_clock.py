from __future__ import annotations

import re
import time
from datetime import date, timedelta

import pytest

from twofile.kernel.driver import Context
from twofile.tools.clock import Clock


def said(**arguments: str) -> str:
    return "".join(map(str, Clock().run(arguments, Context(1, time.monotonic() + 5))))


def test_now() -> None:
    assert re.fullmatch(r"[A-Z][a-z]+day, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ \(UTC[+-]\d{4}\), week \d+", said())
    assert "UTC (UTC+0000)" in said(zone="UTC")
    assert "JST (UTC+0900)" in said(zone="Asia/Tokyo")


def test_days() -> None:
    today = date.today()
    assert said(until=str(today)).endswith("is today")
    assert said(until=str(today + timedelta(3))).endswith("in 3 days")
    assert said(until=str(today - timedelta(40))).endswith("40 days ago")


@pytest.mark.parametrize("zone", ["Nowhere/At_all", "../../etc/passwd", "/etc/localtime", "x" * 300])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        said(zone=zone)
    with pytest.raises(ValueError, match="is no day"):
        said(until="tomorrow")
