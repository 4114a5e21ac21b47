"""Look inside: a reply token by token and what was before the model; beside them what `looks` shows of models alone.

An address shows something and begins nothing. Models are opened and asked in threads; each look has a session of its
own. A branch with another token is a new version of the conversation: what there was stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nicegui import context, ui
from nicegui.element import Element

from twofile.errors import KernelError, TwofileError
from twofile.kernel.page import Page
from twofile.serve.pages.desk import Desk
from twofile.serve.pages.frame import ago, framed, guarded, in_thread
from twofile.serve.pages.inspection import (
    Choice,
    Expected,
    Reply,
    choices,
    replies,
    reply_of,
    shown,
    visible,
)
from twofile.serve.pages.looks import Dream, Files, Surprise, Tokens, bar, figures, legend, share
from twofile.serve.pages.parts import Field, button, el, link, words

__all__ = ["add"]

_TABS = {
    "reply": ("Reply", "A reply, token by token", "How likely each token was, and what could have come in its place."),
    "prompt": ("Prompt", "What the model saw", "All that was before the model when it replied, token by token."),
    "files": ("Two files", "The two files", "A model is two files: its parameters, and the program that runs them."),
    "dream": ("Dream", "Dream", "A model that is asked nothing writes what it takes the world of its texts to be."),
    "surprise": (
        "Surprise",
        "Surprise",
        "What a model foresees need not be told it; what it does not is counted in bits.",
    ),
}
_LEVELS = (
    (0.9, "90% or more"),
    (0.6, "60% to 90%"),
    (0.3, "30% to 60%"),
    (0.1, "10% to 30%"),
    (0.01, "1% to 10%"),
    (0.0, "less than 1%"),
)
_SHOWN = 8000  # tokens of a prompt before its middle is folded
_PAGES = 50  # that are named
_KINDS = {
    "system": "the system's words", "pinned": "pinned", "tools": "the tools", "summary": "a summary of what is out",
    "recalled": "brought back", "stub": "results that left stubs", "user": "the user", "assistant": "the model",
    "tool": "results of tools", "marks": "the template's own marks",
}  # fmt: skip


def add(desk: Desk) -> None:
    """Make the page known."""

    @ui.page("/inside", title="Inside - twofile")
    def page(process: int | None = None, reply: int | None = None, show: str = "reply") -> None:
        _Inside(desk, process, reply, show if show in _TABS else "reply")


class _Inside:
    """One open page."""

    def __init__(self, desk: Desk, pid: int | None, seq: int | None, show: str) -> None:
        self.desk, self.pid, self.seq = desk, pid, seq
        self.client = context.client
        self.reply: Reply | None = None
        self.found: list[Choice] = []
        self._made: set[str] = set()
        with framed("/inside", "plain inside"):
            with el("div", "stack"):
                el("h1", text="Inside")
                with el("div", "tabs", role="tablist", aria_label="What to look at"):
                    self._tabs = {name: self._tab(name, title) for name, (title, _, _) in _TABS.items()}
            self.choosing = el("div", "choosing")
            self._panels = {
                name: el("section", "stack panel", role="tabpanel", aria_labelledby=f"tab-{name}") for name in _TABS
            }
            for name, panel in self._panels.items():
                panel.props["id"] = f"panel-{name}"
        self._choose_conversation()
        self._open(show)
        if pid is not None:
            ui.timer(0.02, self._load, once=True)

    def _tab(self, name: str, title: str) -> Element:
        tab = button(title, lambda: self._open(name), "tab", role="tab", aria_controls=f"panel-{name}")
        tab.props["id"] = f"tab-{name}"
        return tab

    def _open(self, name: str) -> None:
        """Show one of the panels, made when it is first shown."""
        for other, tab in self._tabs.items():
            tab.props["aria-selected"] = "true" if other == name else "false"
            panel = self._panels[other]
            if other == name:
                panel.props.pop("hidden", None)
            else:
                panel.props["hidden"] = ""
            tab.update()
            panel.update()
        if name in ("reply", "prompt"):
            self.choosing.props.pop("hidden", None)
        else:
            self.choosing.props["hidden"] = ""
        self.choosing.update()
        if name not in self._made:
            self._made.add(name)
            self._fill(name)

    def _fill(self, name: str) -> None:
        panel = self._panels[name]
        _, title, about = _TABS[name]
        panel.clear()
        with panel:
            with el("div"):
                el("h2", text=title)
                words(about, "soft")
            match name:
                case "files":
                    Files(self.desk)
                case "dream":
                    Dream(self.desk)
                case "surprise":
                    Surprise(self.desk)
                case _ if self.pid is None:
                    self._nothing()
                case _ if self.reply is None:
                    words("Reading…", "soft", role="status")
                case "reply":
                    self._tokens(self.reply)
                case "prompt":
                    self._prompt(self.reply)

    # Which reply.

    def _choose_conversation(self) -> None:
        known = self.desk.conversations.all()
        options = {str(one.last): one.title or "Nothing said yet" for one in known}
        events = []
        if self.pid is not None:
            try:
                family = self.desk.conversations.family(self.pid)
                title = next((one.title for one in known if one.root in family), "")
                options = {str(self.pid): title or f"Process {self.pid}"} | {
                    str(one.last): one.title for one in known if one.root not in family
                }
                events = replies(self.desk.kernel.log.events(self.pid))
            except KernelError:
                self.pid, options = None, {"": "Choose one"} | options
        else:
            options = {"": "Choose one"} | options
        now = "" if self.pid is None else str(self.pid)
        with self.choosing:
            Field("Conversation", now, self._go, "select", options)
            if events:
                known_seqs = {str(event.seq): _start(event.body) for event in events}
                last = str(self.seq) if str(self.seq) in known_seqs else str(events[-1].seq)
                Field("Reply", last, lambda seq: self._go(self.pid, seq), "select", known_seqs)

    def _go(self, pid: Any, seq: str = "") -> None:
        where = f"?process={int(pid)}" if pid else ""
        ui.navigate.to(f"/inside{where}{f'&reply={int(seq)}' if seq else ''}")

    def _nothing(self) -> None:
        known = self.desk.conversations.all()[:6]
        words("Choose a conversation: what the model said in it is read again, token by token." if known else
              "Nothing has been said yet. Talk to a model first; what it says can then be looked at here.")  # fmt: skip
        with el("div", "grid"):
            for one in known:
                with link("", f"/inside?process={one.last}", "card pick"):
                    el("span", "said", one.title or "Nothing said yet")
                    el("span", "small soft", ago(one.at))
            if not known:
                link("Say something", "/", "button primary")

    async def _load(self) -> None:
        """Read a reply again."""
        try:
            reply = await in_thread(reply_of, self.desk.kernel, self.desk.box.driver, self.pid, self.seq)
            self.found = await in_thread(choices, reply.image.engine, reply.frame.ids, reply.ids)
            self.reply = reply
        except (TwofileError, OSError, ValueError) as error:
            for name in ("reply", "prompt"):
                if not self._panels[name].is_deleted:
                    self._panels[name].clear()
                    with self._panels[name]:
                        words(f"This cannot be shown: {error}.", "empty", role="alert")
            self._made |= {"reply", "prompt"}
            return
        if self.choosing.is_deleted:
            return
        for name in ("reply", "prompt"):
            if name in self._made:
                self._fill(name)

    # A reply.

    def _tokens(self, reply: Reply) -> None:
        found = self.found
        if not found:
            words("This reply has no tokens.", "empty")
            return
        bits = sum(one.bits for one in found)
        worst = min(range(len(found)), key=lambda i: found[i].probability)
        first = sum(one.rank == 0 for one in found)
        figures(
            {
                "said by": Path(reply.view.model).stem + (" with an adapter" if reply.view.adapter else ""),
                "tokens": f"{len(found):,}",
                "bits a token": f"{bits / len(found):.2f}",
                "the model's first choice": share(first / len(found)),
                "least expected": f"“{visible(found[worst].text)}”, {share(found[worst].probability)}",
            }
        )
        legend("Probability", [name for _, name in _LEVELS])
        if reply.source == "template":
            words("This reply called a tool: the call is shown as the chat template writes it.", "soft small")
        elif reply.source == "text":
            words("Which tokens were chosen was not kept: these are those of the text.", "soft small")
        if len(found) < len(reply.ids):
            words(f"The last {len(found):,} of {len(reply.ids):,} tokens.", "soft small")
        with el("div", "split"):
            shown_tokens = [[one.text, _kind(one), _said(one)] for one in found]
            label = "Tokens of the reply: the arrow keys go from one to the next"
            with el("div", "card"):
                Tokens(shown_tokens, label, lambda i: self._detail(reply, i), worst)
            self.detail = el("div", "card stack detail", role="region", aria_label="The chosen token")
        self._detail(reply, worst)

    def _detail(self, reply: Reply, index: int) -> None:
        """What the model could have said in the place of a token."""
        if not 0 <= index < len(self.found):
            return
        one = self.found[index]
        place = len(reply.ids) - len(self.found) + index
        control = set(reply.image.engine.control_tokens.values())
        open_ = reply.source != "template" or not control & set(reply.ids[:place])
        self.detail.clear()
        with self.detail:
            with el("div", "row"):
                el("h2", "mono said", visible(one.text))
                el("span", "soft small", f"token {index + 1} of {len(self.found)}, number {one.token}")
            figures(
                {
                    "probability": share(one.probability),
                    "rank": f"{one.rank + 1} of {reply.image.engine.vocab_size:,}",
                    "bits": f"{one.bits:.2f}",
                    "entropy, bits": f"{one.entropy:.2f}",
                }
            )
            el("h3", text="What could have come here")
            with el("ol", "alternatives"):
                for other in one.top:
                    self._alternative(reply, place, other, other.token == one.token, open_)
                if one.token not in [other.token for other in one.top]:
                    self._alternative(reply, place, Expected(one.token, one.text, one.probability, False), True, open_)
            words("A branch is a new version of the conversation; what there was stays.", "soft small")

    def _alternative(self, reply: Reply, place: int, other: Expected, said: bool, open_: bool) -> None:
        with el("li", "said-here" if said else ""):
            bar(visible(other.text), other.probability, share(other.probability))
            if said:
                el("span", "tag", "said")
            elif other.plain and open_:
                label = f"Branch here with “{visible(other.text)}”"
                button("Branch", lambda: self._branch(reply, place, other.token), "tiny", aria_label=label, title=label)
            else:
                el("span", "soft small", "control" if not other.plain else "")

    @guarded
    async def _branch(self, reply: Reply, place: int, token: int) -> None:
        branch = await in_thread(self.desk.fork, reply.pid, reply.upto)
        begun = [*reply.ids[:place], token]
        self.desk.turns.begin(branch, lambda approve: branch.go_on(approve, reply.sampling, begun=begun))
        ui.navigate.to(f"/chat/{branch.pid}")

    # A prompt.

    def _prompt(self, reply: Reply) -> None:
        frame, n = reply.frame, len(reply.frame.ids)
        with el("div", "row"):
            if reply.exact:
                el("span", "tag good", f"exactly as then: {n:,} tokens were read")
            elif reply.then is None:
                el("span", "tag", "how many tokens were read then is not known")
            else:
                el("span", "tag warn", f"made again from the log: {n:,} tokens, {reply.then:,} were read then")
            pages = f"pages: {len(frame.resident)} in, {len(frame.out)} out, {len(reply.view.cards)} pinned"
            el(
                "span",
                "soft small",
                f"{n:,} of a window of {reply.window:,} tokens ({share(n / reply.window)}) · {pages}",
            )
        self._segments(reply)
        engine = reply.image.engine
        control = set(engine.control_tokens.values())

        def tokens(ids: list[int]) -> list[list[str]]:
            return [
                [shown(engine, token), "control" if token in control else ("odd" if i % 2 else "even"), str(token)]
                for i, token in enumerate(ids)
            ]

        with el("div", "card stack") as box:
            el("h3", text="The prompt")
            if n <= _SHOWN:
                Tokens(tokens(frame.ids), "The prompt, token by token")
            else:
                half = _SHOWN // 2
                Tokens(tokens(frame.ids[:half]), "The beginning of the prompt, token by token")

                @guarded
                async def all_() -> None:
                    found = await in_thread(tokens, frame.ids)
                    box.clear()
                    with box:
                        el("h3", text="The prompt")
                        Tokens(found, "The prompt, token by token")

                button(f"Show all {n:,} tokens: {n - _SHOWN:,} are folded here", all_, "tiny")
                Tokens(tokens(frame.ids[-half:]), "The end of the prompt, token by token")
        _pages("Pinned: always before the model", reply.view.cards)
        out = set(frame.out)
        _pages("Out of the window", [page for turn in reply.view.turns for page in turn.pages if page.name in out])

    def _segments(self, reply: Reply) -> None:
        """What the tokens are for, as a bar."""
        parts = [(one.kind, one.name, reply.tools if one.kind == "tools" else one.size) for one in reply.frame.segments]
        rest = len(reply.frame.ids) - sum(size for _, _, size in parts)
        parts += [("marks", "", rest)] if rest > 0 else []
        whole, sums = max(1, sum(size for _, _, size in parts)), dict[str, int]()
        for kind, _, size in parts:
            sums[kind] = sums.get(kind, 0) + size
        told = ", ".join(f"{_KINDS.get(kind, kind)} {share(size / whole)}" for kind, size in sums.items())
        with el("figure", "stack parts-of"):
            with el("div", "stacked", role="img", aria_label=f"What the tokens are for: {told}"):
                for kind, name, size in parts:
                    if size:
                        about = f"{_KINDS.get(kind, kind)} {name}: {size:,} tokens"
                        el("span", f"of-{kind}", title=about).style(f"flex-grow: {size}")
            with el("ul", "legend"):
                for kind, size in sums.items():
                    with el("li"):
                        el("span", f"swatch of-{kind}", aria_hidden="true")
                        el("span", text=f"{_KINDS.get(kind, kind)}: {size:,} ({share(size / whole)})")


def _start(body: Any) -> str:
    """The first words of a reply, for a list."""
    text = " ".join(str(body["text"]).split())
    called = ", ".join(str(call["name"]) for call in body.get("calls") or ())
    return text[:70] or (f"calls {called}" if called else "said nothing")


def _kind(one: Choice) -> str:
    level = next(i for i, (least, _) in enumerate(_LEVELS) if one.probability >= least)
    return f"p{level}{' control' if one.control else ''}"


def _said(one: Choice) -> str:
    place = "first choice" if one.rank == 0 else f"choice {one.rank + 1:,}"
    return f"{share(one.probability)}, {place}"


def _pages(title: str, pages: list[Page]) -> None:
    if not pages:
        return
    with el("details", "card"):
        el("summary", text=f"{title} ({len(pages)})")
        with el("ul", "pages"):
            for page in pages[:_PAGES]:
                with el("li"):
                    el("span", "tag", f"{page.name} {page.role}")
                    el("span", "said", f" {page.text.strip()[:300]}")
            if len(pages) > _PAGES:
                el("li", "soft", f"and {len(pages) - _PAGES} more")
