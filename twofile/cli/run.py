"""`twofile run`: one prompt, one completion."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from twofile.cli.console import note, standard_input, stream
from twofile.cli.options import (
    draft_option,
    engine_options,
    form_options,
    open_draft,
    open_engine,
    sampling_options,
)


@click.command("run")
@click.argument("name")
@click.argument("text", required=False)
@click.option("-p", "--prompt", help="The prompt; else TEXT; else what comes on stdin.")
@click.option("-n", "--tokens", type=click.IntRange(1), help="At most so many tokens. [to the end, or a full context]")
@sampling_options
@click.option("--stop", multiple=True, help="End before this text. May be given several times.")
@click.option(
    "--logprobs", type=click.IntRange(0), help="A line for each token: its log-probability and N alternatives."
)
@click.option("--system", help="Instructions for a chat model.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, also with a chat model.")
@form_options
@draft_option
@engine_options
def run_command(
    name: str,
    text: str | None,
    prompt: str | None,
    tokens: int | None,
    sampling: Any,
    stop: tuple[str, ...],
    logprobs: int | None,
    system: str | None,
    raw: bool,
    constrain: Any,
    draft: str | None,
    how: dict[str, Any],
) -> None:
    """Complete one prompt with the model NAME and print the text.

    A model with a chat template answers the prompt as a message; any other continues it.
    """
    if prompt is not None and text is not None:
        raise click.UsageError("give the prompt once: as TEXT or with -p")
    given = prompt if prompt is not None else text
    if given is None:
        if sys.stdin.isatty():
            raise click.UsageError("a prompt is missing: twofile run NAME 'Once upon a time'")
        given = standard_input().read()

    from twofile.engine.generate import generate
    from twofile.engine.template import ChatTemplate

    with open_engine(name, how) as engine:
        template = ChatTemplate.of(engine)
        if raw or template.source is None:
            if system is not None:
                raise click.UsageError("--system is for a model with a chat template, and not with --raw")
            ids = engine.prompt(given)
            if not ids:
                raise click.UsageError("the prompt is empty")
        else:
            messages = [{"role": "system", "content": system}] if system is not None else []
            ids = template.render([*messages, {"role": "user", "content": given}], add_generation_prompt=True)
        constraint = constrain(engine)
        started = time.perf_counter()
        first = count = 0.0
        with open_draft(draft, engine, how) as guesser, engine.session() as session:
            for piece in generate(session, ids, sampling, tokens, stop, logprobs, constraint, guesser):
                count += 1
                first = first or time.perf_counter()
                if logprobs is None:
                    stream(piece.text)
                else:
                    click.echo(_line(engine, piece))
        if logprobs is None:
            click.echo()
        note(speed(int(count), len(ids), first - started, time.perf_counter() - first))


def _line(engine: Any, piece: Any) -> str:
    def entry(token: int, logprob: float) -> str:
        return f"{logprob:8.4f} {engine.detokenize_bytes([token], special=True).decode('utf-8', 'replace')!r}"

    return "\t".join([entry(piece.token, piece.logprob), *(entry(*other) for other in piece.alternatives)])


def speed(made: int, read: int, reading: float, making: float) -> str:
    """How fast: `made` tokens, the first of which came with the reading of the `read` tokens of the prompt."""
    rate = f", {(made - 1) / making:.0f} tokens/s" if made > 1 and making > 0 else ""
    return f"[{made} tokens{rate}; {read} read in {reading:.2f} s]"
