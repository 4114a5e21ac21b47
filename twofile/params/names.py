"""From a name to a parameters file.

A name is, in this order:

1. `hf:user/repo[:file]`, a file on a hub, downloaded once (`twofile.params.pull`) and found here ever after;
2. a path to a file;
3. a local name: `mine` is `mine.gguf` in the models folder, which is `$TWOFILE_HOME/models`, or `models` in the
   platform's folder for user data;
4. a bundled name: `stories` comes with the package.

A name that leads nowhere is a `NotFoundError` that suggests names near it. Only rule 1 can touch the network.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path

from twofile.errors import NotFoundError
from twofile.params.pull import HubName, Progress, choose, pull

__all__ = ["bundled", "local", "models_folder", "pulled", "resolve", "target"]

_BUNDLED = Path(__file__).resolve().parent.parent / "models"
_LOCAL = re.compile(r"[\w+-][\w.+-]*")  # no separator, no leading dot: such a name cannot leave its folder


def models_folder() -> Path:
    """Where local names live. The folder need not exist yet."""
    home = os.environ.get("TWOFILE_HOME")
    if home:
        return Path(home).expanduser() / "models"
    from platformdirs import user_data_path

    return user_data_path("twofile", appauthor=False) / "models"


def bundled() -> dict[str, Path]:
    """The parameters files of the package, by name."""
    return _in_folder(_BUNDLED)


def local() -> dict[str, Path]:
    """The parameters files of the models folder, by local name."""
    return _in_folder(models_folder())


def pulled() -> dict[str, Path]:
    """The files already downloaded from a hub, by their full `hf:user/repo:file`."""
    root = models_folder() / "hf"
    paths = sorted(root.glob("*/*/**/*.gguf"))
    return {_hub_name(path.relative_to(root)): path for path in paths if path.is_file()}


def resolve(name: str, progress: Progress | None = None) -> Path:
    """The existing file that `name` leads to; `progress(done, total)` in bytes where it must be downloaded."""
    if name.startswith("hf:"):
        return _from_hub(HubName.parse(name), progress)
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown ~user, a zero byte
        raise NotFoundError(f"{name!r} is not a name: {error}", "twofile list") from None
    if not _is_path(name):
        for known in (local(), bundled()):
            if name in known:
                return known[name]
    if is_folder:
        raise NotFoundError(
            f"{name} is a folder, not a parameters file",
            f"twofile import {name} mine   (makes a parameters file of a Hugging Face folder)",
        )
    raise NotFoundError(f"there is no parameters file {name!r}", _suggest(name, path))


def target(name: str) -> Path:
    """The file that a command should write for `name`: a path as it is, a local name in the models folder.

    The folder of a local name is made; the folder of a path is not."""
    if _is_path(name):
        return Path(name).expanduser()
    if not _LOCAL.fullmatch(name):
        raise NotFoundError(
            f"{name!r} cannot be a local name: letters, digits and . _ + - only, and not a dot first",
            "give a path that ends in .gguf to write somewhere else",
        )
    folder = models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.gguf"


def _is_path(name: str) -> bool:
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return name.endswith(".gguf") or any(separator in name for separator in separators)


def _in_folder(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.gguf")) if _LOCAL.fullmatch(path.stem) and path.is_file()}


def _hub_name(relative: Path) -> str:
    user, repo, *file = relative.parts
    return f"hf:{user}/{repo}:{'/'.join(file)}"


def _from_hub(name: HubName, progress: Progress | None) -> Path:
    folder = models_folder()
    if name.file is None:
        prefix = f"hf:{name.repo}:"
        here = {key.removeprefix(prefix): path for key, path in pulled().items() if key.startswith(prefix)}
        chosen = choose(list(here))
        if chosen is not None:
            return here[chosen]
    elif (path := name.path(folder, name.file)).is_file():
        return path
    return pull(name, folder, progress)


def _suggest(name: str, path: Path) -> str:
    """Up to three names like this one, among local and bundled names and the files beside the path."""
    candidates = {known: known for known in [*bundled(), *local(), *pulled()]}
    try:
        for beside in path.parent.glob("*.gguf"):
            shown = str(path.parent / beside.name) if _is_path(name) and path.parent != Path() else beside.name
            candidates.setdefault(beside.name, shown)
            candidates.setdefault(beside.stem, shown)
    except OSError:
        pass  # a folder that cannot be read suggests nothing
    wanted = Path(name).name
    matches = get_close_matches(wanted, candidates, n=3, cutoff=0.5)
    matches += get_close_matches(wanted.removesuffix(".gguf"), candidates, n=3, cutoff=0.6)
    near = list(dict.fromkeys(candidates[match] for match in matches))[:3]
    known = "twofile list shows the models that are here"
    return f"did you mean {' or '.join(near)}?  {known}" if near else known
