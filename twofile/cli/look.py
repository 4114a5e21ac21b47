"""`twofile dream`, `next` and `surprise`: what a model says unasked, what it expects, and what it did not."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, plain, standard_input, stream, table
from twofile.cli.options import engine_options, open_engine, sampling_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twofile.engine.engine import Engine
    from twofile.engine.generate import Finish
    from twofile.engine.sampler import Sampling
    from twofile.evaluate.surprise import Surprise

SCALE: tuple[tuple[float, int | None], ...] = ((1, None), (3, 194), (6, 229), (10, 216), (float("inf"), 203))
"""Bits below which a token has a colour (of the 256 of terminals), from none over green and yellow to red."""
_BLACK = 16
_BAR = 30  # characters, for a probability of 1

_model_option = click.option("--model", default="stories", show_default=True, help="The parameters file to ask.")


@click.command("dream")
@click.argument("name", metavar="[MODEL]", default="stories")
@click.option("-d", "--documents", type=click.IntRange(1), default=3, show_default=True, help="So many.")
@click.option("-n", "--tokens", type=click.IntRange(1), help="Of each, at most. [to its end, or a full context]")
@sampling_options
@engine_options
def dream_command(name: str, documents: int, tokens: int | None, sampling: Sampling, how: dict[str, Any]) -> None:
    """Let MODEL write documents from nothing: what it takes the world of its texts to be.

    Each begins from the token that stands before a text, which is shown, as is the one that ends it. Document i of
    --seed S is document 1 of --seed S + i - 1.
    """
    from twofile.engine.generate import generate
    from twofile.engine.sampler import new_seed
    from twofile.evaluate.surprise import first_token

    seed = new_seed() >> 32 if sampling.seed is None else sampling.seed
    with open_engine(name, how) as engine:
        first = first_token(engine.info)
        for i in range(documents):
            click.echo(_dim(_name(engine, first)))
            finish: Finish | None = None
            last, count = first, 0
            chosen = replace(sampling, seed=(seed + i) % 2**64)
            with engine.session() as session:
                for piece in generate(session, [first], chosen, tokens):
                    stream(piece.text)
                    finish, last, count = piece.finish, piece.token, count + 1
            click.echo()
            if finish == "end":
                click.echo(_dim(_name(engine, last)))
            note(f"[document {i + 1}, seed {chosen.seed}: {count} tokens{', cut off' if finish == 'length' else ''}]")


@click.command("next")
@click.argument("text", required=False)
@_model_option
@click.option("-k", "--top", type=click.IntRange(1), default=10, show_default=True, help="So many tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@engine_options
def next_command(text: str | None, model: str, top: int, as_json: bool, how: dict[str, Any]) -> None:
    """Show which tokens a model expects after TEXT (else stdin), with their probabilities.

    Probabilities are the model's own: no temperature, nothing left out. An empty TEXT asks how texts begin.
    """
    import numpy as np

    from twofile.evaluate.surprise import first_token

    given = _given(text, "twofile next 'Once upon a'")
    with open_engine(model, how) as engine, engine.session() as session:
        ids = engine.prompt(given) or [first_token(engine.info)]
        x_V = session.append(ids)[0].astype(np.float64)
        p_V = np.exp(x_V - x_V.max())
        p_V /= p_V.sum()
        best = np.argsort(-p_V, kind="stable")[:top].tolist()
        if as_json:
            expected = [{"token": i, "text": _name(engine, i), "probability": float(p_V[i])} for i in best]
            bits = float(-(p_V[p_V > 0] * np.log2(p_V[p_V > 0])).sum())
            click.echo(json.dumps({"text": given, "tokens": ids, "entropy_bits": bits, "next": expected}))
            return
        rows = [("", "token", "probability", "bits", "")]
        for rank, i in enumerate(best, 1):
            p = float(p_V[i])
            bits = -float(np.log2(p)) if p else float("inf")
            rows.append((f"{rank}", _quoted(engine, i), f"{p:.4f}", f"{bits:.2f}", "█" * round(_BAR * p)))
        click.echo(table(rows, indent=""))
        note(f"[{len(best)} of {engine.vocab_size} tokens hold {float(p_V[best].sum()):.1%}; read {len(ids)} tokens]")


@click.command("surprise")
@click.argument("text", required=False)
@click.option("-f", "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read this file.")
@_model_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@engine_options
def surprise_command(text: str | None, file: Path | None, model: str, as_json: bool, how: dict[str, Any]) -> None:
    """Show how many bits a model needs to be told each token of TEXT (else --file, else stdin).

    In a terminal the text is coloured, from what it foresaw to what it did not; elsewhere each token has a line, its
    bits first. What shares a character counts as one.
    """
    from twofile.evaluate.surprise import surprises

    if text is not None and file is not None:
        raise click.UsageError("give the text once: as TEXT or with --file")
    given = file.read_bytes() if file else _given(text, "twofile surprise 'Once upon a time'").encode()
    with open_engine(model, how) as engine:
        found = surprises(engine, given)
    tokens, bits, size = sum(len(each.tokens) for each in found), sum(each.bits for each in found), len(given)
    if as_json:
        each_json = [{"tokens": each.tokens, "text": each.text, "bits": each.bits} for each in found]
        click.echo(json.dumps({"tokens": tokens, "bits": bits, "bytes": size, "surprises": each_json}))
        return
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        click.echo(coloured(found))
        click.echo(f"\nbits a token: {legend()}")
    else:
        for each in found:
            click.echo(f"{each.bits:.2f}\t{json.dumps(each.text, ensure_ascii=False)}")
    if found:
        note(f"[{tokens} tokens, {size} bytes: {bits / tokens:.2f} bits a token, {bits / size:.3f} bits a byte]")


def coloured(found: Sequence[Surprise]) -> str:
    """A text for a terminal, each token on the colour of its surprise; line ends that were not foreseen show."""
    words = []
    for each in found:
        lines = plain(each.text).split("\n")
        colour = _colour(each.bits)
        mark = "" if colour is None else _on(colour, "↵")
        words.append((mark + "\n").join(_on(colour, line) for line in lines))
    return "".join(words)


def legend() -> str:
    words, least = [], 0.0
    for most, colour in SCALE:
        words.append(_on(colour, f" {least:g} to {most:g} " if most != float("inf") else f" {least:g} and more "))
        least = most
    return " ".join(words)


def _colour(bits: float) -> int | None:
    return next((colour for most, colour in SCALE if bits < most), SCALE[-1][1])


def _on(colour: int | None, text: str) -> str:
    return text if colour is None or not text else click.style(text, fg=_BLACK, bg=colour)


def _dim(text: str) -> str:
    return click.style(plain(text), dim=True)


def _given(text: str | None, example: str) -> str:
    if text is not None:
        return text
    if sys.stdin.isatty():
        raise click.UsageError(f"a text is missing: {example}")
    return standard_input().read()


def _name(engine: Engine, token: int) -> str:
    return engine.detokenize_bytes([token], special=True).decode("utf-8", errors="replace")


def _quoted(engine: Engine, token: int) -> str:
    """A token for people: in quotes, as bytes where it is no whole text, bare where it is a control token."""
    raw = engine.detokenize_bytes([token])
    if not raw:
        return plain(_name(engine, token))
    try:
        return plain(json.dumps(raw.decode("utf-8"), ensure_ascii=False))
    except UnicodeDecodeError:
        return repr(raw)
