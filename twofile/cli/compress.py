"""`twofile compress` and `twofile decompress`: a text as what a model did not foresee of it, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twofile.cli.console import note, plain, progress, size, table
from twofile.cli.options import find, force_option
from twofile.errors import EngineError, NotFoundError, TwofileError

if TYPE_CHECKING:
    from twofile.evaluate.archive import Archive

SUFFIX = ".2f"
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_threads = click.option("--threads", type=click.IntRange(0, 1024), default=0, help="0: one a core. Changes no bit.")


@click.command("compress")
@click.argument("file", type=_file)
@click.option("--model", default="stories", show_default=True, help="The parameters file that foresees.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help=f"What to write. [FILE{SUFFIX}]")
@click.option(
    "--kernels",
    type=click.Choice(["native", "avx2", "c"]),
    default="native",
    help="Instructions to compute with, here and when it is decompressed: c for any x86-64. [the best here]",
)
@click.option(
    "--parts", type=click.IntRange(0), default=0, help="More: decompressed faster. Fewer: smaller. 0: by size."
)
@click.option("--check", is_flag=True, help="Decompress it again and compare before it is written: some times as long.")
@_threads
@force_option
def compress_command(
    file: Path, model: str, out: Path | None, kernels: str, parts: int, check: bool, threads: int, force: bool
) -> None:
    """Compress FILE with a model, and show its bits per byte beside those of xz, zstd and brotli.

    Decompressing needs the same parameters file and the same arithmetic. Both are written into the file, and checked.
    """
    from twofile.evaluate.archive import Archive
    from twofile.evaluate.compress import compress, decompress
    from twofile.evaluate.peers import peers

    target = _target(out or file.with_name(file.name + SUFFIX), force)
    data, path = file.read_bytes(), find(model)
    began = time.perf_counter()
    with progress(f"compressing {file.name}") as report:
        archive = compress(
            data,
            path,
            name=model,
            kernels=kernels.replace("native", ""),
            threads=threads,
            parts=parts,
            progress=report,
        )
    seconds = time.perf_counter() - began
    raw = archive.to_bytes()
    if check:
        with progress(f"checking {file.name}") as report:
            decompress(Archive.from_bytes(raw, file.name), path, threads=threads, progress=report)
    _write(target, raw)
    click.echo(target)
    ours: dict[str, int | None] = {f"twofile, {plain(path.stem)}": len(raw)}
    click.echo(table([("", "bytes", "bits a byte"), *_rows(ours | peers(data), len(data))]))
    note(f"[{'; '.join([*_remarks(archive), f'{size(len(data) / seconds)}/s'])}]")


def _rows(sizes: dict[str, int | None], n: int) -> list[tuple[str, str, str]]:
    return [("as it is", f"{n:,}", "8.000" if n else ""), *(_row(name, found, n) for name, found in sizes.items())]


def _row(name: str, found: int | None, n: int) -> tuple[str, str, str]:
    return (name, "not installed", "") if found is None else (name, f"{found:,}", f"{8 * found / n:.3f}" if n else "")


def _remarks(archive: Archive) -> list[str]:
    """What is not in the table: the model's size, where it can be decompressed, what the model did not keep."""
    from twofile.evaluate.archive import Form

    others = [part for part in archive.parts if part.form != Form.MODEL]
    words = []
    if archive.longest:
        words.append(f"the parameters file, {size(archive.model_size)}, is needed too and not counted")
        words.append(
            f"so are the kernels {archive.kernels}" + (" (--kernels c: any x86-64)" if archive.kernels != "c" else "")
        )
    if others:
        kept = size(sum(part.size for part in others))
        words.append(f"{kept} of {size(archive.size)} are kept without the model, which would not make them shorter")
    return words


@click.command("decompress")
@click.argument("file", type=_file)
@click.option("--model", help="The parameters file that it was compressed with. [found by its checksum]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help=f"What to write. [FILE without {SUFFIX}]")
@_threads
@force_option
def decompress_command(file: Path, model: str | None, out: Path | None, threads: int, force: bool) -> None:
    """Give back what `twofile compress` made FILE of, to the last byte, or say why that cannot be."""
    from twofile.evaluate.archive import Archive
    from twofile.evaluate.compress import decompress

    if out is None and file.suffix != SUFFIX:
        raise click.UsageError(f"the name {file.name} does not end in {SUFFIX}: say with -o what to write")
    target = _target(out or file.with_suffix(""), force)
    archive = Archive.from_bytes(file.read_bytes(), str(file))
    path = find(model) if model else _same(archive)
    try:
        with progress(f"decompressing {file.name}") as report:
            data = decompress(archive, path, threads=threads, progress=report)
    except (EngineError, NotFoundError) as error:
        raise type(error)(f"{file} cannot be decompressed: {error.message}", error.hint) from error
    _write(target, data)
    click.echo(target)


def _same(archive: Archive) -> Path | None:
    """The parameters file that an archive needs, if it is on this machine: by its name, else by size and checksum."""
    from twofile.params import names
    from twofile.params.checksum import file_sha256

    if not archive.longest:
        return None
    here = {**names.bundled(), **names.local(), **names.pulled()}
    given = Path(archive.model)
    for path in (here.get(archive.model), given if given.suffix == ".gguf" else None, *here.values()):
        if path is None or not path.is_file() or path.stat().st_size != archive.model_size:
            continue
        if file_sha256(path) == archive.model_sha256.hex():
            return path
    return None


def _target(path: Path, force: bool) -> Path:
    if path.exists() and not force:
        raise TwofileError(f"{path} is there already", "--force replaces it; -o names another")
    return path


def _write(path: Path, data: bytes) -> None:
    from twofile.params.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
