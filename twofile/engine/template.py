"""Chat templates: from messages to tokens, in such a way that no message can speak as the template does.

A template writes texts such as `<|im_end|>` that become control tokens. Were its output tokenised as a whole, a
message that holds `<|im_end|>` would end its own turn and begin another one. So the output remembers where its control
texts came from. A private-use character that occurs nowhere else, drawn for each rendering, is the mark:

1. In every text of the messages (and of tools and settings: whatever is not the template) a mark is put after the
   first character of each control text, in any case of letters. The same is done where its beginning or its end, less
   white space, could become one together with what stands beside it.
2. The template is rendered. Its own control texts are whole; those of the messages are broken.
3. The output is split at control texts, the longest first. The marks are taken out of what is between, which is
   tokenised as plain text; the control tokens are put back between.

A role is not text: it must be one of `ROLES`, because some templates write `<|` + role + `|>`. Control tokens of a
single character cannot be broken, so templates cannot write them. What this does not cover: a template that takes a
message apart and joins the parts anew, other than trimming it; and user-defined tokens (such as `<think>` in Qwen3),
which are ordinary text to every tokenizer.

A hostile template can do nothing but waste a bounded amount of time and memory: see `sandbox`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from twofile.errors import EngineError

if TYPE_CHECKING:
    from twofile.engine.engine import Engine

ROLES = frozenset(("assistant", "developer", "function", "ipython", "model", "system", "tool", "user"))
# keys and types that templates ask for by name: never broken
_KEYS = frozenset((
    "arguments", "content", "description", "enum", "function", "id", "items", "message", "messages", "name",
    "parameters", "properties", "reasoning_content", "required", "role", "text", "thinking", "tool_call_id",
    "tool_calls", "tool_responses", "tools", "type",
))  # fmt: skip
_TYPES = frozenset((
    "array", "boolean", "function", "image", "image_url", "integer", "null", "number", "object", "string",
    "text",
))  # fmt: skip
_DEPTH = 100
_REWRITES = (
    "this chat template writes a message otherwise once others follow it: what the assistant says cannot be told from "
    "the rest"
)


class ChatTemplate:
    """The chat template of a parameters file. May be used from several threads.

    `source` None: the file has none; then the messages' contents are put one after the other, a blank line between,
    as plain text for the model to complete. `control`: text -> id of the control tokens. `tokenize` makes tokens of
    plain text. `bos`, `eos`, ...: texts that the template may ask for. `begin`: the id to put in front of a prompt
    that does not begin with it, None for no such thing.
    """

    def __init__(
        self,
        source: str | None,
        control: Mapping[str, int],
        tokenize: Callable[[str], list[int]],
        *,
        bos: str = "",
        eos: str = "",
        unk: str = "",
        pad: str = "",
        begin: int | None = None,
    ) -> None:
        self.source = source
        self._control = {text: token for text, token in control.items() if len(text) > 1}
        self._tokenize, self._begin = tokenize, begin
        self._variables = {"bos_token": bos, "eos_token": eos, "unk_token": unk, "pad_token": pad}
        longest = sorted(self._control, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest)) or "(?!)"
        self._split = re.compile(f"({pattern})")
        self._find = re.compile(pattern, re.IGNORECASE)
        folded = [text.casefold() for text in longest]
        self._inside = "\0".join(folded)
        self._longest = max(map(len, folded), default=0)
        self._beginnings = {text[:n] for text in folded for n in range(1, len(text))}
        self._ends = {text[n:] for text in folded for n in range(1, len(text))}
        self._render: Callable[[Mapping[str, Any]], str] | None = None

    @classmethod
    def of(cls, engine: Engine) -> ChatTemplate:
        """The template in an engine's parameters file."""
        info = engine.info
        names = {
            name: engine.detokenize_bytes([i], special=True).decode("utf-8", errors="replace") if i >= 0 else ""
            for name, i in (("bos", info.bos), ("eos", info.eos), ("unk", info.unk), ("pad", info.pad))
        }
        source = engine.backend.text("tokenizer.chat_template")
        begin = info.bos if info.add_bos and info.bos >= 0 else None
        return cls(source, engine.control_tokens, engine.tokenize, **names, begin=begin)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> list[int]:
        """Tokens of a conversation, BOS included where the file asks for it.

        Messages have a `role`, a `content`, and what else the template knows; `settings` are further variables of the
        template. Raises ValueError for messages that are no such thing, EngineError when the template fails.
        """
        return self._begun(self._tokens(*self._marked(messages, add_generation_prompt, tools, settings)))

    def parts(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[tuple[list[int], bool]]:
        """A finished conversation as stretches of tokens, each with whether the assistant says it: what comes after a
        prompt for it, up to the control token that ends its turn.

        Tokenised stretch by stretch, as when the model is asked and answers. Raises as `render`, and EngineError for a
        template that writes earlier messages otherwise once later ones are there."""
        given = {"messages": [_message(message) for message in messages], "tools": tools}
        mark = self._mark(given)
        found: list[tuple[list[int], bool]] = [(self._begun([]), False)]
        done = ""
        for i, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            before, _ = self._marked(messages[:i], True, tools, {}, mark)
            after, _ = self._marked(messages[: i + 1], False, tools, {}, mark)
            if not before.startswith(done) or not after.startswith(before):
                raise EngineError(_REWRITES)
            said = after[len(before) :]
            ends = [match.end() for match in self._split.finditer(said)]
            end = ends[-1] if ends else len(said)
            found.append((self._tokens(before[len(done) :], mark), False))
            found.append((self._tokens(said[:end], mark), True))
            done = before + said[:end]
        rest, _ = self._marked(messages, False, tools, {}, mark)
        if not rest.startswith(done):
            raise EngineError(_REWRITES)
        found.append((self._tokens(rest[len(done) :], mark), False))
        if self._begin is not None and found[1][0][:1] == [self._begin]:
            found.pop(0)  # the template itself begins so
        return [(ids, said) for ids, said in found if ids]

    def _tokens(self, text: str, mark: str) -> list[int]:
        """Tokens of a rendered text, or a stretch of one: its whole control texts as control tokens, the rest plain."""
        ids: list[int] = []
        for i, part in enumerate(self._split.split(text) if mark else [text]):
            if i % 2:
                ids.append(self._control[part])
            elif plain := part.replace(mark, "") if mark else part:
                ids += self._tokenize(plain)
        return ids

    def _begun(self, ids: list[int]) -> list[int]:
        return ids if self._begin is None or ids[:1] == [self._begin] else [self._begin, *ids]

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> str:
        """The conversation as the template writes it, to look at. Do not tokenise it: that is what `render` is for."""
        text, mark = self._marked(messages, add_generation_prompt, tools, settings)
        return text.replace(mark, "") if mark else text

    def _mark(self, given: Mapping[str, Any]) -> str:
        """A mark for a rendering: a character that nothing else in it has."""
        return "" if self.source is None else _unused_character([self.source, *self._control, *_texts(given)])

    def _marked(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Any,
        settings: dict[str, Any],
        mark: str = "",
    ) -> tuple[str, str]:
        """The rendered text with its marks, and the mark (that given, or a new one); without a template no text has
        one, and it is empty."""
        given = {"messages": [_message(message) for message in messages], "tools": tools or None, **settings}
        if self.source is None:
            return "\n\n".join(m["content"] for m in given["messages"] if isinstance(m.get("content"), str)), ""
        mark = mark or self._mark(given)
        variables = {key: self._broken(value, mark, key) for key, value in given.items()}
        if self._render is None:
            self._render = _compiled(self.source)
        return self._render({**self._variables, **variables, "add_generation_prompt": add_generation_prompt}), mark

    def _broken(self, value: Any, mark: str, key: str = "") -> Any:
        """A JSON value with every text in it broken, but for what must be one of few words."""
        if isinstance(value, str):
            known = {"role": ROLES, "type": _TYPES}.get(key, ())
            return value if value in known else self._break(value, mark)
        if isinstance(value, Mapping):
            return {k if k in _KEYS else self._break(k, mark): self._broken(v, mark, k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._broken(item, mark, key) for item in value]
        return value

    def _break(self, text: str, mark: str) -> str:
        """Put a mark wherever this text, or an end of it with its neighbours, could become a control text."""
        core = text.strip()
        if not core or not self._longest:
            return text
        offset = text.index(core)
        at: set[int] = set()
        position = 0
        while found := self._find.search(text, position):
            position = found.start() + 1
            at.add(position)
        for n in range(1, min(len(core), self._longest) + 1):
            if core[-n:].casefold() in self._beginnings:
                at.add(offset + len(core) - n + 1)
            if core[:n].casefold() in self._ends:
                at.add(offset)
        if len(core) < self._longest and core.casefold() in self._inside:
            at.add(offset)
        cuts = [0, *sorted(at), len(text)]
        return mark.join(text[a:b] for a, b in pairwise(cuts)) if at else text


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message, checked; a content in parts that are all text becomes one text, which every template understands."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError("a message must be a mapping with a role")
    if message["role"] not in ROLES:
        raise ValueError(f"a message has the role {message['role'][:40]!r}, not one of {', '.join(sorted(ROLES))}")
    parts = message.get("content")
    if isinstance(parts, list) and parts and all(isinstance(p, Mapping) and p.get("type") == "text" for p in parts):
        return {**message, "content": "".join(str(part.get("text", "")) for part in parts)}
    return dict(message)


def _texts(value: Any, depth: int = 0) -> list[str]:
    """Every text in a JSON value, keys included. Raises ValueError for what is not JSON."""
    if depth > _DEPTH:
        raise ValueError(f"messages are nested more than {_DEPTH} deep")
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("messages hold a mapping with a key that is no text")
        return [*value, *(text for item in value.values() for text in _texts(item, depth + 1))]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item, depth + 1)]
    if value is None or isinstance(value, bool | int | float):
        return []
    raise ValueError(f"messages hold a {type(value).__name__}, which is not JSON")


def _unused_character(texts: Sequence[str]) -> str:
    """A private-use character, at random, that no text holds, neither as itself nor in the spelling of JSON."""
    used = set().union(*texts)
    spelled = {text.lower() for text in texts if "\\u" in text}
    start = random.SystemRandom().randrange(0x1900)
    for i in range(0x1900):
        code = 0xE000 + (start + i) % 0x1900
        if chr(code) not in used and not any(f"\\u{code:04x}" in text for text in spelled):
            return chr(code)
    raise ValueError("messages hold every private-use character there is")


def _compiled(source: str) -> Callable[[Mapping[str, Any]], str]:
    """The template, ready to render, with its errors made ours."""
    import jinja2

    from twofile.engine.sandbox import TemplateRefused, compile_template

    hint = "twofile show FILE prints the template"
    try:
        render = compile_template(source)
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise EngineError(f"the chat template of this file cannot be compiled: {_word(error)}", hint) from error

    def guarded(variables: Mapping[str, Any]) -> str:
        try:
            return render(variables)
        except TemplateRefused as error:
            raise EngineError(f"the chat template refuses this conversation: {error}") from error
        except Exception as error:  # whatever a stranger's template does is its own failure
            raise EngineError(f"the chat template of this file fails: {_word(error)}", hint) from error

    return guarded


def _word(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
