"""`twofile show`: what a parameters file holds and where it comes from."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from twofile.cli.console import plain, progress, size, table
from twofile.cli.options import find

if TYPE_CHECKING:
    from twofile.params.adapter import Adapter
    from twofile.params.provenance import Provenance


@click.command("show")
@click.argument("name")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--template", is_flag=True, help="Print the chat template and nothing else.")
@click.option("--no-checksum", is_flag=True, help="Do not read the whole file for its checksum.")
def show_command(name: str, tensors: bool, template: bool, no_checksum: bool) -> None:
    """Show what the parameters file NAME holds: architecture, tensors, size, tokenizer, lineage."""
    from twofile.params.adapter import Adapter
    from twofile.params.parameters import Parameters
    from twofile.params.show import describe

    path = find(name)
    if Adapter.is_in(path):
        adapter = Adapter.open(path)
        if template:
            click.echo(plain(adapter.chat_template))
            return
        click.echo(_adapter(adapter))
        if tensors:
            shapes = [(name, (len(b), a.shape[1]), len(a)) for name, (a, b) in adapter.pairs.items()]
            listed = [(plain(name), " x ".join(map(str, shape)), f"rank {rank}") for name, shape, rank in shapes]
            click.echo("\n" + table(listed, indent=""))
        return
    with Parameters.open(path) as parameters:
        if template:
            click.echo(plain(parameters.vocabulary.chat_template or ""))
            return
        with progress("checksum") if not no_checksum else nullcontext():
            about = describe(parameters, checksum=not no_checksum)
    hyper = about.hyper
    heads = f"{hyper.n_heads} heads of {hyper.head_dim}"
    if hyper.n_kv_heads != hyper.n_heads:
        heads += f" on {hyper.n_kv_heads} keys and values"
    rope = f"rotary positions of base {hyper.rope_theta:g}"
    if hyper.rope_factors is not None or hyper.rope_scale != 1:
        rope += ", scaled"
    types = ", ".join(f"{kind.tensors} {kind.type} ({size(kind.bytes)})" for kind in about.types)
    rows = [
        ("file", about.path),
        ("name", about.name),
        ("size", f"{size(about.bytes)}, {about.bits_per_weight:.2f} bits a weight"),
        ("sha256", about.sha256),
        ("architecture", f"{hyper.architecture}, {size(about.n_parameters, '').replace(' ', '')} parameters"),
        ("layers", f"{hyper.n_layers} of width {hyper.dim}, feed-forward {hyper.ffn_dim}, {heads}"),
        ("output", "the embedding" if hyper.tied else "a matrix of its own"),
        ("context", f"{hyper.context_length} tokens, {rope}"),
        ("tensors", f"{len(about.tensors)}: {types}"),
        ("tokenizer", about.tokenizer),
        ("special", ", ".join(f"{role} {text}" for role, text in about.special.items())),
        ("chat template", about.chat_template),
        *_lineage(about.provenance),
    ]
    click.echo(table([(key, plain(value)) for key, value in rows if value], indent=""))
    if tensors:
        click.echo()
        listing = [
            (plain(info.name), " x ".join(map(str, info.shape)), info.type, size(info.bytes)) for info in about.tensors
        ]
        click.echo(table(listing, indent=""))


def _adapter(adapter: Adapter) -> str:
    ranks = sorted({len(a) for a, _ in adapter.pairs.values()})
    numbers = sum(a.size + b.size for a, b in adapter.pairs.values())
    rows = [
        ("file", adapter.path),
        ("name", adapter.provenance.name),
        ("adapter", f"low-rank changes (LoRA) to {len(adapter.pairs)} matrices of a {adapter.architecture} model"),
        (
            "rank",
            f"{', '.join(map(str, ranks))}, alpha {adapter.alpha:g}, {size(numbers, '').replace(' ', '')} numbers",
        ),
        ("chat template", "its own" if adapter.chat_template else ""),
        *_lineage(adapter.provenance),
    ]
    return table([(key, plain(value)) for key, value in rows if value], indent="")


def _lineage(provenance: Provenance) -> list[tuple[str, str]]:
    made = f"twofile {provenance.version}" if provenance.version else ""
    return [
        ("description", provenance.description),
        ("licence", provenance.license),
        ("made by", f"{made}, commit {provenance.commit}" if provenance.commit else made),
        ("command", provenance.command),
        *(("stage", stage) for stage in provenance.stages),
        *(("data", data) for data in provenance.data),
        ("made from", provenance.parent),
    ]
