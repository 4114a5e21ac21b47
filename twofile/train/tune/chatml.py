"""The chat template that our own models learn: ChatML, with tools, calls of them and thinking between control tokens.

A turn is `<|im_start|>role`, a line break, its text, `<|im_end|>`. Tools stand after the system's words, JSON, one a
line. A call is `<|tool_call|>{"name": ..., "arguments": {...}}<|/tool_call|>` within the assistant's turn, what a tool
gave is a turn of the role `tool`; thinking is `<|think|>...<|/think|>` before the assistant's text.
"""

from __future__ import annotations

__all__ = ["CHATML"]

CHATML = (
    "{%- if tools -%}"
    "{{ '<|im_start|>system\\n' }}"
    "{%- if messages and messages[0]['role'] == 'system' -%}{{ messages[0]['content'] + '\\n\\n' }}{%- endif -%}"
    "{{ 'Tools:\\n' }}"
    "{%- for tool in tools -%}"
    "{{ (tool['function'] if tool['function'] is defined else tool) | tojson }}{{ '\\n' }}"
    "{%- endfor -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if not (tools and loop.first and message['role'] == 'system') -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['reasoning_content'] -%}"
    "{{ '<|think|>' + message['reasoning_content'] + '<|/think|>' }}"
    "{%- endif -%}"
    "{{ message['content'] or '' }}"
    "{%- for call in message['tool_calls'] or [] -%}"
    "{%- set asked = call['function'] if call['function'] is defined else call -%}"
    "{%- set given = asked['arguments'] if asked['arguments'] is string else asked['arguments'] | tojson -%}"
    "{{ '<|tool_call|>{\"name\": ' + asked['name'] | tojson + ', \"arguments\": ' + given + '}<|/tool_call|>' }}"
    "{%- endfor -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
