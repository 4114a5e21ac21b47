"""`twofile chat`: a conversation in a terminal, or line by line from a file.

With a model that has a chat template it is a process of the kernel (`Talk`): kept in a log, with tools where some are
given, gone on with by --process. A base model continues a text (`Text`), which is as long as the session.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from twofile.cli.console import lines, note, stream
from twofile.cli.options import draft_option, engine_options, find, open_draft, open_engine, sampling_options
from twofile.cli.processes import kernel_of, log_option, log_path, opening, window_option
from twofile.cli.run import speed
from twofile.cli.tools import names_of
from twofile.errors import ContextError, KernelError, TwofileError

if TYPE_CHECKING:
    from twofile.engine.draft import Draft
    from twofile.engine.engine import Engine
    from twofile.engine.generate import Piece
    from twofile.kernel.kernel import Kernel
    from twofile.kernel.process import Answer, Asking, Process, Said

HELP = """\
/help           this
/reset          forget what was said and start again
/system TEXT    instructions for the model (starts again); without TEXT: show them
/save FILE      write the conversation to FILE (.json: as messages)
/pin TEXT       keep TEXT before the model, however long it gets; without TEXT: show what is kept
/unpin NUMBER   no longer
/bad WHY        mark the last reply: twofile label lets you correct it, twofile tune learns it
/quit           leave; so does Ctrl-D
Ctrl-C stops a reply. With a base model an empty line goes on with the text."""


class Conversation(Protocol):
    """What the commands of a chat work on. `system` None: it takes no instructions."""

    system: str | None

    def say(self, line: str) -> None:
        """Say a line, and show what comes."""

    def reset(self) -> None:
        """Start again, with `system`."""

    def transcript(self, as_json: bool) -> str:
        """What was said."""

    def messages(self) -> list[dict[str, Any]]:
        """The same as messages; a base model's text has none."""


class Text:
    """A base model's text so far, and a session that has read it. It is rendered to tokens again for each line, and the
    session rewinds to what it has in common with them, so only what is new is read."""

    def __init__(self, engine: Engine, sampling: Any, max_tokens: int | None, draft: Draft | None = None) -> None:
        self.engine, self.sampling, self.max_tokens, self.draft = engine, sampling, max_tokens, draft
        self.system: str | None = None
        self.session = engine.session()
        self.text = ""
        self.ended = False  # the model has ended it
        self.read = 0  # tokens that the session had to read for the last line

    def reset(self) -> None:
        self.text, self.ended = "", False

    def go_on(self, line: str) -> Iterator[Piece]:
        """Add a line and yield what follows; what came is kept also when the caller stops in between.

        Raises ContextError, with nothing changed, when there is no room for it."""
        from twofile.engine.generate import generate

        before = (self.text, self.ended)
        if self.ended:
            self.reset()
        glue = " " if self.text and line and not self.text[-1].isspace() and not line[0].isspace() else ""
        self.text += glue + line
        try:
            tokens = self.engine.prompt(self.text)
            if len(tokens) >= self.engine.context_length:
                raise ContextError(f"{len(tokens)} tokens leave no room for a reply")
            kept = self.session.keep_common(tokens)
            self.read = len(tokens) - kept
            pieces = generate(self.session, tokens[kept:], self.sampling, self.max_tokens, draft=self.draft)
        except TwofileError:
            self.text, self.ended = before
            raise
        for piece in pieces:
            self.text += piece.text
            self.ended = piece.finish == "end"
            yield piece

    def say(self, line: str) -> None:
        if not line and not self.text:
            return note("type the beginning of a text")
        before = time.perf_counter()
        first, count, piece = 0.0, 0, None
        try:
            for piece in self.go_on(line):
                first = first or time.perf_counter()
                count += 1
                stream(piece.text)
            click.echo()
        except KeyboardInterrupt:
            click.echo()
            note("(stopped)")
        except ContextError as error:
            return note(f"{error.message}: {self._full()}")
        if count:
            note(speed(count, self.read, first - before, time.perf_counter() - first))
        if piece is not None and piece.finish == "length" and self.session.room == 0:
            note(self._full())
        elif self.ended:
            note("(the end; what you type next begins a new text)")
        return None

    def _full(self) -> str:
        room = self.engine.context_length
        return f"the context of {room} tokens is full. /save keeps what was said, /reset starts again."

    def transcript(self, as_json: bool) -> str:
        return json.dumps({"text": self.text}, ensure_ascii=False, indent=2) + "\n" if as_json else self.text + "\n"

    def messages(self) -> list[dict[str, Any]]:
        return []


class Talk:
    """A conversation in a process; starting again begins another."""

    def __init__(self, kernel: Kernel, process: Process, sampling: Any) -> None:
        self.kernel, self.process, self.sampling = kernel, process, sampling
        self.system: str | None = process.view.system

    def reset(self) -> None:
        view = self.process.view
        how: dict[str, Any] = {"adapter": view.adapter, "budget": self.process.budget, "window": view.window}
        self.process = self.kernel.spawn(view.model, self.system or "", view.tools, view.limit, **how)
        self.begun()

    def begun(self) -> None:
        """Say which process it is."""
        note(f"process {self.process.pid}; twofile chat --process {self.process.pid} goes on with it")

    def go_on(self) -> None:
        """Finish what an earlier chat was stopped in, and show where it was."""
        for message in self.messages()[-2:]:
            note(f"{message['role']}: {message['content']}")
        self._show(self.process.go_on(_approve, self.sampling))

    def say(self, line: str) -> None:
        if line:
            self._show(self.process.say(line, _approve, self.sampling))

    def _show(self, said: Generator[Said, None, None]) -> None:
        start, first = time.perf_counter(), 0.0
        try:
            for one in said:
                first = first or time.perf_counter()
                if one.kind == "text":
                    stream(one.text)
                elif one.kind == "call":
                    note(f"[{one.body['name']} {json.dumps(one.body['arguments'], ensure_ascii=False)}]")
                elif one.kind == "result":
                    note(f"[-> {one.text[:500]}]")
                    for picture in one.body.get("images", ()):
                        note(f"[{self.kernel.log.kept(picture['name'])}: {picture['about']}]")
                else:
                    click.echo()
                    if usage := one.body["usage"]:
                        read = usage["read"] - usage["reused"]
                        note(speed(usage["written"], read, first - start, time.perf_counter() - first))
                    if one.body["reason"] == "length":
                        note(f"(cut after {usage['written']} tokens; -n allows more, as far as the window does)")
        except KeyboardInterrupt:
            said.close()
            click.echo()
            return note("(stopped)")
        if first and (out := self.process.frame().out):
            note(f"({len(out)} earlier pages are out of the window; what fits is brought back)")
        return None

    def transcript(self, as_json: bool) -> str:
        messages = self.messages()
        if as_json:
            return json.dumps(messages, ensure_ascii=False, indent=2) + "\n"
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages) + "\n"

    def messages(self) -> list[dict[str, Any]]:
        return self.process.look().messages()


@click.command("chat")
@click.argument("name", required=False)
@click.option("-n", "--tokens", type=click.IntRange(1), help="At most so many tokens a reply.")
@sampling_options
@click.option("--system", help="Instructions for a chat model.")
@click.option("--tools", help="Tools that it has, with commas between: calculator, search, ... (twofile tools).")
@click.option(
    "--allow", multiple=True, metavar="CAPABILITY", help="What it may be granted: net:HOST, fs:read:PATH, ..."
)
@window_option
@click.option("--process", "pid", type=click.IntRange(1), help="Go on with this process.")
@log_option
@draft_option
@engine_options
def chat_command(
    name: str | None,
    tokens: int | None,
    sampling: Any,
    system: str | None,
    tools: str | None,
    allow: tuple[str, ...],
    window: int | None,
    pid: int | None,
    path: Path | None,
    draft: str | None,
    how: dict[str, Any],
) -> None:
    """Talk with the model NAME (the bundled one if none is named).

    A model with a chat template answers, in a process that is kept: what it wants to do is asked for, and --process
    goes on with it. A base model continues your text. With no terminal on stdin, each line that comes is a message.
    /help lists what else can be typed.
    """
    from twofile.kernel.process import Budget

    frame: dict[str, Any] = {"window": window}
    if tokens is not None:
        frame["budget"] = Budget(reserve=tokens)
    of_processes = {"--system": system, "--tools": tools, "--allow": allow, "--window": window}
    if pid is not None:
        fixed = {"NAME": name, **of_processes, "--adapter": how["adapter"], "--draft": draft}
        for option, value in fixed.items():
            if value and option != "--window":
                raise click.UsageError(f"a process has its own {option}: leave it out, or begin another")
        if not log_path(path).exists():
            raise KernelError(f"there is no process {pid}", "twofile chat MODEL begins one")
        with kernel_of(path, lambda model, adapter: opening(model, adapter, how), pid=pid) as kernel:
            talk = Talk(kernel, kernel.open(pid, **frame), sampling)
            talk.go_on()
            return _converse(talk)
    name = name or "assistant"
    model = str(find(name))
    with open_engine(model, how) as engine:
        if engine.backend.text("tokenizer.chat_template") is None:
            for option, value in of_processes.items():
                if value:
                    raise click.UsageError(f"{name} has no chat template, so it takes no {option}")
            with open_draft(draft, engine, how) as guesser:
                note(f"{name}: this is a base model: it continues your text. /help lists the commands.")
                return _converse(Text(engine, sampling, tokens, guesser))
        if draft is not None:
            raise click.UsageError("--draft is for base models, and for twofile run")
        wanted = names_of(tools or "")
        with kernel_of(path, lambda *_: engine, tools=wanted) as kernel:
            frame["adapter"] = str(how["adapter"].resolve()) if how["adapter"] else ""
            talk = Talk(kernel, kernel.spawn(model, system or "", wanted, allow, **frame), sampling)
            note(f"{name}: type a message. /help lists the commands.")
            talk.begun()
            return _converse(talk)


def _converse(conversation: Conversation) -> None:
    """Until the user leaves."""
    for line in lines():
        if not line.startswith("/"):
            conversation.say(line)
        elif not _command(conversation, line):
            break


def _approve(asking: Asking) -> Answer:
    """Ask the person on the terminal."""
    from twofile.kernel.process import Answer

    note(f"{asking.tool} wants {json.dumps(asking.capability)}, with {json.dumps(dict(asking.arguments))}")
    if asking.before.private and not asking.before.trusted:
        note("beware: something private and something from elsewhere are both before the model")
    if not sys.stdin.isatty():
        note("denied: there is nobody to ask, for no terminal is there")
        return Answer("deny")
    try:
        answer = click.prompt(
            "allow? yes, no, process (this conversation), always", default="no", show_default=False, err=True
        )
    except (click.Abort, EOFError):
        return Answer("deny")
    match answer.strip().lower():
        case "y" | "yes":
            return Answer("allow", "once")
        case "p" | "process":
            return Answer("allow", "process")
        case "a" | "always":
            return Answer("allow", "always")
    return Answer("deny")


def _command(conversation: Conversation, line: str) -> bool:
    """Do what a line with a slash asks; False to leave."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command in ("/quit", "/exit"):
        return False
    if command == "/help":
        note(HELP)
    elif command == "/reset":
        conversation.reset()
        note("started again")
    elif command == "/system":
        _system(conversation, rest)
    elif command == "/save":
        _save(conversation, rest)
    elif command in ("/pin", "/unpin"):
        _pin(conversation, command, rest)
    elif command == "/bad":
        _bad(conversation, rest)
    else:
        note(f"there is no {command}; /help lists the commands")
    return True


def _system(conversation: Conversation, text: str) -> None:
    if conversation.system is None:
        note("this is a base model: it has no instructions")
    elif not text:
        note(conversation.system or "no instructions")
    else:
        conversation.system = text
        conversation.reset()
        note("instructions taken; started again")


def _pin(conversation: Conversation, command: str, rest: str) -> None:
    if not isinstance(conversation, Talk):
        return note("a base model's text has nothing to pin to")
    process = conversation.process
    try:
        if command == "/unpin":
            process.unpin(int(rest) if rest.isdecimal() else 0)
            return note("unpinned")
        if rest:
            return note(f"pinned as {process.pin(rest).seq}")
    except KernelError as error:
        return note(f"{error.message}. {error.hint}")
    return note("\n".join(f"{card.seq} {card.text.strip()}" for card in process.look().cards) or "nothing is pinned")


def _bad(conversation: Conversation, why: str) -> None:
    """Put the last exchange among what is to be corrected."""
    from twofile.cli.label import own_labels
    from twofile.serve.label.store import Item, Store

    messages = conversation.messages()
    if not messages or messages[-1]["role"] != "assistant":
        return note(
            "a base model's text is no reply" if conversation.system is None else "there is no reply to mark yet"
        )
    store = Store(own_labels())
    try:
        item = Item(tuple(messages[:-1]), (messages[-1]["content"],), source=f"chat: {why}" if why else "chat")
        store.add([item])
    finally:
        store.close()
    return note("marked; twofile label is where it can be corrected")


def _save(conversation: Conversation, name: str) -> None:
    if not name:
        return note("/save FILE")
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(conversation.transcript(path.suffix == ".json"))
    except FileExistsError:
        return note(f"{name} is there already; give another name")
    except (OSError, ValueError) as error:
        return note(f"{name} cannot be written: {getattr(error, 'strerror', None) or error}")
    return note(f"saved to {name}")
