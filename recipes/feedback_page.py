"""The curves of `feedback.py` as a page: gold reward, and the reward that was learned from, against KL, by method.

    python recipes/feedback_page.py RUN/points.jsonl [--out RUN/curves.html]

Prints a Markdown table: gold at the same KL for each method (mean and range over seeds, between the points that there
are), and for each the best gold with its KL, which is where over-optimisation begins.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from twofile.html.curves import Curve, Scale, limits, plot
from twofile.html.page import page

LEVELS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)  # nats a reply
ORDER = ("best", "dpo", "ppo", "grpo", "rloo", "gold")


def at_levels(points: Sequence[dict[str, Any]], level: float) -> list[float]:
    """Gold at a KL, of each seed that reached it: between the two points of a seed's path that enclose it first."""
    found = []
    for seed in sorted({point["seed"] for point in points}):
        path = [(0.0, None), *sorted((p["kl"], p["gold"]) for p in points if p["seed"] == seed)]
        known = [(kl, gold) for kl, gold in path if gold is not None]
        if known and known[0][0] <= level <= known[-1][0]:
            found.append(float(np.interp(level, [kl for kl, _ in known], [gold for _, gold in known])))
    return found


def table(points: Sequence[dict[str, Any]], methods: Sequence[str]) -> str:
    lines = ["| method | " + " | ".join(f"{level:g} nats" for level in LEVELS) + " | best gold (at nats) |"]
    lines.append("|---" * (len(LEVELS) + 2) + "|")
    for method in methods:
        held = [point for point in points if point["method"] == method]
        cells = []
        for level in LEVELS:
            found = at_levels(held, level)
            cells.append(f"{fmean(found):.3f} ({min(found):.3f} to {max(found):.3f})" if found else "")
        best = max(held, key=lambda point: point["gold"])
        lines.append(f"| {method} | {' | '.join(cells)} | {best['gold']:.3f} ({best['kl']:.1f}) |")
    return "\n".join(lines)


def chart(points: Sequence[dict[str, Any]], methods: Sequence[str], key: str, title: str, about: str) -> str:
    curves = []
    for colour, method in enumerate(methods):
        held = sorted((p["kl"], p[key]) for p in points if p["method"] == method)
        xs, ys = [kl for kl, _ in held], [value for _, value in held]
        curves.append(Curve(method, xs, ys, colour, shape="points"))
    x = Scale(0.0, 1.02 * max(x for curve in curves for x in curve.xs))
    y = limits(curves)
    assert y is not None
    legend = "".join(f'<li><span class="swatch c{c.colour}"></span>{escape(c.name)}</li>' for c in curves)
    drawn = plot(curves, x, y, kind="nats", label=f"{title} against KL")
    words = f"<figcaption><h3>{title}</h3><p>{about}</p></figcaption>"
    return f'<figure class="large">{words}<ul class="legend">{legend}</ul><div>{drawn}</div></figure>'


def verdict(points: Sequence[dict[str, Any]], level: float = 20.0) -> str:
    """What the curves say of online learning beside DPO at one KL, and whose fault it is where it lies below."""
    at = {
        method: fmean(found)
        for method in ORDER
        if (found := at_levels([point for point in points if point["method"] == method], level))
    }
    online = max((at[method] for method in ("ppo", "grpo", "rloo") if method in at), default=None)
    if online is None or "dpo" not in at:
        return ""
    said = (
        f"At {level:g} nats a reply DPO has {at['dpo']:.2f}, learning online from a reward model {online:.2f} at best. "
    )
    if online >= at["dpo"]:
        return said
    if at.get("gold", 0.0) > at["dpo"]:
        said += (
            f"It is the reward model that lacks, not learning online: GRPO from the oracle itself has {at['gold']:.2f} "
            "there. What the reward model likes rises to the end of each curve, while gold does not; DPO learns "
            "from what the oracle said of pairs, with no reward model between."
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    points = [json.loads(line) for line in given.points.read_text(encoding="utf-8").splitlines()]
    methods = [method for method in ORDER if any(point["method"] == method for point in points)]
    charts = chart(points, methods, "gold", "Gold reward", "what the oracle says, by KL in nats a reply")
    judged = [method for method in methods if method != "gold"]  # which learns from the oracle
    charts += chart(points, judged, "reward", "Learned reward", "what the reward model says of the same replies")
    header = '<h1>Gold reward against KL</h1><p class="soft">each point is a model, or a number of best-of-n</p>'
    header += f"<p>{escape(verdict(points))}</p>"
    out = given.out or given.points.with_name("curves.html")
    out.write_text(page("Gold reward against KL", header, f'<div class="charts">{charts}</div>'), encoding="utf-8")
    print(table(points, methods), verdict(points), sep="\n")
    print(out)


if __name__ == "__main__":
    main()
