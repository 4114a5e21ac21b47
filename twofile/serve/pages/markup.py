"""Text that a model or a tool wrote, as HTML that does nothing.

Markdown with mathematics and code becomes HTML of a few tags. Guarantees: nothing in it is fetched, run or followed by
itself (a link is a button that says where it leads, a picture is words); HTML in the text is shown as text; characters
that one does not see, or that turn the reading around, are shown by their numbers; and what would take long to read, or
is nested deeply, is shown as it is. In the end everything passes a list of what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from html import escape, unescape
from itertools import groupby
from textwrap import dedent
from time import monotonic
from typing import Any
from xml.etree.ElementTree import Element

import nh3
from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.token import STANDARD_TYPES  # type: ignore[import-untyped]

__all__ = ["Blocks", "html_of", "plain_of", "think_parts"]

_Env = MutableMapping[str, Any]

_LONGEST = 200_000  # characters that are read as markdown
_SECONDS = 0.8  # for reading them; a text that takes longer is shown as it is
_DEEPEST = 30  # quotes and lists within one another; emphasis and links within one another
_CELLS = 2_000  # of a table
_ALL_CELLS = 20_000  # of all tables of a text
_FORMULA = 2_000  # characters of a formula
_FORMULAS = 20_000  # characters of all formulas of a text
_CODE = 100_000  # characters of all code of a text that are coloured
_CODE_LINE = 500  # characters of a line of such: many lexers take the square of it
_CODE_SECONDS = 0.3
_TARGET = 300  # characters of a target in a text
_BLOCK = 2_000  # characters of a tail
_LINE = 8_000  # characters of a tail that has no end of a line

_UNSEEN = re.compile(
    r"([\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    r"|(?<![\u0620-\u109f\u1780-\u17b3\u17b6-\u18af\ua8e0-\ua8ff])\u200c"
    r"|(?<![\u0620-\u109f\u1780-\u17b3\u17b6-\u18af\ua8e0-\ua8ff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])\u200d"
    r"|(?<=[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])\u200d(?![\u2190-\u2bff\U0001f000-\U0001faff])"
    r"|(?<![0-9#*©®\u0900-\u109f\u203c\u2049\u2100-\u2bff\u3000-\u303f\u3297\u3299\u3400-\u9fff\U0001f000-\U0001faff])"
    r"[\ufe00-\ufe0f]"
    r"|(?<![\u3400-\u9fff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef])\1*"
)
_WEB = re.compile(r"https?://[^/?#\\]|mailto:[^/?#\\]", re.IGNORECASE)
_BRACKETS = {"\\(": "\\)", "\\[": "\\]"}
_DISPLAYED = {"$$": "$$", "\\[": "\\]"}
_MACROS = re.compile(r"\\(?:re)?newcommand|\\def|\\let|\\require")
_LENGTH = re.compile(r"[+-]?(?:\d?\.)?\d{1,3}(?:em|ex|pt|px|mu|%)?")
_WORDS = re.compile(r"[a-z-]+(?: [a-z-]+)*|\d")
_FENCE = re.compile(r"(?P<before>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(?P<mark>`{3,}|~{3,})")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LANGUAGES = _names(
    "bash sh shell zsh c cpp c++ csharp c# cs css diff docker dockerfile go golang haskell hs html ini "
    "java javascript js json jsx julia kotlin latex tex lua make makefile nix ocaml perl php powershell ps1 python py "
    "python3 r ruby rb rust rs scala scheme sql swift toml typescript ts xml yaml yml zig"
)
_KINDS = _names("c k s m o nb nf nc nn nt na nd nv gi gd gh")
_LENGTHS = _names("width height depth lspace rspace voffset minsize maxsize linethickness rowspacing columnspacing")
_MATHS_WORDS = _names(
    "display displaystyle scriptlevel mathvariant stretchy fence form separator largeop movablelimits accent "
    "accentunder columnalign rowalign columnlines rowlines notation"
)
_MATHS = _names(
    "math mrow mi mo mn mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd "
    "mstyle mpadded mphantom menclose"
)
_TAGS = _names(
    "p br hr h1 h2 h3 h4 h5 h6 em strong s code pre blockquote ul ol li table thead tbody tr th td div span figure "
    "figcaption button"
)
_CLEANER = nh3.Cleaner(
    tags={*_TAGS, *_MATHS},
    attributes={
        "ol": {"start"},
        "button": {"type", "class", "title", "data-target", "data-copy"},
        "pre": {"class", "tabindex"},
        "div": {"class", "tabindex", "role", "aria-label"},
        "span": {"class", "tabindex", "role", "aria-label"},
        "code": {"class"},
        "figure": {"class"},
        "th": {"class"},
        "td": {"class"},
        **{tag: {*_LENGTHS, *_MATHS_WORDS} for tag in _MATHS},
    },
    url_schemes=set(),
    link_rel=None,
)


def html_of(text: str) -> str:
    """Markdown as HTML."""
    if len(text) > _LONGEST:
        return _plain(text)
    env: _Env = {"until": monotonic() + _SECONDS, "links": [], "cells": 0, "formulas": 0, "code": 0}
    try:
        made = _MARKDOWN.render(text.replace("\r\n", "\n").replace("\r", "\n"), env)
    except Exception:  # whatever a parser makes of it, the text is shown
        return _plain(text)
    return _CLEANER.clean(made)


def think_parts(text: str) -> list[tuple[bool, str]]:
    """What was thought and what was said, in their order; thinking may lack its end."""
    parts: list[tuple[bool, str]] = []
    while text:
        said, _, text = text.partition("<think>")
        thought, _, text = text.partition("</think>")
        parts += [(thinking, part) for thinking, part in ((False, said), (True, thought)) if part.strip()]
    return parts


class Blocks:
    """Text that grows, a block after the other: `tail` is what is not settled. What a piece costs does not grow with
    the text. A block is whole at a blank line, a fence at its end, and a list before a line that is none of its."""

    def __init__(self) -> None:
        self.tail = ""
        self._line = 0  # where in the tail the first line begins that has no end
        self._mark = ""  # of the fence that is open, or what ends the formula
        self._inset = 0  # how far the fence is in
        self._filled = self._list = self._paused = self._cut = False

    def feed(self, text: str) -> str:
        """More text: the HTML of the blocks that became whole with it."""
        made: list[str] = []
        held = ""
        for kind, part in self.pieces(text):
            if held and (kind == "fence" or len(held) + len(part) > _LINE):
                made.append(html_of(held))
                held = ""
            if kind == "fence":
                made.append(_plain(part))
            else:
                held += dedent(part) if kind == "list" else part
        if held:
            made.append(html_of(held))
        return "".join(made)

    def pieces(self, text: str) -> list[tuple[str, str]]:
        """The texts that became whole with it, each after its kind: "list", "fence" for a part of one that had to be
        cut, else ""."""
        whole = self.tail + text
        begin, line = 0, self._line
        made: list[tuple[str, str]] = []

        def settle(upto: int, kind: str) -> None:
            nonlocal begin
            if upto > begin:
                made.append((kind, whole[begin:upto]))
            begin = upto

        while (end := whole.find("\n", line)) >= 0:
            if self._ends_before(whole[line:end]):
                settle(line, self._kind())
                self._filled = self._list = self._cut = False
            if self._ends_after(whole[line:end]):
                settle(end + 1, self._kind())
                self._filled = self._list = self._list and self._cut
                self._cut = False
            line = end + 1
            if line - begin > _BLOCK:
                self._cut_here()
                settle(line, self._kind())
        if len(whole) - begin > _LINE:
            line = len(whole)
            self._cut_here()
            settle(line, self._kind())
        self.tail, self._line = whole[begin:], line - begin
        return made

    def _kind(self) -> str:
        return "fence" if self._cut else "list" if self._list else ""

    def _cut_here(self) -> None:
        self._cut = self._mark[:1] in ("`", "~")
        self._mark = self._mark if self._cut else ""
        self._filled, self._paused = self._list, False

    def _ends_before(self, line: str) -> bool:
        words = line.strip()
        inset = len(line) - len(line.lstrip())
        if self._mark:
            out = bool(words) and inset < 2 <= self._inset and self._list and not self._closes(line)
            if out:
                self._mark = ""
            return out
        if self._paused and words:
            self._paused = False
            return inset < 2 and _ITEM.match(line) is None
        return self._filled and not self._list and self._fence(line) is not None

    def _ends_after(self, line: str) -> bool:
        words = line.strip()
        if self._mark:
            if not self._closes(line):
                return False
            self._mark = ""
            return self._cut or not self._list
        if not words:
            self._paused = self._list
            return self._filled and not self._list
        self._list = self._list or (not self._filled and _ITEM.match(line) is not None)
        self._filled = True
        if fence := self._fence(line):
            self._mark, self._inset = fence["mark"], len(fence["before"])
        elif (close := _DISPLAYED.get(words[:2])) and close not in words[2:]:
            self._mark = close
        return False

    def _fence(self, line: str) -> re.Match[str] | None:
        found = _FENCE.match(line)
        if found is None or (found["mark"][0] == "`" and "`" in line[found.end() :]):
            return None
        return found if self._list or _ITEM.match(line) or len(found["before"]) < 4 else None

    def _closes(self, line: str) -> bool:
        words = line.strip()
        if self._mark[:1] in ("`", "~"):
            inset = len(line) - len(line.lstrip()) - (self._inset if self._list else 0)
            return inset < 4 and len(words) >= len(self._mark) and set(words) == {self._mark[0]}
        return words.endswith(self._mark)


def _plain(text: str) -> str:
    return _CLEANER.clean(plain_of(text))


def plain_of(text: str) -> str:
    return f'<pre class="plain" tabindex="0">{_safe(text)}</pre>'


def _safe(text: str) -> str:
    """Text in HTML, and what one does not see by its number."""
    return _UNSEEN.sub(_unseen, escape(text))


def _unseen(found: re.Match[str]) -> str:
    count = len(found[0]) // len(found[found.lastindex or 0])
    return f'<span class="unseen">{_number(found)}{f" × {count}" if count > 1 else ""}</span>'


def _number(found: re.Match[str]) -> str:
    return f"U+{ord(found[0][0]):04X}"


def _value(text: str) -> str:
    """Text in an attribute."""
    return escape(_UNSEEN.sub(_number, text))


class _TooMuchError(Exception):
    """A text that takes too long, or is nested too deeply."""


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802
        """Every target: what is made of it is decided where it is written."""
        return True


class _Writer(RendererHTML):
    """Tokens as HTML."""

    def text(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return _safe(tokens[idx].content)

    def code_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return f"<code>{_safe(tokens[idx].content)}</code>"

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return _figure("", tokens[idx].content, env)

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        words = unescapeAll(tokens[idx].info).split()
        return _figure(words[0] if words else "", tokens[idx].content, env)

    def plain(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return plain_of(tokens[idx].content)

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return '<div class="table" tabindex="0" role="region" aria-label="table"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return "</table></div>"

    def th_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        side = str(tokens[idx].attrGet("style") or "").removeprefix("text-align:")
        name = f' class="to-{side}"' if side in ("left", "right", "center") else ""
        return f"<{tokens[idx].tag}{name}>"

    td_open = th_open

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        target = str(tokens[idx].attrGet("href") or "")
        env["links"].append((target, tokens[idx].markup == "autolink"))
        return _button(target) if _WEB.match(target) else ""

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        target, alike = env["links"].pop()
        if _WEB.match(target):
            return "</button>"
        return "" if alike or not target else f" ({_safe(_short(target))})"

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        words = self.renderInlineAsText(tokens[idx].children, options, env).replace("\n", " ")
        made = f'<span class="picture">[picture: {_safe(words)}]</span>'
        source = str(tokens[idx].attrGet("src") or "")
        if not _WEB.match(source) or source[:1] in "mM":
            return f"{made} not shown"
        return made if env["links"] else f"{made} {_button(source)}{_safe(_short(source))}</button>"

    def math_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return _formula(tokens[idx].content, "inline", env)

    def math_inline_double(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return _formula(tokens[idx].content, "block", env)

    def math_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Env) -> str:
        return f"<p>{_formula(tokens[idx].content, 'block', env)}</p>"


def _button(target: str) -> str:
    value = _value(target)
    return f'<button type="button" class="link" data-target="{value}" title="{value}">'


def _short(text: str) -> str:
    return text if len(text) <= _TARGET else f"{text[:_TARGET]}…"


def _figure(language: str, code: str, env: _Env) -> str:
    return (
        f'<figure class="code"><figcaption><span>{_safe(language[:40] or "text")}</span>'
        '<button type="button" class="copy" data-copy>Copy</button></figcaption>'
        f'<pre tabindex="0"><code>{_coloured(language.lower(), code, env)}</code></pre></figure>'
    )


def _coloured(language: str, code: str, env: _Env) -> str:
    env["code"] += len(code)
    if language not in _LANGUAGES or env["code"] > _CODE or max(map(len, code.split("\n"))) > _CODE_LINE:
        return _safe(code)
    until = monotonic() + _CODE_SECONDS
    read: list[tuple[str, str]] = []
    size = 0
    for _, kind, value in get_lexer_by_name(language).get_tokens_unprocessed(code):
        read.append((_kind(kind), value))
        size += len(value)
        if monotonic() > until:
            read.append(("", code[size:]))
            env["code"] = _CODE
            break
    if "".join(value for _, value in read) != code:
        return _safe(code)
    made = ""
    for name, pairs in groupby(read, key=lambda pair: pair[0]):
        text = _safe("".join(value for _, value in pairs))
        made += f'<span class="{name}">{text}</span>' if name else text
    return made


def _kind(kind: Any) -> str:
    """The class of a kind of token, or of the kind that it is a kind of; "" for one without a colour."""
    while kind is not None:
        if (name := STANDARD_TYPES.get(kind, "")) in _KINDS:
            return str(name)
        kind = kind.parent
    return ""


def _formula(source: str, display: str, env: _Env) -> str:
    """A formula as MathML, else as it was written."""
    shown = f'<code class="math">{_safe(source)}</code>'
    env["formulas"] += len(source) + 10
    if len(source) > _FORMULA or env["formulas"] > _FORMULAS or _UNSEEN.search(source) or _MACROS.search(source):
        return shown
    try:
        made = _mathml(convert_to_element(source.strip(), display=display), 0)
    except Exception:  # what it cannot read, in any of its ways
        return shown
    if display == "inline":
        return f'<span class="math">{made}</span>'
    return f'<span class="math display" tabindex="0" role="group" aria-label="formula">{made}</span>'


def _mathml(element: Element, depth: int) -> str:
    """An element as it is written. What the converter writes itself is not escaped."""
    text = unescape(element.text or "")
    if depth > _DEEPEST or element.tag not in _MATHS or _UNSEEN.search(text):
        raise _TooMuchError
    named = "".join(
        f' {name}="{value}"'
        for name, value in element.attrib.items()
        if (name in _LENGTHS and all(map(_LENGTH.fullmatch, value.split())))
        or (name in _MATHS_WORDS and _WORDS.fullmatch(value))
    )
    inner = "".join(_mathml(child, depth + 1) for child in element)
    return f"<{element.tag}{named}>{escape(text)}{inner}</{element.tag}>"


def _in_time(state: StateBlock | StateInline, *_: Any) -> bool:
    """No rule: it is asked before every other."""
    if monotonic() > state.env["until"]:
        raise _TooMuchError
    return False


def _bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A table, or its source where it has too many cells."""
    if silent or not table(state, start, end, True):
        return table(state, start, end, True) if silent else False
    columns = state.getLines(start + 1, start + 2, 0, False).strip().strip("|").count("|") + 1
    left = min(_CELLS, _ALL_CELLS - state.env["cells"])
    last = min(end, start + 1 + left // columns)
    before = len(state.tokens)
    if last >= start + 2 and table(state, start, last, False):
        if state.line < last or last == end or state.isEmpty(last) or state.sCount[last] < state.blkIndent:
            state.env["cells"] += columns * (state.line - start)
            return True
        del state.tokens[before:]
    line = start + 2
    while line < end and not state.isEmpty(line) and state.sCount[line] >= state.blkIndent:
        line += 1
    token = state.push("plain", "", 0)
    token.content = state.getLines(start, line, state.blkIndent, False)
    token.map = [start, line]
    state.line = line
    return True


def _displayed(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    r"""A formula between $$ or \[ and \] that begins a line, without blank lines in it."""
    begin = state.bMarks[start] + state.tShift[start]
    close = _DISPLAYED.get(state.src[begin : begin + 2])
    if close is None or state.is_code_block(start):
        return False
    at, line = begin + 2, start
    while (found := state.src.find(close, at, state.eMarks[line])) < 0:
        line += 1
        if line >= end or state.isEmpty(line) or state.sCount[line] < state.blkIndent or line - start > 200:
            return False
        at = state.bMarks[line]
    if state.src[found + 2 : state.eMarks[line]].strip(" \t.,;"):
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        inner = state.getLines(start, line + 1, state.blkIndent, False).strip()
        token.content = inner[2 : inner.rindex(close)]
        token.map = [start, line + 1]
        state.line = line + 1
    return True


def _bracketed(state: StateInline, silent: bool) -> bool:
    r"""A formula between \( and \), or \[ and \]."""
    close = _BRACKETS.get(state.src[state.pos : state.pos + 2])
    found = state.src.find(close, state.pos + 2, state.posMax) if close else -1
    if found < 0:
        return False
    if not silent:
        token = state.push("math_inline" if close == "\\)" else "math_inline_double", "math", 0)
        token.content = state.src[state.pos + 2 : found]
    state.pos = found + 2
    return True


def _shallow(state: StateCore) -> None:
    """Nothing is nested deeply: neither browsers nor people read that."""
    depth = 0
    for token in state.tokens:
        if token.type in ("blockquote_open", "bullet_list_open", "ordered_list_open"):
            depth += 1
        elif token.type in ("blockquote_close", "bullet_list_close", "ordered_list_close"):
            depth -= 1
        if depth > _DEEPEST or any(child.level > _DEEPEST for child in token.children or ()):
            raise _TooMuchError


def _parser() -> MarkdownIt:
    made = _Markdown("commonmark", {"html": False, "maxNesting": 100}, renderer_cls=_Writer)
    made.enable(["table", "strikethrough"]).disable(["normalize", "html_block", "html_inline"])
    made.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    for rule in (_Writer.math_inline, _Writer.math_inline_double, _Writer.math_block):
        made.add_render_rule(rule.__name__, rule)
    ending = ["paragraph", "reference", "blockquote", "list"]
    made.block.ruler.at("table", _bounded_table, {"alt": ["paragraph", "reference"]})
    made.block.ruler.before("math_block", "displayed", _displayed, {"alt": ending})
    made.block.ruler.before("table", "in_time", _in_time, {"alt": ending})
    made.inline.ruler.before("escape", "bracketed", _bracketed)
    made.inline.ruler.before("text", "in_time", _in_time)
    made.core.ruler.after("block", "shallow_blocks", _shallow)
    made.core.ruler.after("inline", "shallow_words", _shallow)
    return made


_MARKDOWN = _parser()
