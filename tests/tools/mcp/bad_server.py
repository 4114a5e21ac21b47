"""A server that misbehaves: `bad_server.py HOW`. It starts as others do, has a tool `work`, and shows what it is like
when that is called, or, for the ways of `EARLY`, before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

HOW = sys.argv[1]
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def say(value: dict[str, Any] | bytes) -> None:
    data = value if isinstance(value, bytes) else json.dumps({"jsonrpc": "2.0", **value}).encode() + b"\n"
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def text(said: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}]}


def early() -> None:
    """Before it says anything."""
    if HOW == "dies":
        print("cannot find my licence", file=sys.stderr)
        sys.exit(7)
    if HOW == "silent":
        time.sleep(60)
    if HOW == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if HOW == "banner":
        say(b"Welcome to the server!\n\n[info] ready\n")


def work(number: int) -> None:
    """When it is called."""
    match HOW:
        case "crashes":
            print("segmentation fault, as it were", file=sys.stderr, flush=True)
            os._exit(9)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs" | "stubborn":
            time.sleep(60)
        case "floods":
            while True:
                say({"method": "notifications/message", "params": {"level": "info", "data": "x"}})
        case "asks":
            for i in range(10**9):
                say({"id": f"q{i}", "method": "ping"})
        case "wrong json":
            say(b'{"jsonrpc": "2.0", "id": 1, "result": \n')
        case "wrong id":
            say({"id": 4711, "result": text("hello")})
        case "gigantic":
            say(b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [{"type": "text", "text": "' % number)
            for _ in range(64):
                say(b"x" * (1 << 20))
            say(b'"}]}}\n')
        case "no utf-8":
            say(b'{"jsonrpc": "2.0", "id": %d, "result": {"content": "\xff\xfe"}}\n' % number)
        case "endless":
            while True:
                say(b"y" * (1 << 16))
        case "endless lines":
            while True:
                say(b"yes\n" * 1000)
        case "many values":
            wrong = b",".join([b"3"] * 500_000)  # each is wrong in five ways, and a record is kept of each
            say(b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [%s]}}\n' % (number, wrong))
        case "long id":
            say({"id": "1" * 6000, "result": text("hello")})
        case "much that is structured":
            say({"id": number, "result": {"content": [], "structuredContent": {"a": [1] * 100_000}}})
        case "no result":
            say({"id": number, "result": {"content": "hello"}})
        case "prints and hangs":
            say(b"panic: out of cheese\n")
            time.sleep(60)
        case "leaves children":
            subprocess.Popen(SLEEP)
            subprocess.Popen(SLEEP, start_new_session=True)
            subprocess.Popen(["/bin/sh", "-c", f"'{SLEEP[0]}' -c 'import time; time.sleep(60)' & sleep 60"])
            say({"id": number, "result": text("they live")})
        case "loud":
            for _ in range(200):
                sys.stderr.buffer.write(b"e" * 10_000 + b"\n")
            say({"id": number, "result": text("quiet")})
        case "closes":
            os.close(1)
            time.sleep(60)
        case _:
            say({"id": number, "result": text("well")})


def listed() -> list[dict[str, Any]]:
    tool: dict[str, Any] = {"name": "work", "description": "Works.", "inputSchema": {"type": "object"}}
    if HOW == "slow pattern":  # to check a result by it would take for ever
        tool["outputSchema"] = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    return [tool]


def main() -> None:
    early()
    for line in sys.stdin:
        message = json.loads(line)
        method, number = message.get("method"), message.get("id")
        if number is None or method is None:
            continue
        if method == "server/discover":
            if HOW == "fragile":
                sys.exit(1)
            say({"id": number, "error": {"code": -32601, "message": "unknown"}})
        elif method == "initialize":
            version = "1999-01-01" if HOW == "version" else "2025-11-25"
            capabilities: dict[str, Any] = {"tools": {}}
            info = {"name": "bad", "version": "0"}
            result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}
            say({"id": number, "result": result})
        elif method == "tools/list" and HOW == "lies":
            say({"id": number, "error": {"code": -32601, "message": "I have no tools"}})
        elif method == "tools/list" and HOW == "more and more":
            say({"id": number, "result": {"tools": listed(), "nextCursor": "again"}})
        elif method == "tools/list" and HOW == "no list":
            say({"id": number, "result": {"tools": [{"name": 3}]}})
        elif method == "tools/list" and HOW == "many wrong tools":
            say({"id": number, "result": {"tools": [3] * 1_000_000}})
        elif method == "tools/list":
            say({"id": number, "result": {"tools": listed()}})
        elif method == "tools/call" and HOW == "slow pattern":
            say({"id": number, "result": {**text("well"), "structuredContent": {"a": "a" * 40 + "!"}}})
        elif method == "tools/call":
            work(number)


main()
