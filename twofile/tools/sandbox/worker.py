"""The interpreter inside a sandbox: runs programs one after another; what they define lasts.

Requests come on one descriptor, replies go to another, each a line of JSON; standard output and error
are whatever the programs make of them. A request is {"code": text, "number": n}, or {"stop": true}, which interrupts
what is being run. A reply: {"number": n, "value": the last expression's text, "error": a traceback, "images": [{"data":
base64 of a PNG, "about": words}]}. The program runs in `__main__`; open figures of matplotlib are the pictures of the
program that drew them. Nothing here is trusted by who reads the replies: a program can write to that descriptor, too.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import linecache
import os
import queue
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["main"]

_MOST = 8  # pictures of a program
_LONGEST = 20_000  # characters of a value or a traceback


def main(asked: int, replies: int) -> None:
    """Answer until the requests end."""
    requests = os.fdopen(asked, "r", encoding="utf-8")
    sys.argv = [""]
    os.chdir(os.environ["HOME"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the keeper ignores it, and that is inherited
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
    todo: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, todo), daemon=True).start()
    _reply(replies, {"ready": True})
    while True:
        try:
            if (given := todo.get()) is None:
                return
            _reply(replies, {"number": given["number"]} | _run(given["code"], given["number"], module))
        except KeyboardInterrupt:  # it came when the program was over
            continue


def _read(requests: io.TextIOBase, todo: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    for line in requests:
        given = json.loads(line)
        if given.get("stop"):
            signal.pthread_kill(main_thread, signal.SIGINT)
        else:
            todo.put(given)
    todo.put(None)


def _reply(replies: int, said: dict[str, Any]) -> None:
    raw = json.dumps(said).encode() + b"\n"
    while raw:
        raw = raw[os.write(replies, raw) :]


def _run(code: str, number: int, module: types.ModuleType) -> dict[str, Any]:
    name = f"<program {number}>"
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    value: Any = None
    error = ""
    try:
        value = _value(ast.parse(code, name), name, module)
    except SystemExit as left:
        error = f"SystemExit: {left.code}"
    except BaseException as raised:
        raised.__traceback__ = _own(raised.__traceback__, name)
        error = "".join(traceback.format_exception(raised))
    images: list[dict[str, str]] = []
    said = ""
    try:
        images = list(_pictures(value))
        if value is not None and not images:
            said = repr(value)
    except BaseException:
        error += traceback.format_exc(limit=3)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return {"value": _short(said), "error": _short(error), "images": images}


def _value(tree: ast.Module, name: str, module: types.ModuleType) -> Any:
    """Run a program; the value of its last line where that is an expression."""
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), module.__dict__)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), name, "eval"), module.__dict__)


def _own(trace: types.TracebackType | None, name: str) -> types.TracebackType | None:
    """From the program's own lines on."""
    while trace is not None and trace.tb_frame.f_code.co_filename != name:
        trace = trace.tb_next
    return trace


def _pictures(value: Any) -> Iterator[dict[str, str]]:
    """Of the figures that are open, which are closed then, and of a value that is a picture."""
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
        for figure in figures[:_MOST]:
            if figure.axes:
                file = io.BytesIO()
                figure.savefig(file, format="png", dpi=100)
                yield _picture(file.getvalue(), _drawn(figure))
        pyplot.close("all")
    draw = getattr(type(value), "_repr_png_", None)
    if draw is not None and (data := draw(value)):
        yield _picture(data, f"a picture ({type(value).__name__})")


def _picture(data: bytes, about: str) -> dict[str, str]:
    return {"data": base64.b64encode(data).decode(), "about": _short(about, 600)}


def _drawn(figure: Any) -> str:
    """What a figure shows, in words, from what it is made of."""
    parts = []
    for axes in figure.axes:
        named = [f"“{axes.get_title()}”"] if axes.get_title() else []
        held = {"line": len(axes.lines), "bar or patch": len(axes.patches), "collection": len(axes.collections),
                "image": len(axes.images)}  # fmt: skip
        named += [f"{n} {what}{'s' if n > 1 else ''}" for what, n in held.items() if n]
        for line in axes.lines[:4]:
            x, y = line.get_xdata(), line.get_ydata()
            if len(y):
                label = "" if str(line.get_label()).startswith("_") else f"{line.get_label()}: "
                named.append(f"{label}{len(y)} points from ({x[0]}, {y[0]}) to ({x[-1]}, {y[-1]})")
        named += [f"{side}: {text}" for side, text in (("x", axes.get_xlabel()), ("y", axes.get_ylabel())) if text]
        parts.append(", ".join(named) or "empty axes")
    return "a plot: " + "; ".join(parts)


def _short(said: str, most: int = _LONGEST) -> str:
    return said if len(said) <= most else f"{said[: most // 2]}\n[...]\n{said[-most // 2 :]}"
