"""The driver `clock`: what time it is, here or elsewhere, and how far off a day is. Nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from twofile.kernel.driver import Context, Part
from twofile.kernel.label import Label

__all__ = ["Clock"]


class Clock:
    """The driver."""

    name = "clock"
    about = "Tells the date and time, in a time zone where one is named, and how many days there are from now to a day."
    pure = True
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "zone": {"type": "string", "description": "Such as Europe/Berlin; without it, the user's own."},
            "until": {"type": "string", "description": "A day as YYYY-MM-DD."},
        },
        "additionalProperties": False,
    }

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label()

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        now = self._now(arguments.get("zone"))
        said = f"{now:%A, %Y-%m-%d %H:%M:%S} {now.tzname()} (UTC{now:%z}), week {now.isocalendar().week}"
        if until := arguments.get("until"):
            try:
                days = (date.fromisoformat(str(until)) - now.date()).days
            except ValueError:
                raise ValueError(f"{until!r} is no day: YYYY-MM-DD is understood") from None
            said += f"; {until} is {f'in {days} days' if days > 0 else f'{-days} days ago' if days < 0 else 'today'}"
        return (said,)

    @staticmethod
    def _now(zone: object) -> datetime:
        if not zone:
            return datetime.now().astimezone()
        try:
            return datetime.now(ZoneInfo(str(zone)))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {str(zone)[:60]!r}: names are as Europe/Berlin, or UTC") from None
