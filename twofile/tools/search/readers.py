"""Kinds of files to documents: plain text, markdown, HTML, PDF, Word.

Each reader takes the bytes of a file and gives blocks with their places: the lines of a plain text, the page of a PDF,
the headings above a paragraph of the others. What it is given may be an attack: the size is bounded before anything is
opened, what a Word file unpacks to as well, how much text is kept too, and nothing is fetched or executed. The parsers
of others may still crash or take for ever; `worker` contains that.
"""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from twofile.tools.search.passage import Block, Document, passages
from twofile.tools.search.text import clean, decoded, one_line

__all__ = ["KINDS", "LARGEST", "UnreadableError", "kind_of", "read"]

KINDS = {
    "txt": "text", "text": "text",
    "md": "markdown", "markdown": "markdown",
    "html": "html", "htm": "html", "xhtml": "html",
    "pdf": "pdf",
    "docx": "docx",
}  # fmt: skip
"""The kind of a file by the end of its name."""

LARGEST = {"text": 50 << 20, "markdown": 20 << 20, "html": 20 << 20, "pdf": 100 << 20, "docx": 50 << 20}
"""Bytes of a file of each kind."""

_CHARACTERS = 10_000_000  # of a document's text
_UNPACKED = 200 << 20  # bytes of what a Word file holds
_MEMBERS = 5000
_LINE = 1000  # characters of a line that may be a heading
_HEADING = re.compile(r" {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$")
_UNDER = re.compile(r" {0,3}(=+|-+)\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:-]{1,40})", re.IGNORECASE)
_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_HYPHEN = re.compile(r"(?<=[^\W\d_A-Z])-\n(?=[^\W\d_A-Z])")
_OMITTED = {"head", "iframe", "nav", "noscript", "object", "script", "select", "style", "svg", "template", "textarea"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt",
    "figcaption", "figure", "footer", "form", "header", "hr", "li", "main", "ol", "p", "pre", "section", "summary",
    "table", "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip


class UnreadableError(ValueError):
    """Why a file cannot be read, in words that others of its kind share. `lasting`: until the file changes."""

    def __init__(self, reason: str, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


def kind_of(name: str) -> str | None:
    """The kind of a file, or None for one that is not read."""
    return KINDS.get(name.rpartition(".")[2].lower()) if "." in name.lstrip(".") else None


def read(data: bytes, kind: str, seconds: float = 30.0) -> Document:
    """The document in these bytes. `seconds`: after which a long one is cut. Raises UnreadableError."""
    if len(data) > LARGEST[kind]:
        raise UnreadableError(f"larger than {LARGEST[kind] >> 20} MB")
    source = _Source(data, time.monotonic() + seconds)
    try:
        found = tuple(passages(source.bounded(_READERS[kind](source))))
    except UnreadableError:
        raise
    except MemoryError:
        raise UnreadableError("takes more memory than it may") from None
    except Exception as error:  # of a parser, which may raise anything
        raise UnreadableError("damaged") from error
    if not found:
        raise UnreadableError("no text in it")
    return Document(one_line(source.title), found, source.note)


class _Source:
    """What is read, and what becomes known on the way."""

    def __init__(self, data: bytes, until: float) -> None:
        self.data, self.until = data, until
        self.title = self.note = ""

    def bounded(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks, as long as there are not too many of them."""
        left = _CHARACTERS
        for block in blocks:
            yield Block(clean(block.text[:left]), one_line(block.place, 200), block.lines)
            left -= len(block.text)
            if left <= 0 or time.monotonic() > self.until:
                self.note = self.note or ("only its beginning: it is long" if left <= 0 else "only its beginning: slow")
                return

    def under(self, headings: Iterable[tuple[int, Block]]) -> Iterator[Block]:
        """Blocks below their headings: of a pair the level, 0 for what is none. Headings alone are a text, too."""
        path: list[tuple[int, str]] = []
        empty, names = True, list[str]()
        for level, block in headings:
            if not level:
                empty = empty and not block.text.strip()
                yield Block(block.text, " > ".join(name for _, name in path), block.lines)
            elif name := one_line(block.text, 100):
                path = [*((above, one) for above, one in path if above < level), (level, name)]
                self.title = self.title or name
                if empty and len(names) < 1000:
                    names.append(name)
        if empty:
            yield Block("\n".join(names))


def _text(source: _Source) -> Iterator[Block]:
    """Paragraphs of a plain text."""
    text, _ = decoded(source.data, source.data[: 1 << 13])
    return _paragraphs(_lines(text))


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _paragraphs(lines: list[str]) -> Iterator[Block]:
    start = 0
    for at, line in enumerate([*lines, ""]):
        if not line.strip():
            if at > start:
                yield Block("\n".join(lines[start:at]), "", (start + 1, at))
            start = at + 1


def _markdown(source: _Source) -> Iterator[Block]:
    text, _ = decoded(source.data, source.data[: 1 << 13])
    return source.under(_headings(_lines(text), source))


def _headings(lines: list[str], source: _Source) -> Iterator[tuple[int, Block]]:
    start, fence, at = 0, "", 0
    if lines[0].strip() == "---" and "---" in (end := [line.strip() for line in lines[1:100]]):
        start = at = end.index("---") + 2  # front matter
        given = [line.partition(":")[2] for line in lines[1 : at - 1] if line.lower().startswith("title:")]
        source.title = given[0].strip(" \"'") if given else ""

    def before(end: int) -> Iterator[tuple[int, Block]]:
        if end > start:
            yield 0, Block("\n".join(lines[start:end]), "", (start + 1, end))

    while at < len(lines):
        line = lines[at] if len(lines[at]) < _LINE else "x"  # a long one is neither heading nor fence
        mark = _FENCE.match(line)
        if mark and (not fence or (mark[1].startswith(fence) and not line.strip(" `~"))):
            fence = "" if fence else mark[1]
        elif not fence and (found := _HEADING.match(line)):
            yield from before(at)
            yield len(found[1]), Block(found[2] or "")
            start = at + 1
        elif not fence and at > start and (found := _UNDER.match(line)) and lines[at - 1].strip():
            yield from before(at - 1)
            yield 1 if found[1][0] == "=" else 2, Block(lines[at - 1])
            start = at + 1
        elif not fence and not line.strip():
            yield from before(at)
            start = at + 1
        at += 1
    yield from before(len(lines))


def _html(source: _Source) -> Iterator[Block]:
    etree = _library("lxml.etree", "lxml")
    found = _CHARSET.search(source.data[:4096])
    text, encoding = source.data, found[1].decode() if found else ""
    try:
        parser = etree.HTMLParser(encoding=encoding or None, remove_comments=True, remove_pis=True, no_network=True)
    except LookupError:
        encoding = ""
    if not encoding or source.data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = decoded(source.data, source.data[: 1 << 13])[0].encode("utf-8", "replace")
        parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    root = etree.fromstring(text, parser)
    if root is None:
        return iter(())
    title = root.find(".//title")
    source.title = one_line("".join(title.itertext())) if title is not None else ""
    return source.under(_elements(etree, root))


def _elements(etree: Any, root: Any) -> Iterator[tuple[int, Block]]:
    """What a page shows, in its order."""
    held: list[str] = []
    walk = etree.iterwalk(root, events=("start", "end"))
    exact = 0  # within how many <pre>
    for event, one in walk:
        tag = one.tag.rpartition("}")[2].lower() if isinstance(one.tag, str) else ""
        level = int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0
        if level or tag in _BLOCKS:
            text = "".join(held)
            if text.strip():
                yield level if event == "end" else 0, Block(text.strip(" |\n"))
            held = []
        if event == "start":
            exact += tag == "pre"
            if tag in _OMITTED or "hidden" in one.attrib or _STYLE.search(one.get("style", "")):
                walk.skip_subtree()
            else:
                held.append(_spaced(one.text, exact))
        else:
            exact -= tag == "pre"
            if tag in ("td", "th"):
                held.append(" | ")
            held.append(_spaced(one.tail, exact))
    if "".join(held).strip():
        yield 0, Block("".join(held))


def _spaced(text: str | None, exact: int) -> str:
    return (text or "") if exact else re.sub(r"\s+", " ", text or "")


def _pdf(source: _Source) -> Iterator[Block]:
    pypdf = _library("pypdf", "pypdf")
    reader = pypdf.PdfReader(io.BytesIO(source.data), strict=False)
    if reader.is_encrypted:
        try:
            opened = reader.decrypt("")
        except Exception:  # a cipher that is not there
            opened = 0
        if not opened:
            raise UnreadableError("encrypted")
    try:
        source.title = str(reader.metadata.title or "") if reader.metadata else ""
    except Exception:  # what describes it is damaged, not it
        source.title = ""
    failed = 0
    for number, page in enumerate(reader.pages, 1):
        try:
            text = page.extract_text()
        except (MemoryError, RecursionError):
            raise
        except Exception:
            failed += 1
            source.note = f"{failed} of its pages are damaged"
            continue
        yield Block(_HYPHEN.sub("", text), f"page {number}")


def _docx(source: _Source) -> Iterator[Block]:
    docx = _library("docx", "python-docx")
    if source.data[:4] == b"\xd0\xcf\x11\xe0":
        raise UnreadableError("encrypted")  # or of the kind before this one, which is as unreadable
    with zipfile.ZipFile(io.BytesIO(source.data)) as archive:
        members = archive.infolist()
        if len(members) > _MEMBERS or sum(one.file_size for one in members) > _UNPACKED:
            raise UnreadableError(f"unpacks to more than {_UNPACKED >> 20} MB")
    document = docx.Document(io.BytesIO(source.data))
    source.title = document.core_properties.title or ""
    return source.under(_word(document))


def _word(document: Any) -> Iterator[tuple[int, Block]]:
    for one in document.iter_inner_content():
        if not hasattr(one, "rows"):
            style = (one.style.name or "") if one.style is not None else ""
            found = re.fullmatch(r"Heading ([1-9])", style)
            yield int(found[1]) if found else 1 if style == "Title" else 0, Block(one.text)
            continue
        for row in one.rows:
            cells = [cell.text.strip() for cell in row.cells]
            merged = [cell for at, cell in enumerate(cells) if cell and (not at or cell != cells[at - 1])]
            yield 0, Block(" | ".join(merged))


def _library(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UnreadableError(f"needs {package}: pip install 'twofile[tools]'", lasting=False) from None


_READERS: dict[str, Callable[[_Source], Iterator[Block]]] = {
    "text": _text,
    "markdown": _markdown,
    "html": _html,
    "pdf": _pdf,
    "docx": _docx,
}
