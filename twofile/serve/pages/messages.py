"""The messages of a conversation as elements: what a user said, replies with their tools, and a reply under way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui
from nicegui.element import Element

from twofile.kernel.capability import leads_out
from twofile.kernel.conversations import Version
from twofile.kernel.log import Event
from twofile.kernel.process import Answer, Asking
from twofile.serve.pages import turns
from twofile.serve.pages.markup import plain_of
from twofile.serve.pages.parts import Field, Live, Markup, button, el, link, words

__all__ = ["Actions", "Exchange", "LiveReply", "exchanges", "reply", "user"]

_SHOWN = 20_000  # characters of a tool's output
_MOMENT = 0.5  # seconds until a question can be answered


@dataclass(frozen=True)
class Actions:
    """What can be done with a message; each gets what it is done to."""

    edit: Callable[[Event, str], Any]
    again: Callable[[Event], Any]
    branch: Callable[[Event], Any]
    pin: Callable[[str, Event], Any]
    bad: Callable[[Event], Any]
    show: Callable[[int], Any]


@dataclass
class Exchange:
    """A user's event, and the events of the reply to it."""

    user: Event
    reply: list[Event]

    @property
    def whole(self) -> bool:
        """Whether the reply came to its end: its last word is the assistant's, and calls nothing."""
        last = self.reply[-1] if self.reply else None
        return last is not None and last.kind == "assistant" and not last.body.get("calls")


def exchanges(events: Sequence[Event]) -> list[Exchange]:
    """The events of a process by what was said and answered."""
    found: list[Exchange] = []
    for event in events:
        if event.kind == "user":
            found.append(Exchange(event, []))
        elif event.kind in ("assistant", "result") and found:
            found[-1].reply.append(event)
    return found


def user(event: Event | None, body: Mapping[str, Any], versions: Sequence[Version], actions: Actions | None) -> Element:
    """What a user said; without `actions` while it is on its way into the log."""
    shown = body.get("shown") or {}
    text = str(shown.get("text", body["text"]))
    with el("article", "message user" if event else "message user passing", aria_label="You") as made:
        with el("div", "bubble"):
            _files(shown.get("files", ()))
            if text:
                el("div", "said", text)
        if event is not None and actions is not None:
            with el("div", "acts") as acts:
                _versions(event.seq, versions, actions)
                button("Copy", None, "quiet tiny", data_copy=text or " ")
                last = {"data_key": "alt+e"}
                button("Edit", lambda: _editing(made, acts, text, event, actions), "quiet tiny edit", **last)
                button("Pin", lambda: actions.pin(text, event), "quiet tiny", title="Keep it before the model")
    return made


def _editing(made: Element, acts: Element, text: str, event: Event, actions: Actions) -> None:
    if not acts.visible:
        return  # it is being edited
    acts.set_visibility(False)
    with made, el("div", "editing stack") as box:
        field = Field("Your message", text, kind="textarea", rows="4", at_once=True, autofocus=True)
        with el("div", "row end"):

            def cancel() -> None:
                box.delete()
                acts.set_visibility(True)

            button("Cancel", cancel, "tiny")
            button("Send", lambda: actions.edit(event, field.value), "primary tiny", data_key="ctrl+enter")


def _files(files: Sequence[Mapping[str, Any]]) -> None:
    for file in files:
        if file.get("picture"):
            el("img", "attached", src=f"/kept/{file['picture']}", alt=str(file["name"]))
        else:
            el("span", "chip", f"▤ {file['name']}")


def _versions(seq: int, versions: Sequence[Version], actions: Actions) -> None:
    """Which of the versions of a message this is, and the way to the others."""
    if len(versions) < 2:
        return
    at = next((i for i, one in enumerate(versions) if one.seq == seq), 0)
    with el("span", "versions", role="group", aria_label="Versions"):
        before, after = versions[max(0, at - 1)], versions[min(len(versions) - 1, at + 1)]
        button("‹", lambda: actions.show(before.process), "quiet tiny", aria_label="Earlier version", disabled=at == 0)
        el("span", "small soft", f"{at + 1} of {len(versions)}")
        last = at == len(versions) - 1
        button("›", lambda: actions.show(after.process), "quiet tiny", aria_label="Later version", disabled=last)


def reply(
    exchange: Exchange,
    versions: Sequence[Version],
    actions: Actions,
    process: int,
    html: Mapping[str, Sequence[tuple[bool, str]]],
) -> Element:
    """A reply: its words, what its tools did, how fast it came, and what can be done with it. `html`: of each of its
    texts the parts, each with whether it is thinking."""
    results = {event.body["call"]: event.body for event in exchange.reply if event.kind == "result"}
    said = [event for event in exchange.reply if event.kind == "assistant"]
    with el("article", "message reply", aria_label="Reply") as made:
        for event in said:
            for thinking, part in html.get(str(event.body["text"]), ()):
                _words(thinking, part)
            for call in event.body.get("calls", ()):
                tool(call, results.get(call["id"]))
        if said:
            _footer(exchange, said, versions, actions, process)
    return made


def _words(thinking: bool, html: str) -> None:
    if thinking:
        with el("details", "thought"):
            el("summary", text="Thought")
            Markup(html)
    else:
        Markup(html)


def tool(call: Mapping[str, Any], result: Mapping[str, Any] | None) -> Element:
    """A call and what it gave, folded."""
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    state = "running" if result is None else "failed" if result.get("error") else "done"
    with el("details", f"tool {state}", open=state != "done" or bool(result and result.get("images"))) as made:
        with el("summary"):
            el("span", "name", str(call["name"]))
            el("span", "arguments mono soft", arguments[:200])
            kind = {"running": "", "failed": "bad", "done": "good"}[state]
            seconds = "" if result is None else f" in {result.get('seconds', 0):.2g} s"
            el("span", f"tag {kind}", f"{state}{seconds}")
        el("div", "small soft", "Arguments")
        Markup(plain_of(json.dumps(call["arguments"], ensure_ascii=False, indent=2)))
        if result is not None:
            el("div", "small soft", "It gave")
            text = str(result["text"])
            more = f"\n[{len(text) - _SHOWN:,} more characters]" if len(text) > _SHOWN else ""
            Markup(plain_of(text[:_SHOWN] + more), "output")
            for picture in result.get("images", ()):
                el("img", "seen", src=f"/kept/{picture['name']}", alt=str(picture.get("about") or "a picture"))
    return made


def _footer(
    exchange: Exchange, said: Sequence[Event], versions: Sequence[Version], actions: Actions, process: int
) -> None:
    last, text = said[-1], "\n\n".join(str(event.body["text"]) for event in said if event.body["text"])
    with el("div", "acts"):
        _versions(said[0].seq, versions, actions)
        button("Copy", None, "quiet tiny", data_copy=text or " ", data_key="alt+c")
        button(
            "Again", lambda: actions.again(exchange.user), "quiet tiny", title="Make it again (Alt+R)", data_key="alt+r"
        )
        button("Branch", lambda: actions.branch(last), "quiet tiny", title="Go another way from here")
        link("Inside", f"/inside?process={process}&reply={last.seq}", "button quiet tiny", title="Token by token")
        button("Pin", lambda: actions.pin(text, last), "quiet tiny", title="Keep it before the model")
        button("Bad", lambda: actions.bad(last), "quiet tiny", title="Mark it, to be corrected on the label page")
        el("span", "pace small soft", _pace(said))


def _pace(said: Sequence[Event]) -> str:
    """How fast a reply came, over all of its rounds."""
    body = said[-1].body
    written = sum(event.body.get("usage", {}).get("written", 0) for event in said)
    pace = [event.body.get("pace", {}) for event in said]
    writing = sum(one.get("seconds", 0) - one.get("first", 0) for one in pace)
    parts = []
    if written > 1 and writing > 0:
        parts.append(f"{written / writing:,.0f} tokens/s")
    if first := pace[0].get("first"):
        parts.append(f"first after {first:.2f} s")
    if usage := body.get("usage"):
        parts.append(f"{written} tokens, read {usage['read'] - usage['reused']} of {usage['read']}")
    if body.get("reason") == "stopped":
        parts.append("stopped")
    if body.get("reason") == "length":
        parts.append("cut: the room for a reply is full")
    return " · ".join(parts)


class LiveReply:
    """A reply under way, as far as it has come; `update` shows what is new."""

    def __init__(self, turn: turns.Live) -> None:
        self.turn = turn
        self._shown = 0
        self._card: Element | None = None
        self._call: Mapping[str, Any] = {}
        self._asked: Asking | None = None
        self.element = el("article", "message reply live-reply", aria_label="Reply under way", aria_busy="true")
        with self.element:
            self._parts = el("div", "parts")
            self._wait = el("div", "waiting", "…", role="status", aria_label="Waiting for the model")
            self._question = el("div")

    def update(self) -> None:
        """Show what has come since."""
        turn = self.turn
        with self._parts:
            for number in range(self._shown, len(turn.parts)):
                part = turn.parts[number]
                if part.kind == "text":
                    Live(f"/live/{turn.process.pid}/{number}")
                elif part.kind == "call":
                    self._call = part.body
                    self._card = tool(part.body, None)
                else:
                    if self._card is not None:
                        self._card.delete()
                    known = self._call if self._card is not None else {"name": part.body["name"], "arguments": {}}
                    self._card = None
                    tool(known, part.body)
        self._shown = len(turn.parts)
        self._wait.set_visibility(not turn.parts or turn.parts[-1].kind != "text")
        if turn.asking is not self._asked:
            self._asked = turn.asking
            self._question.clear()
            if turn.asking is not None:
                with self._question:
                    _question(turn.asking, turn.answer)


def _question(asking: Asking, answer: Callable[[Asking, Answer], Any]) -> None:
    """May this call be made? All of it is shown. The buttons work after a moment: a second click on those of another
    question is no answer to this one."""
    with el("section", "question", role="alertdialog", aria_label=f"May {asking.tool} do this?"):
        el("h3", text=f"May {asking.tool} do this?")
        words("It needs this right, and would do this with it:")
        Markup(plain_of(asking.capability))
        Markup(plain_of(json.dumps(dict(asking.arguments), ensure_ascii=False, indent=2)))
        if asking.before.private and not asking.before.trusted and leads_out(asking.capability):
            words("Beware: something private and something from elsewhere are both before the model.", "tag warn")
        buttons: list[Element] = []
        with el("div", "row"):
            for text, given, classes in (
                ("Once", Answer("allow", "once"), "primary"),
                ("In this conversation", Answer("allow", "process"), ""),
                ("Always", Answer("allow", "always"), ""),
                ("No", Answer("deny", "once"), "danger"),
            ):
                buttons.append(button(text, lambda given=given: answer(asking, given), classes, disabled=True))

        def awake() -> None:
            for one in buttons:
                one.props.pop("disabled", None)
                one.update()

        ui.timer(_MOMENT, awake, once=True)
