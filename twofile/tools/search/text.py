"""Bytes to text, and text to what stands in one line."""

from __future__ import annotations

import codecs
import re

__all__ = ["SCRIPT", "clean", "decoded", "joined", "one_line", "separated"]

SCRIPT = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts that put no spaces between words, or many words into one: kana, Han, Hangul."""

_SEPARATOR = "\u200b"
_SCRIPT = re.compile(f"[{SCRIPT}]")
_BETWEEN = re.compile(rf"(?<=[{SCRIPT}])(?=\w)|(?<=\w)(?=[{SCRIPT}])")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\xa0\u2028\u2029]")
_UNSEEN = re.compile("[\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e0fff]")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded(data: bytes, head: bytes, offset: int = 0) -> tuple[str, int]:
    """The text of a part of a file, and of how many bytes: a character that was cut off at its end is left to the next
    part. `head`: the file's beginning, which tells the encoding: a mark, else UTF-8, else Windows-1252, by which any
    byte is a character. ValueError for what is no text."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", ""))
    if not encoding:
        if b"\0" in head or b"\0" in data:
            raise ValueError("that is no text file")
        encoding = "utf-8"
    start = data[len(mark) :] if not offset else data
    skipped = len(data) - len(start)
    if encoding == "utf-8" and not mark and not _is_utf8(head):
        return start.decode("cp1252", "replace"), len(data)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    text = decoder.decode(start)
    left = len(decoder.getstate()[0])
    if not text and left:  # nothing but the part of a character: the file ends with it
        return decoder.decode(b"", final=True), len(data)
    return text, skipped + len(start) - left


def _is_utf8(head: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(head)
    except UnicodeDecodeError:
        return False
    return True


def one_line(text: str, most: int = 300) -> str:
    """A text without line breaks and control characters, not longer than `most` characters."""
    plain = " ".join("".join(one if one.isprintable() else " " for one in text[: most * 4]).split())
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"


def clean(text: str) -> str:
    """A text without what is not seen: control characters but line breaks, marks of direction, tags."""
    return _UNSEEN.sub("", _CONTROL.sub(" ", text.replace("\t", " ")))


def separated(text: str) -> str:
    """A text with a space of no width around every character of a script without spaces, so that each is a word."""
    return _BETWEEN.sub(_SEPARATOR, text) if _SCRIPT.search(text) else text


def joined(text: str) -> str:
    """The text that was `separated`."""
    return text.replace(_SEPARATOR, "")
