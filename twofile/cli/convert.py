"""`twofile import` and `twofile export`: other people's layouts."""

from __future__ import annotations

from pathlib import Path

import click

from twofile.cli.console import note, progress, size
from twofile.cli.options import find, force_option, output
from twofile.errors import NotFoundError, TwofileError


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out")
@click.option("--type", "kind", help="The type of the matrices. [as they are in SOURCE]")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="llama2.c: tokenizer.bin. [beside the checkpoint]")
@force_option
def import_command(source: Path, out: str, kind: str | None, tokenizer: Path | None, force: bool) -> None:
    """Make the parameters file OUT (a path or a local name) of SOURCE.

    SOURCE is a Hugging Face folder (config.json, safetensors, tokenizer.json; Llama, Qwen2 or Qwen3), or a checkpoint
    of llama2.c (model.bin).
    """
    if not source.exists():
        raise NotFoundError(f"{source} does not exist", "give a Hugging Face folder or a llama2.c .bin file")
    path = output(out, force)
    if source.is_dir():
        from twofile.params.huggingface import import_directory

        with progress(source.name) as report:
            import_directory(source, path, kind, progress=report)
    else:
        from twofile.params.llama2c import import_checkpoint

        with progress(source.name) as report:
            import_checkpoint(source, tokenizer or _tokenizer_beside(source), path, kind or "F32", report)
    click.echo(path)
    note(f"{size(path.stat().st_size)}; try: twofile chat {out}")


def _tokenizer_beside(checkpoint: Path) -> Path:
    """The only tokenizer of llama2.c in the checkpoint's folder."""
    found = sorted(checkpoint.parent.glob("tok*.bin"))
    if len(found) == 1:
        return found[0]
    raise NotFoundError(
        f"there are {len(found)} files tok*.bin beside {checkpoint.name}, so its tokenizer must be named",
        f"twofile import {checkpoint} NAME --tokenizer tokenizer.bin",
    )


@click.command("export")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--type", "kind", type=click.Choice(["F32", "F16", "BF16"]), help="[F16 and BF16 as they are, else F32]")
@click.option(
    "--format", "layout", type=click.Choice(["hf"]), default="hf", help="hf: what transformers and vLLM load."
)
@force_option
def export_command(name: str, folder: Path, kind: str | None, layout: str, force: bool) -> None:
    """Make the Hugging Face folder FOLDER of the model NAME."""
    if (folder / "config.json").exists() and not force:
        raise TwofileError(f"{folder} holds a model already", "--force replaces it; another folder keeps both")
    from twofile.params.huggingface import export_directory

    source = find(name)
    with progress(f"{name} to {folder}"):
        export_directory(source, folder, kind)
    click.echo(folder)
