"""The section of a report that says how well a vocabulary fits its texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from twofile.html import tables

__all__ = ["section"]


def section(found: Mapping[str, Any]) -> str:
    """What `twofile.train.pretrain.usage` found, as HTML."""
    parts = []
    for key, item in found.items():
        if isinstance(item, list):
            quoted = [escape(json.dumps(text, ensure_ascii=False)) for text in item]
            parts.append((key, " ".join(f'<code style="white-space:pre-wrap">{text}</code>' for text in quoted) or "–"))
        elif not isinstance(item, Mapping):
            parts.append((key, tables.cell(item)))
    return tables.rows(parts) + tables.show({"sources": found.get("sources", {})})
