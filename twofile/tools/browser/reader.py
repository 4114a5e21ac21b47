"""A page made readable in a process of its own, which may take so long and so much memory and no more.

What parses pages (HTML, PDF) is large and written for honest input. Here it runs apart: a page that hangs or crashes it
costs a child process, within `_MEMORY` and the seconds that it is given. Cost: some half second to start.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from twofile.tools.browser.hidden import spelled
from twofile.tools.browser.reading import Reading

__all__ = ["understood"]

_MEMORY = 2 << 30  # bytes of address space
_PAGES = 200  # of a PDF
_ROOT = Path(__file__).resolve().parents[3]


def understood(body: bytes, mime: str, charset: str, url: str, seconds: float) -> Reading:
    """The reading view of what came from an address. ValueError where it cannot be read in the time that there is."""
    asked = json.dumps({"mime": mime, "charset": charset, "url": url, "seconds": seconds}).encode() + b"\n"
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_ROOT), "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "twofile.tools.browser.reader"],
            input=asked + body,
            capture_output=True,
            timeout=max(0.1, seconds),
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{url} takes too long to read: more than {seconds:.0f} s") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        why = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        raise ValueError(f"{url} cannot be read ({why or f'the reader ended with {done.returncode}'})") from None
    return Reading(**{**answer, "links": tuple(answer["links"])})


def _read(body: bytes, mime: str, charset: str, url: str) -> Reading:
    from twofile.tools.browser import reading

    if mime == "application/pdf" or body.startswith(b"%PDF-"):
        return _pdf(body)
    text = reading.decoded(body, charset)
    if "html" in mime or (mime in ("text/xml", "application/xml") and "<html" in text[:2000].lower()):
        return reading.read(text, url)
    return Reading("", "", spelled(text[: reading.LONGEST]), cut=len(text) > reading.LONGEST)


def _pdf(body: bytes) -> Reading:
    import io
    import logging

    from pypdf import PdfReader

    from twofile.tools.browser.reading import LONGEST

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    document = PdfReader(io.BytesIO(body))
    said: list[str] = []
    size = 0
    for number, page in enumerate(document.pages, 1):
        if number > _PAGES or size > LONGEST:
            return Reading(_pdf_title(document), "", "\n\n".join(said)[:LONGEST], cut=True)
        said.append(f"[page {number}]\n{spelled(page.extract_text())}".rstrip())
        size += len(said[-1])
    return Reading(_pdf_title(document), "", "\n\n".join(said)[:LONGEST], cut=size > LONGEST)


def _pdf_title(document: object) -> str:
    found = getattr(getattr(document, "metadata", None), "title", None)
    return " ".join(spelled(str(found or "")).split())[:300]


def main() -> None:
    """The child: a line of JSON and a body in, the reading as JSON out."""
    asked = json.loads(sys.stdin.buffer.readline())
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    seconds = int(asked["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    read = _read(sys.stdin.buffer.read(), asked["mime"], asked["charset"], asked["url"])
    sys.stdout.write(json.dumps(read.__dict__))


if __name__ == "__main__":
    main()
