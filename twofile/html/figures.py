"""Numbers and times as people read them, on the terminal and on a page."""

from __future__ import annotations

__all__ = ["percent", "quantity", "short_span", "span"]

_PREFIXES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(value: float, unit: str = "", *, digits: int = 3) -> str:
    """1234567 as "1.23 M", with a unit "1.23 MFLOP/s"; below 10,000 as it is."""
    size = abs(value)
    for factor, prefix in _PREFIXES:
        if size >= max(factor, 1e4) * (1 - 0.5 * 10.0**-digits):
            return f"{value / factor:.{digits}g} {prefix}{unit}"
    number = f"{value:,.0f}" if size >= 1000 else f"{value:.{digits}g}"
    return f"{number} {unit}" if unit else number


def percent(share: float) -> str:
    """A share: "54%", and "0.8%" where whole ones would say little."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def span(seconds: float) -> str:
    """A time: "48 s", "12 min 30 s", "3 h 05 min", "2 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60:02} s" if whole % 60 and whole < 1200 else "")
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def short_span(seconds: float) -> str:
    """A time in one unit, for an axis: "45 s", "12 min", "1.5 h", "2 d"."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit or (seconds >= unit and seconds % unit == 0 and unit < 86400):
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s" if seconds else "0"
