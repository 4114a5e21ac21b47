"""`twofile chat`: a conversation in a terminal, or line by line from a file.

`Conversation` is the state, and works with anything that has an engine's interface: with a chat template it is a list
of messages, without one a text that the model continues. Either is rendered to tokens again for each reply, and the
session rewinds to what it has in common with them, so only what is new is read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, standard_input, stream
from twofile.cli.options import draft_option, engine_options, open_draft, open_engine, sampling_options
from twofile.cli.run import speed
from twofile.errors import ContextError, TwofileError

if TYPE_CHECKING:
    from twofile.engine.draft import Draft
    from twofile.engine.generate import Piece

HELP = """\
/help           this
/reset          forget what was said and start again
/system TEXT    instructions for the model (starts again); without TEXT: show them
/save FILE      write the conversation to FILE (.json: as messages)
/bad WHY        mark the last reply: twofile label lets you correct it, twofile tune learns it
/quit           leave; so does Ctrl-D
Ctrl-C stops a reply. With a base model an empty line goes on with the text."""


class Conversation:
    """What was said so far, and a session that has read it. `template` is None for a base model."""

    def __init__(
        self,
        engine: Any,
        template: Any,
        sampling: Any,
        max_tokens: int | None,
        system: str | None,
        draft: Draft | None = None,
    ) -> None:
        self.engine, self.template, self.sampling, self.max_tokens = engine, template, sampling, max_tokens
        self.system, self.draft = system, draft
        self.session = engine.session()
        self.messages: list[dict[str, str]] = []
        self.text = ""  # of a base model
        self.ended = False  # the model has ended that text
        self.read = 0  # tokens that the last reply needed the session to read

    def reset(self) -> None:
        self.messages, self.text, self.ended = [], "", False

    def reply(self, line: str) -> Iterator[Piece]:
        """Say something and yield the reply's pieces; what came is kept also when the caller stops in between.

        Raises ContextError, with nothing changed, when there is no room for it."""
        from twofile.engine.generate import generate

        before = (list(self.messages), self.text, self.ended)
        if self.template is not None:
            self.messages.append({"role": "user", "content": line})
            system = [{"role": "system", "content": self.system}] if self.system else []
            tokens = self.template.render([*system, *self.messages], add_generation_prompt=True)
        else:
            if self.ended:
                self.text, self.ended = "", False
            glue = " " if self.text and line and not self.text[-1].isspace() and not line[0].isspace() else ""
            self.text += glue + line
            tokens = self.engine.prompt(self.text)
        try:
            if len(tokens) >= self.engine.context_length:
                raise ContextError(f"{len(tokens)} tokens leave no room for a reply")
            kept = self.session.keep_common(tokens)
            self.read = len(tokens) - kept
            pieces = generate(self.session, tokens[kept:], self.sampling, self.max_tokens, draft=self.draft)
        except TwofileError:
            self.messages, self.text, self.ended = before
            raise
        said: list[str] = []
        try:
            for piece in pieces:
                said.append(piece.text)
                self.ended = piece.finish == "end"
                yield piece
        finally:
            if self.template is not None:
                self.messages.append({"role": "assistant", "content": "".join(said)})
            else:
                self.text += "".join(said)

    def transcript(self, as_json: bool) -> str:
        if as_json:
            system = [{"role": "system", "content": self.system}] if self.system else []
            content: Any = [*system, *self.messages] if self.template is not None else {"text": self.text}
            return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        if self.template is None:
            return self.text + "\n"
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in self.messages) + "\n"


@click.command("chat")
@click.argument("name", default="stories")
@click.option("-n", "--tokens", type=click.IntRange(1), help="At most so many tokens a reply.")
@sampling_options
@click.option("--system", help="Instructions for a chat model.")
@draft_option
@engine_options
def chat_command(
    name: str, tokens: int | None, sampling: Any, system: str | None, draft: str | None, how: dict[str, Any]
) -> None:
    """Talk with the model NAME (the bundled one if none is named).

    A model with a chat template answers; a base model continues your text. With no terminal on stdin, each line
    that comes is a message. /help lists what else can be typed.
    """
    from twofile.engine.template import ChatTemplate

    with open_engine(name, how) as engine, open_draft(draft, engine, how) as guesser:
        found = ChatTemplate.of(engine)
        template = found if found.source is not None else None
        if template is None and system is not None:
            raise click.UsageError(f"{name} has no chat template, so it takes no --system")
        conversation = Conversation(engine, template, sampling, tokens, system, guesser)
        kind = "type a message" if template else "this is a base model: it continues your text"
        note(f"{name}: {kind}. /help lists the commands.")
        for line in _lines():
            if line.startswith("/"):
                if not _command(conversation, line):
                    break
            elif line or not conversation.template:
                _say(conversation, line)


def _lines() -> Iterator[str]:
    """What the user types, until the end; with editing and a history of this session where there is a terminal."""
    stdin = standard_input()
    terminal = stdin.isatty()
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  (gives input() line editing)
    while True:
        try:
            line = input("> ") if terminal else stdin.readline()
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            note("\n/quit or Ctrl-D leaves")
            continue
        if not terminal and not line:
            return
        if terminal or line.strip():
            yield line.rstrip("\r\n")


def _say(conversation: Conversation, line: str) -> None:
    """One message and its reply, with a remark on how it ended."""
    engine = conversation.engine
    if not line and not conversation.text:
        return note("type the beginning of a text")
    before = time.perf_counter()
    first, count, piece = 0.0, 0, None
    try:
        for piece in conversation.reply(line):
            first = first or time.perf_counter()
            count += 1
            stream(piece.text)
        click.echo()
    except KeyboardInterrupt:
        click.echo()
        note("(stopped)")
    except ContextError as error:
        return note(f"{error.message}: {_full(engine)}")
    if count:
        note(speed(count, conversation.read, first - before, time.perf_counter() - first))
    if piece is not None and piece.finish == "length" and conversation.session.room == 0:
        note(_full(engine))
    elif conversation.ended and not conversation.template:
        note("(the end; what you type next begins a new text)")
    return None


def _full(engine: Any) -> str:
    return f"the context of {engine.context_length} tokens is full. /save keeps what was said, /reset starts again."


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
    elif command == "/bad":
        _bad(conversation, rest)
    else:
        note(f"there is no {command}; /help lists the commands")
    return True


def _system(conversation: Conversation, text: str) -> None:
    if conversation.template is None:
        note("this is a base model: it has no instructions")
    elif not text:
        note(conversation.system or "no instructions")
    else:
        conversation.system = text
        conversation.reset()
        note("instructions taken; started again")


def _bad(conversation: Conversation, why: str) -> None:
    """Put the last exchange among what is to be corrected."""
    from twofile.cli.label import own_labels
    from twofile.serve.label.store import Item, Store

    messages = conversation.messages
    if not messages or messages[-1]["role"] != "assistant":
        return note("there is no reply to mark yet" if conversation.template else "a base model's text is no reply")
    system = [{"role": "system", "content": conversation.system}] if conversation.system else []
    source = f"chat: {why}" if why else "chat"
    store = Store(own_labels())
    try:
        store.add([Item((*system, *messages[:-1]), (messages[-1]["content"],), source=source)])
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
