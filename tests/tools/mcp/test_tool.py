"""What a server's tool gives, as parts."""

from __future__ import annotations

from typing import Any

import pytest

from twofile.kernel.driver import Context, run_driver
from twofile.tools.mcp.definition import Definition
from twofile.tools.mcp.tool import RemoteTool

pytest.importorskip("mcp", reason="mcp is not installed")


def given(*content: dict[str, Any], **more: Any) -> Any:
    """What comes of a call that gives this."""
    from mcp_types import CallToolResult

    result = CallToolResult.model_validate({"content": list(content), **more})
    driver = RemoteTool(Definition("s", "t", "", {"type": "object"}), lambda *_: result)
    return run_driver(driver, {}, Context(1, 1e12))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}, "[sound from s.t: audio/wav, about 3 bytes]"),
        ({"type": "resource_link", "name": "n", "uri": "file:///a\u202e"}, "[n: file:///a\\u{202e}]"),
        ({"type": "resource", "resource": {"uri": "a://b", "text": "hello"}}, "hello"),
        ({"type": "resource", "resource": {"uri": "a://b", "blob": "AAAA"}}, "[a file from s.t: a://b]"),
        ({"type": "image", "data": "!!!", "mimeType": "image/png"}, "[a picture from s.t that cannot be read]"),
        ({"type": "image", "data": "AAAA", "mimeType": "text/html"}, "[something from s.t that is no picture: text/html]"),
        ({"type": "image", "data": "AAAA", "mimeType": "image/png"}, "[image: a picture from s.t]"),
    ],
)  # fmt: skip
def test_parts(block: dict[str, Any], said: str) -> None:
    assert given(block).text == said


def test_texts_are_apart() -> None:
    assert given({"type": "text", "text": "a"}, {"type": "text", "text": "b"}).text == "a\nb"


def test_what_is_structured_is_given_where_there_is_nothing_else() -> None:
    assert given(structuredContent={"a": [1, "ü"]}).text == '{"a": [1, "ü"]}'
    assert given({"type": "text", "text": "a"}, structuredContent={"b": 1}).text == "a"


@pytest.mark.parametrize(("content", "says"), [([{"type": "text", "text": "no such file"}], "no such file"), ([], "why")])
def test_an_error_of_the_tool(content: list[dict[str, Any]], says: str) -> None:
    outcome = given(*content, isError=True)
    assert outcome.error
    assert says in outcome.text
    assert "the tool failed" not in outcome.text
