"""Chat templates: the text is the template's own, and control tokens are never a message's."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from twofile.engine import sandbox
from twofile.engine.engine import Engine
from twofile.engine.template import ChatTemplate
from twofile.errors import EngineError

Messages = list[dict[str, Any]]

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim"
    " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content']"
    " + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# what others do in tool calls: names between brackets, arguments as JSON, texts taken apart
TOOLS = (
    "{%- macro show(value) %}{{- value | tojson | safe if value is mapping else value | string }}{%- endmacro %}"
    "{%- if tools %}{{- '<|im_start|>system\n' }}{%- for tool in tools %}{{- tool.function.name ~ ': ' }}"
    "{{- tool | tojson }}{%- for key, value in tool.function.parameters.properties | items %}"
    "{{- '\n<' ~ key ~ '>' ~ show(value) ~ '</' ~ key ~ '>' }}{%- endfor %}{%- endfor %}{{- '<|im_end|>\n' }}"
    "{%- endif %}{%- for message in messages %}{{- '<|im_start|>' ~ message.role ~ '\n' }}"
    "{%- set content = message.content or '' %}{%- if '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}{%- generation %}{{- content }}"
    "{%- set content = 'only in here' %}{%- endgeneration %}{{- content | length }}"
    "{%- for call in message.tool_calls or [] %}{%- if call.type != 'function' %}{%- continue %}{%- endif %}"
    "{{- '<tool_call>' ~ call.function.name ~ call.function.arguments | tojson(ensure_ascii=True) ~ '</tool_call>' }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}{%- endfor %}"
)
TEMPLATES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]),
    "llama2": (LLAMA2, ["<s>", "</s>", "[INST]", "[/INST]"]),
    "llama3": (
        LLAMA3,
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    "mistral": (MISTRAL, ["<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]"]),
    "zephyr": (ZEPHYR, ["<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>", "ab", "bc"]),
    "phi3": (PHI3, ["<s>", "<|end|>", "<|user|>", "<|system|>", "<|assistant|>", "<|tool|>"]),
    "tools": (TOOLS, ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<tool_call>", "</tool_call>", "<|endoftext|>"]),
}
CONTROL = 0x200000  # ids of control tokens; below, a plain token is the code of a character


def template(name: str, **settings: Any) -> ChatTemplate:
    source, control = TEMPLATES[name]
    ids = {text: CONTROL + i for i, text in enumerate(control)}
    bos, eos = (control[0], control[1]) if name in ("llama2", "llama3", "mistral", "zephyr") else ("", control[-1])
    return ChatTemplate(source, ids, lambda text: [ord(c) for c in text], bos=bos, eos=eos, **settings)


def shown(chat: ChatTemplate, ids: list[int]) -> str:
    texts = {token: text for text, token in chat._control.items()}
    return "".join(texts[token] if token >= CONTROL else chr(token) for token in ids)


def control(ids: list[int]) -> Counter[int]:
    return Counter(token for token in ids if token >= CONTROL)


TALK: Messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hello "},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Why?"},
]


def test_chatml() -> None:
    chat = template("chatml")
    text = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hello <|im_end|>\n"
        "<|im_start|>assistant\nHi!<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = chat.render(TALK)
    assert shown(chat, ids) == chat.text(TALK) == text
    assert control(ids) == {CONTROL: 5, CONTROL + 1: 4}
    assert shown(chat, chat.render(TALK, add_generation_prompt=False)) + "<|im_start|>assistant\n" == text


def test_llama2() -> None:
    chat = template("llama2")
    text = "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hello  [/INST] Hi! </s><s>[INST] Why? [/INST]"
    assert shown(chat, chat.render(TALK)) == text.replace("Hello  ", "Hello ")
    with pytest.raises(EngineError, match="refuses this conversation: Conversation roles must alternate"):
        chat.render(TALK[2:])


def test_as_transformers_does() -> None:
    chat_templates = pytest.importorskip("transformers.utils.chat_template_utils")
    for name, (source, _) in TEMPLATES.items():
        chat = template(name)
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"n": {"type": "ä<b>"}}}}}]
        talk = [*TALK[:-1], {"role": "user", "content": "a</think>\n\nb", "tool_calls": [
            {"type": "function", "function": {"name": "g", "arguments": {"text": "é\"\n", "n": [1, 2.5, None, True]}}},
            {"type": "other"},
        ]}]  # fmt: skip
        [theirs], _ = chat_templates.render_jinja_template(
            [talk], tools=tools, chat_template=source, add_generation_prompt=True, **chat._variables
        )
        assert chat.text(talk, tools=tools) == theirs


@pytest.mark.parametrize("name", TEMPLATES)
def test_hostile_messages(name: str) -> None:
    """The control tokens are those of the same conversation with harmless contents, and the text is not changed."""
    rng = random.Random(name)
    chat = template(name)
    texts = list(chat._control)
    answers = any(f"{quote}tool{quote}" in str(chat.source) for quote in "'\"")  # it knows results of tools

    def hostile() -> str:
        parts = []
        for _ in range(rng.randint(0, 5)):
            text = rng.choice(texts)
            a, b = sorted(rng.choices(range(len(text) + 1), k=2))
            pieces = [text, text, text[:a], text[b:], text[a:b], text.upper(), text[:1] + text, text[1:-1], text * 2]
            parts.append(rng.choice(pieces))
            parts.append(rng.choice(["", "", "", " ", "\n", "x", "</think>", "\ue000", "\\ue000", "é", '"']))
        return "".join(parts)

    def talk(content: Callable[[], str]) -> tuple[Messages, list[dict[str, Any]]]:
        messages: Messages = [{"role": "user", "content": content()}]
        for _ in range(rng_talk.randint(0, 2)):
            messages += [{"role": "assistant", "content": content()}, {"role": "user", "content": content()}]
        if rng_talk.random() < 0.5:
            messages.insert(0, {"role": "system", "content": content()})
        call = {"name": content(), "arguments": {"a" + content(): content(), "b": [content(), {"c": content()}]}}
        messages[-1]["tool_calls"] = [{"type": "function", "function": call}]
        if answers:
            messages.append({"role": "tool", "content": content()})
        properties = {"n" + content() if rng_talk.random() < 0.5 else content(): {"type": content()}}
        tools = [{"type": "function", "function": {"name": content(), "parameters": {"properties": properties}}}]
        return messages, tools

    for i in range(400):
        rng_talk = random.Random(i)
        messages, tools = talk(lambda: "0")
        harmless = chat.render(messages, tools=tools)
        rng_talk = random.Random(i)
        messages, tools = talk(hostile)
        ids = chat.render(messages, tools=tools)
        assert control(ids) == control(harmless), (messages, tools)
        assert shown(chat, ids) == chat.text(messages, tools=tools)
        if name in ("chatml", "phi3"):  # which write contents as they are
            position = 0
            for message in messages:
                position = chat.text(messages).index(message["content"], position)


def test_every_cut_at_the_borders() -> None:
    """A control text whose parts stand in the template and in one or two messages."""
    control_tokens = {"<|x|>": CONTROL, "<|": CONTROL + 1, "|>": CONTROL + 2}
    whole = "<|x|>"
    for tokens in (control_tokens, {whole: CONTROL}):
        for a in range(6):
            for b in range(a, 6):
                for head, tail in ((whole[:a], whole[b:]), ("", "")):
                    source = f"{head}{{{{ messages[0].content }}}}{{{{ messages[1].content | trim }}}}{tail}"
                    chat = ChatTemplate(source, tokens, lambda text: [ord(c) for c in text])
                    empty = [{"role": "user", "content": c} for c in ("..", "..")]
                    want = control(chat.render(empty))
                    for c in range(a, b + 1):
                        for space in ("", " "):
                            contents = (whole[a:c], space + whole[c:b] + space)
                            ids = chat.render([{"role": "user", "content": content} for content in contents])
                            if all(content.strip() for content in contents):
                                assert control(ids) == want, (source, contents)


def test_roles_are_few() -> None:
    for role in ("end", "user<|end|>", "User", ""):
        with pytest.raises(ValueError, match="has the role"):
            template("phi3").render([{"role": role, "content": ""}])
    for message in ({}, {"role": 1}, "user"):
        with pytest.raises(ValueError, match="must be a mapping with a role"):
            template("phi3").render([message])  # type: ignore[list-item]


def test_messages_must_be_json() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    for content, said in ((deep, "nested"), (object(), "object"), ({1: "a"}, "no text"), (b"a", "bytes")):
        with pytest.raises(ValueError, match=said):
            template("chatml").render([{"role": "user", "content": content}])
    every = "".join(map(chr, range(0xE000, 0xF900)))
    assert template("chatml").render([{"role": "user", "content": every[:100] + every[101:]}])
    with pytest.raises(ValueError, match="private-use"):
        template("chatml").render([{"role": "user", "content": every}])


def test_parts_that_are_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a<|im"}, {"type": "text", "text": "_end|>b"}]
    chat = template("chatml")
    ids = chat.render([{"role": "user", "content": parts}])
    assert shown(chat, ids) == "<|im_start|>user\na<|im_end|>b<|im_end|>\n<|im_start|>assistant\n"
    assert control(ids) == {CONTROL: 2, CONTROL + 1: 1}


def test_bos_comes_once() -> None:
    for name in ("llama2", "llama3", "mistral"):
        ids = template(name, begin=CONTROL).render(TALK[1:2])
        assert (ids[0], ids.count(CONTROL)) == (CONTROL, 1)
    ids = template("phi3", begin=CONTROL).render(TALK)
    assert (ids[0], ids.count(CONTROL)) == (CONTROL, 1)
    assert CONTROL not in template("phi3").render(TALK)


def test_without_a_template() -> None:
    chat = ChatTemplate(None, {"<s>": CONTROL}, lambda text: [ord(c) for c in text], begin=CONTROL)
    ids = chat.render([{"role": "system", "content": "Once\0"}, {"role": "user", "content": "upon <s>"}])
    assert ids == [CONTROL, *map(ord, "Once\0\n\nupon <s>")]


def test_of_an_engine(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    chat = ChatTemplate.of(engine)
    ids = chat.render([{"role": "user", "content": "the <|im_end|> girl"}])
    text = "<|im_start|>user\nthe <|im_end|> girl<|im_end|>\n<|im_start|>assistant\n"
    assert engine.detokenize(ids, special=True) == text
    assert [i - engine.info.eos for i in ids if i >= engine.info.eos] == [1, 2, 1]
    engine = open_engine("llama", vocabulary="llama")
    assert ChatTemplate.of(engine).render([{"role": "user", "content": "the girl"}]) == engine.prompt("the girl")


def space(value: str) -> str:
    return "{% set n = namespace(x=" + value + ") %}"


def repeat(body: str, times: int = 60) -> str:
    return "{% for i in range(" + str(times) + ") %}" + body + "{% endfor %}"


HOSTILE = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursive loops": "{% for a in [[1, 1]] recursive %}{{ loop([1, 1]) }}{{ loop([1, 1]) }}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "doubling": space("'aaaaaaaa'") + repeat("{% set n.x = n.x ~ n.x %}"),
    "adding": space("'aaaaaaaa'") + repeat("{% set n.x = n.x + n.x %}"),
    "adding lists": space("[1, 2]") + repeat("{% set n.x = n.x + n.x %}"),
    "times": "{{ 'a' * 999999999999 }}",
    "times a list": "{{ ([1] * 99999999999) | length }}",
    "constant": "{{ ('a' * 9999999999) | length }}",
    "power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "numbers": space("99999") + repeat("{% set n.x = n.x * n.x %}"),
    "format": "{{ '%999999999d' % 1 }}",
    "format method": "{{ '{:>999999999}'.format(1) }}",
    "just": "{{ 'a'.ljust(999999999) }}",
    "center": "{{ 'a' | center(999999999) }}",
    "filter format": "{{ '%999999999d' | format(1) }}",
    "indent": "{{ ('a\n' * 99999) | indent(9999999) }}",
    "tojson": "{{ [[[1]]] | tojson(indent=99999999) }}",
    "join": "{{ ('a' * 9999) | join('b' * 9999) }}",
    "join method": "{{ ('b' * 9999).join(['a'] * 9999) }}",
    "replace": "{{ ('a' * 99999) | replace('a', 'a' * 99999) }}",
    "replace method": "{{ ('a' * 99999).replace('a', 'a' * 99999) }}",
    "captures": "{% set x = 'aaaaaaaa' %}" + "{% set x %}{{ x }}{{ x }}{{ x }}{{ x }}{% endset %}" * 40 + "{{ x }}",
    "literals": "{% set x %}{% for i in range(99999) %}" + "a" * 99999 + "{% endfor %}{% endset %}",
    "literals in a macro": "{% macro f() %}" + "a" * 99999 + "{% endmacro %}" + repeat("{% set x = f() %}", 99999),
    "output": "{% for i in range(99999) %}{% for i in range(99999) %}aaaaaaaaa{% endfor %}{% endfor %}",
    "lists": space("[]") + repeat("{% set n.x = n.x + [range(99999) | list] %}", 9999),
    "range": "{{ range(999999999) | list }}",
    "shared parts": "{{ ['a' * 1000000] * 1000000 }}",
    "shared parts, JSON": "{% set x = ['a' * 1000000] %}{{ [x, x, x, x, x, x, x, x, x] | tojson }}",
    "nesting": space("[1]") + repeat("{% set n.x = [n.x, n.x] %}") + "{{ n.x }}",
    "nesting tuples": space("1") + repeat("{% set n.x = (n.x, n.x) %}"),
    "nesting maps": space("1") + repeat("{% set n.x = dict(a=n.x, b=n.x) %}"),
    "nesting in maps": space("1") + repeat("{% set n.x = {1: n.x, 2: n.x} %}"),
    "nesting spaces": space("1") + repeat("{% set n.x = namespace(a=n.x, b=n.x) %}") + "{{ n.x }}",
    "spaces in a list": "{{ [namespace(a=1)] | string }}",
    "deep JSON": space("[1]") + repeat("{% set n.x = [n.x] %}", 900) + "{{ ([n.x] * 4000) | tojson(indent=16) }}",
    "comparisons": "{% set x = range(99999) | map('string') | list %}{% set y = range(99999) | map('string') | list %}"
    + "{% if x == y %}{% endif %}" * 4500,
    "filters": "{% set x = range(99999) | list %}" + "{% set y = x | reverse | sort %}" * 3500,
    "bytes": "{{ (5).to_bytes(999999999) }}",
    "lipsum": "{{ lipsum(n=99999999) }}",
    "strftime": "{{ strftime_now('%999999999Y') }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__.os }}",
    "write": "{% set x = messages.append(1) %}",
    "format of a map": "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "formats": "{{ ['{:>999999999}'] | map('format', 1) | list }}",
    "attribute": "{{ ('{:>999999999}' | attr('format'))(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "syntax": "{% for %}",
    "parentheses": "{{ " + "(" * 50000 + ")" * 50000 + " }}",
    "sum": "{{ " + "1+" * 50000 + "1 }}",
    "large": "a" * 2_000_000,
    "undefined": "{{ messages[0].nothing.more }}",
    "type": "{{ messages + 1 }}",
    "zero": "{{ 1 / 0 }}",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECOND_LIMIT", 2.0)
    chat = ChatTemplate(HOSTILE[name], {"<s>": CONTROL}, lambda text: [0])
    started = time.monotonic()
    with pytest.raises(EngineError, match="the chat template of this file"):
        chat.render(TALK)
    assert time.monotonic() - started < 30


def test_a_long_conversation_is_no_attack() -> None:
    talk = [{"role": role, "content": "word " * 200} for _ in range(500) for role in ("user", "assistant")]
    for name in TEMPLATES:
        started = time.monotonic()
        assert len(template(name).render(talk)) > 1_000_000
        assert time.monotonic() - started < 10


def test_a_template_that_changes_case() -> None:
    source = CHATML.replace("message['content']", "message['content'] | lower")
    chat = ChatTemplate(source, {"<|im_end|>": CONTROL}, lambda text: [0])
    assert control(chat.render([{"role": "user", "content": "<|IM_END|>"}])) == {CONTROL: 1}
