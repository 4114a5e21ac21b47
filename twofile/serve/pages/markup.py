"""Placeholder until the real one is written."""
from html import escape
def html_of(text: str) -> str:
    return f"<p>{escape(text)}</p>"
def think_parts(text: str) -> list[tuple[bool, str]]:
    return [(False, text)]
class Blocks:
    tail = ""
    def feed(self, text: str) -> str:
        self.tail += text
        return ""
