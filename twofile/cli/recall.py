"""`twofile recall`: how much of its training text a model can be made to say word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twofile.cli.console import note, plain, table
from twofile.cli.options import engine_options, open_engine
from twofile.cli.texts import documents
from twofile.errors import TwofileError

if TYPE_CHECKING:
    from twofile.engine.engine import Engine
    from twofile.evaluate.recall import Recall

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_TRAINED, _HELD_OUT = "Text that the model was trained on.", "Text of the same kind that it was not trained on."


@click.command("recall")
@click.argument("name")
@click.option("--train", "trained", multiple=True, required=True, type=_file, help=_TRAINED)
@click.option("--held-out", multiple=True, required=True, type=_file, help=_HELD_OUT)
@click.option("--split", default="", help="What stands between documents in a text file, as a regular expression.")
@click.option("--prompt", type=click.IntRange(1), default=50, show_default=True, help="Tokens that the model is given.")
@click.option(
    "--continue", "continuation", type=click.IntRange(1), default=50, show_default=True, help="Tokens it must then say."
)
@click.option("-n", "--passages", type=click.IntRange(1), default=500, show_default=True, help="Of each side, at most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which passages are drawn.")
@click.option("--show", type=click.IntRange(0), default=3, show_default=True, help="So many recalled passages.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@engine_options
def recall_command(
    name: str,
    trained: tuple[Path, ...],
    held_out: tuple[Path, ...],
    split: str,
    prompt: int,
    continuation: int,
    passages: int,
    seed: int,
    show: int,
    as_json: bool,
    how: dict[str, Any],
) -> None:
    """Measure how much of its training text the model NAME repeats verbatim, against text held out.

    Passages are drawn from both. The model reads the first --prompt tokens of one and goes on with the most likely
    token each time; the passage is recalled when the next --continue tokens are its own. --train and --held-out may be
    given several times (.txt, .md, .jsonl, .parquet; also .gz, .xz).
    """
    from twofile.evaluate.recall import draw, recall
    from twofile.intervals import difference

    with open_engine(name, how) as engine:
        if prompt + continuation - 1 > engine.context_length:
            raise click.UsageError(f"the context of {name} has {engine.context_length} tokens: a shorter --prompt")
        found: dict[str, Recall] = {}
        for side, files in (("trained on", trained), ("held out", held_out)):
            drawn = draw(engine, documents(files, split), prompt + continuation, passages, seed)
            if not drawn:
                raise TwofileError(
                    f"no document {side} has {prompt + continuation} tokens", "a shorter --prompt and --continue"
                )
            note(f"{side}: {len(drawn)} passages of {len({each.document for each in drawn})} documents")
            found[side] = recall(engine, drawn, prompt, continuation)
        trained_on, other = found["trained on"], found["held out"]
        apart = difference(trained_on.share, other.share)
        if as_json:
            click.echo(json.dumps({**{side: _json(each) for side, each in found.items()}, "difference": apart}))
            return
        rows = [("text", "passages", "documents", "recalled (95%)", "tokens right, mean")]
        rows += [
            (side, f"{len(r.right)}", f"{r.documents}", str(r.share), f"{r.mean_right:.1f} of {r.continuation}")
            for side, r in found.items()
        ]
        click.echo(table([*rows, ("difference", "", "", str(apart))], indent=""))
        for text in _recalled(engine, trained_on, show):
            click.echo(f"\n{text}")
        if max(len(r.right) / r.documents for r in found.values()) > 5:
            note("several passages of one document are not quite independent: the intervals are too narrow")


def _recalled(engine: Engine, found: Recall, n: int) -> list[str]:
    """Passages that were recalled: what was given | what the model said."""
    whole = [p.tokens for p, exact in zip(found.passages, found.exact, strict=True) if exact][:n]
    cut = found.prompt
    return [plain(f"{engine.detokenize(ids[:cut])} | {engine.detokenize(ids[cut:])}") for ids in whole]


def _json(found: Recall) -> dict[str, Any]:
    return {
        "passages": len(found.right),
        "documents": found.documents,
        "prompt": found.prompt,
        "continuation": found.continuation,
        "recalled": sum(found.exact),
        "share": found.share,
        "tokens_right": found.right,
    }
