"""The reading view of a page: what it is about, as markdown, without what surrounds it on every page of the site.

What surrounds (navigation, banners, sidebars, forms, advertisements) goes by tag, role and the usual names of classes.
Where the main text lies within the rest is then the vote of trafilatura: the smallest part of the page that holds what
it found, unless that leaves out much of what else the page says. Hidden text is kept and marked. Nothing is executed,
and what is given back is bounded; how long a hostile page takes is for the caller to bound (`reader`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from twofile.tools.browser.hidden import mark_hidden, spelled
from twofile.tools.browser.markdown import Markdown

__all__ = ["LONGEST", "Reading", "decoded", "read"]

LONGEST = 400_000  # characters of text that are kept
_DROPPED = frozenset([
    "script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "embed", "audio", "video",
    "map", "nav", "select", "textarea", "input", "dialog",
])  # fmt: skip
_ROLES = frozenset([
    "navigation", "search", "banner", "contentinfo", "complementary", "dialog", "alertdialog", "menu",
    "menubar", "toolbar",
])  # fmt: skip
_AROUND = re.compile(
    r"(?:^|[-_\s])(cookies?|consent|gdpr|newsletter|subscribe|subscription|share|sharing|sharebar|social|breadcrumbs?"
    r"|crumbs|related|recommended|recommendations|sidebar|sidenav|promos?|promoted|sponsor(?:ed|s)?|advert(?:s|isement)?"
    r"|ads?|popup|overlay|modal|navbar|nav|navigation|navbox|menu|toc|footer|site-header|masthead|topbar|skip|skiplink"
    r"|pagination|pager|paywall|login|signup|signin|toolbar|outbrain|taboola|noprint|editsection|catlinks|trending"
    r"|most-?read|read-?next|more-?stories|tags|taglist|permalink|headerlink|widgets?|upsell|drawer)(?:$|[-_\s])",
    re.IGNORECASE,
)
_HEADS = frozenset(["h1", "h2", "h3", "h4", "h5", "h6", "dt", "summary"])
_NOTES = re.compile(r"note|tip|warning|caution|callout|admonition|info-?box|important|hint|pull", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_CHARSET = re.compile(rb"(?i)<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]{2,40})")
_MEANT = {"iso-8859-1": "cp1252", "latin-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}
_CODECS = re.compile(
    r"utf-?(8|16|32)([-_]?[lb]e)?|iso[-_]8859[-_]\d+|(windows-|cp)\d+|gb18030|big5(-hkscs)?|shift[-_]jis"
    r"|euc-(jp|kr)|iso-2022-jp|koi8-[ru]|tis-620|mac-?roman"
)


@dataclass(frozen=True)
class Reading:
    """`text` is markdown with links as `[3]`, `links` their targets, the first is [1]. `hidden`: passages that are
    marked in the text; `scripts`: the page has some, so that there may be more when it is rendered."""

    title: str
    date: str
    text: str
    links: tuple[str, ...] = ()
    hidden: int = 0
    scripts: bool = False
    cut: bool = False


def decoded(body: bytes, charset: str = "") -> str:
    """A page's bytes as text: by its mark, by what the server says, by what the page says, or by how it looks."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    found = _CHARSET.search(body[:4096])
    for said in (charset, found[1].decode("ascii", "ignore") if found else ""):
        name = _MEANT.get(said.lower(), said.lower())
        if _CODECS.fullmatch(name):
            try:
                return body.decode(name, "replace")
            except LookupError:
                continue
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        cut_short = error.start > len(body) - 4  # within a letter
        return body.decode("utf-8" if cut_short else "cp1252", "replace")


def read(html: str, url: str) -> Reading:
    """The reading view of a page at an address."""
    from lxml import etree  # type: ignore[import-untyped]
    from lxml import html as parser

    html = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]|^\s*<\?xml[^>]*>", "", html)
    try:
        root = parser.document_fromstring(
            html, parser=parser.HTMLParser(remove_comments=True, remove_pis=True, no_network=True)
        )
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return Reading("", "", "")
    title, date, scripts = _title(root), _date(root), next(root.iter("script"), None) is not None
    body = root.find("body")
    if body is None:
        return Reading(title, date, "", scripts=scripts)
    base = next((urljoin(url, one.get("href", "")) for one in root.iter("base") if one.get("href")), url)
    vote = _vote(html, url)
    mark_hidden(root)
    _prune(body)
    markdown = Markdown(base)
    text = _without_title(markdown.write(_content(body, vote)), title)
    return Reading(
        title,
        date,
        text[:LONGEST],
        tuple(markdown.links),
        text.count("[hidden: "),
        scripts,
        len(text) > LONGEST,
    )


def _title(root: Any) -> str:
    heads = [one for one in root.iter("h1") if _said(one)]
    said = [_plain(one.get("content", "")) for one in root.iter("meta") if one.get("property") == "og:title"]
    page = next((_said(one) for one in root.iter("title")), "")
    if len(heads) == 1 and (not page or _alike(_said(heads[0]), page)):
        return _said(heads[0])[:300]
    return (next(filter(None, said), "") or page or (_said(heads[0]) if heads else ""))[:300].strip()


def _alike(one: str, other: str) -> bool:
    words = set(_WORD.findall(one.lower()))
    return len(words & set(_WORD.findall(other.lower()))) * 2 >= len(words)


def _date(root: Any) -> str:
    """As the page says it of itself: YYYY-MM-DD, or ""."""
    said = [
        one.get("content", "")
        for one in root.iter("meta")
        if (one.get("property") or one.get("name") or one.get("itemprop") or "").lower()
        in ("article:published_time", "datepublished", "date", "dc.date", "citation_publication_date", "pubdate")
    ]
    said += [one.get("datetime", "") for one in root.iter("time")][:1]
    for one in said:
        if found := re.match(r"\s*(\d{4})[-/](\d{1,2})[-/](\d{1,2})", one):
            return f"{found[1]}-{int(found[2]):02d}-{int(found[3]):02d}"
    return ""


def _said(element: Any) -> str:
    return _plain("".join(element.itertext()))


def _plain(said: str) -> str:
    """In one line, with nothing unseen in it."""
    return " ".join(spelled(said).split())


def _vote(html: str, url: str) -> Counter[str]:
    """The words of what trafilatura takes for the main text."""
    import logging

    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        found = trafilatura.extract(
            html,
            url=url,
            favor_recall=True,
            include_comments=True,
            include_tables=True,
            fast=True,  # its second opinion takes the square of the time
        )
    except (ValueError, TypeError, AttributeError, RecursionError, KeyError, IndexError):  # on a page that is broken
        found = None
    return Counter(_WORD.findall((found or "").lower()))


def _prune(body: Any) -> None:
    """Take away what surrounds the text on every page of a site; what holds most of the text stays, however named."""
    all_words = max(1, len(_prose(body)))
    stack = list(body)
    while stack:
        element = stack.pop()
        if not isinstance(element.tag, str) or (_surrounds(element) and len(_prose(element)) * 2 < all_words):
            element.drop_tree()
            continue
        if element.tag in _DROPPED:
            element.drop_tree()
            continue
        if element.tag == "br" and any(True for _ in element.iterancestors("pre")):
            element.tail = "\n" + (element.tail or "")
        stack.extend(element)


def _surrounds(element: Any) -> bool:
    tag = element.tag
    within = {one.tag for one in element.iterancestors()}
    if tag == "footer" and "blockquote" not in within:
        return True
    if tag == "header" and not within & {"article", "main", "section"} and next(element.iter("h1"), None) is None:
        return True
    if element.get("role", "").lower() in _ROLES or element.get("aria-modal") == "true":
        return True
    names = f"{element.get('class', '')} {element.get('id', '')}"[:400]
    if tag == "aside":
        return not _NOTES.search(names)
    if tag == "button":
        return not within & _HEADS and element.get("aria-expanded") is None
    if tag == "form":
        return len(_prose(element)) < 60
    return tag not in ("main", "article", "html", "td", "tr", "table") and any(
        _AROUND.search(name) and not re.match(r"(has|with|no|without|js)-", name, re.IGNORECASE)
        for name in names.split()
    )


def _prose(element: Any) -> list[str]:
    """The words of an element that are in no link."""
    words = _WORD.findall(" ".join(element.itertext()).lower())
    linked = Counter(word for one in element.iter("a") for word in _WORD.findall("".join(one.itertext()).lower()))
    kept = []
    for word in words:
        if linked[word] > 0:
            linked[word] -= 1
        else:
            kept.append(word)
    return kept


def _content(body: Any, vote: Counter[str]) -> Any:
    """The part of the page that is read."""
    landmarks = [one for one in body.iter("main", "div", "section") if one.tag == "main" or one.get("role") == "main"]
    at = landmarks[0] if len(landmarks) == 1 and len(_prose(landmarks[0])) * 4 > len(_prose(body)) else body
    words = Counter(_WORD.findall(" ".join(at.itertext()).lower()))
    prose = Counter(_prose(at))
    whole = prose if prose.total() * 3 > words.total() else words  # a list of links is its links
    voted = (vote & words).total()
    if voted < 40:
        return at
    for _ in range(200):
        for child in at:
            held = Counter(_WORD.findall(" ".join(child.itertext()).lower()))
            said = Counter(_prose(child)) if whole is prose else held
            if (held & vote).total() >= 0.9 * voted and said.total() >= 0.6 * whole.total():
                at = child
                break
        else:
            return at
    return at


def _without_title(text: str, title: str) -> str:
    """The text without a first heading that says the title again."""
    first, _, rest = text.partition("\n")
    plain = re.sub(r"\[\d+\]", "", first.lstrip("# ")).strip()
    return rest.strip() if first.startswith("# ") and plain == title else text
