"""Text of a page that a person would not see: found and marked, since it may be an attack on the model that reads it.

Looks at attributes, inline styles and the simple rules of the page's own style sheets (`.class`, `#id`, `tag`); a
rendered page has been marked by the renderer, which knows (`MARK`). What hides by other means is read as seen. Letters
that have no shape (Unicode tags, which spell ASCII unseen) are spelled out and marked too.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["MARK", "mark_hidden", "spelled"]

MARK = "data-twofile-hidden"
_CLASSES = frozenset(["sr-only", "visually-hidden", "visuallyhidden", "screen-reader-text", "screenreader-only"])
_TAGS = re.compile("[\U000e0000-\U000e007f]+")
_SHAPELESS = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0080-\U000e0fff]"
)
_KEEPS = "\u200c\u200d"  # joiners that Persian, Hindi and pictures are written with
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_SELECTOR = re.compile(r"([a-z][a-z0-9]*|\*)?((?:[.#][\w-]+)*)", re.IGNORECASE)
_NAMED = {"white": "ffffff", "black": "000000", "red": "ff0000", "transparent": "transparent"}

Style = dict[str, str]


def spelled(text: str) -> str:
    """A text in which nothing is unseen: tag letters as [hidden: ...], other shapeless characters left out."""
    if text.isascii():
        return text
    text = _TAGS.sub(lambda found: _of_tags(found[0]), text)
    return _SHAPELESS.sub(lambda found: found[0] if found[0] in _KEEPS else "", text)


def _of_tags(letters: str) -> str:
    said = "".join(chr(ord(c) - 0xE0000) for c in letters if 0xE0020 <= ord(c) < 0xE007F).strip()
    return f" [hidden: {said}] " if len(said) > 6 else ""  # a flag of a region has as many


def mark_hidden(root: Any) -> None:
    """Set MARK on the elements of an lxml tree that are hidden, the outermost of them."""
    rules = _rules(root)
    _walk(root, rules, "ffffff")


def _walk(root: Any, rules: list[tuple[str, frozenset[str], Style]], paper: str) -> None:
    stack = [(root, paper)]
    while stack:
        element, behind = stack.pop()
        if not isinstance(element.tag, str) or element.tag in ("head", "script", "style"):
            continue
        style = _style(element, rules)
        behind = _background(style, element.get("bgcolor")) or behind
        if element.get(MARK) is None and _hides(element, style, behind):
            element.set(MARK, "")
        if element.get(MARK) is None:
            stack.extend((child, behind) for child in element)


def _style(element: Any, rules: list[tuple[str, frozenset[str], Style]]) -> Style:
    found: Style = {}
    if rules:
        names = {f".{name}" for name in element.get("class", "").split()} | {f"#{element.get('id')}"}
        for tag, parts, style in rules:
            if (tag in ("", "*", element.tag)) and parts <= names:
                found |= style
    return found | _declared(element.get("style", ""))


def _rules(root: Any) -> list[tuple[str, frozenset[str], Style]]:
    """The simple rules of the page, the weakest first."""
    found: list[tuple[str, frozenset[str], Style]] = []
    for sheet in root.iter("style"):
        css = re.sub(r"/\*.*?\*/", "", (sheet.text or "")[:200_000], flags=re.DOTALL)
        css = re.sub(r"@[^{};]*(?:;|\{(?:[^{}]*\{[^{}]*\})*[^{}]*\})", "", css)
        for match in _RULE.finditer(css):
            style = {name: value for name, value in _declared(match[2]).items() if name in _MATTERS}
            for selector in match[1].split(",") if style else ():
                simple = _SELECTOR.fullmatch(selector.strip())
                if simple and selector.strip() and len(found) < 2000:
                    parts = frozenset(re.findall(r"[.#][\w-]+", simple[2]))
                    found.append(((simple[1] or "").lower(), parts, style))
    return sorted(found, key=lambda rule: (sum(100 if part[0] == "#" else 10 for part in rule[1]), rule[0] != ""))


def _declared(css: str) -> Style:
    found = {}
    for one in css[:4000].split(";"):
        name, _, value = one.partition(":")
        found[name.strip().lower()] = value.replace("!important", "").strip().lower()
    return found


_MATTERS = frozenset([
    "display", "visibility", "content-visibility", "opacity", "font-size", "text-indent", "position", "left",
    "top", "right", "margin-left", "margin-top", "width", "height", "max-width", "max-height", "overflow",
    "clip", "clip-path", "transform", "color", "background", "background-color",
])  # fmt: skip


def _pixels(value: str | None, default: float) -> float:
    found = re.match(r"(-?\d{0,9}\.?\d{0,9})(px|em|rem|pt|vw|vh|%)?", value or "")
    if found is None or found[1] in ("", "-", ".", "-."):
        return default
    scale = {"em": 16.0, "rem": 16.0, "vw": 10.0, "vh": 8.0, "%": 10.0}.get(found[2] or "px", 1.0)
    return float(found[1]) * scale


def _colour(value: str) -> str:
    """As six digits, "transparent", or "" for what is not known."""
    value = value.strip()
    if value in _NAMED:
        return _NAMED[value]
    if found := re.fullmatch(r"#([0-9a-f]{3,8})", value):
        digits = found[1]
        if len(digits) in (4, 8) and set(digits[-(len(digits) // 4) :]) == {"0"}:
            return "transparent"
        return "".join(c * 2 for c in digits[:3]) if len(digits) < 6 else digits[:6]
    if found := re.fullmatch(r"rgba?\(([^()]{1,60})\)", value):
        parts = [part for part in re.split(r"[,/\s]+", found[1].strip()) if part]
        if len(parts) == 4 and _pixels(parts[3], 1) == 0:
            return "transparent"
        if len(parts) >= 3 and all(part.isdigit() for part in parts[:3]):
            return "".join(f"{min(255, int(part[:4])):02x}" for part in parts[:3])
    return ""


def _background(style: Style, attribute: str | None) -> str:
    said = style.get("background-color") or style.get("background") or (attribute or "").lower()
    found = _colour(said) or _colour(said.partition(" ")[0])
    if found == "transparent":
        return ""
    return found or ("unknown" if said and said not in ("none", "inherit", "initial", "unset") else "")


def _near(one: str, other: str) -> bool:
    """Whether two colours can hardly be told apart."""
    if len(one) != 6 or len(other) != 6:
        return False
    return all(abs(int(one[at : at + 2], 16) - int(other[at : at + 2], 16)) <= 10 for at in (0, 2, 4))


def _hides(element: Any, style: Style, behind: str) -> bool:
    if "hidden" in element.attrib or element.get("aria-hidden", "").lower() == "true":
        return True
    if any(name in _CLASSES for name in element.get("class", "").lower().split()):
        return True
    if not style:
        return False
    get = style.get
    size = _pixels(get("font-size"), 16)
    away = get("position") in ("absolute", "fixed") and min(_pixels(get(s), 0) for s in ("left", "top", "right")) < -400
    small = min(_pixels(get(s), 99) for s in ("width", "height", "max-width", "max-height")) <= 1
    colour = _colour(get("color", ""))
    return (
        get("display") == "none"
        or get("visibility") in ("hidden", "collapse")
        or get("content-visibility") == "hidden"
        or _pixels(get("opacity"), 1) <= 0.05
        or size <= 2
        or away
        or (small and get("overflow", "") in ("hidden", "clip"))
        or min(_pixels(get("text-indent"), 0), _pixels(get("margin-left"), 0), _pixels(get("margin-top"), 0)) < -400
        or re.search(r"rect\(\s*0|rect\(1px", get("clip", "")) is not None
        or re.search(r"inset\((50|100)%|circle\(0", get("clip-path", "")) is not None
        or re.search(r"scale\(0(\.0+)?\)|translate[xy]?\(\s*-\d{4,}", get("transform", "")) is not None
        or colour == "transparent"
        or _near(colour, behind)
    )
