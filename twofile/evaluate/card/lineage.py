"""From a model back to what it was made from: the files that its provenance names by their checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from twofile.errors import TwofileError
from twofile.params.checksum import file_sha256
from twofile.params.parameters import Parameters
from twofile.params.provenance import Provenance

__all__ = ["Member", "lineage"]


@dataclass(frozen=True)
class Member:
    """A file of a lineage. `stages`: how many of its provenance it has behind it."""

    name: str
    path: Path
    sha256: str
    bytes: int
    parameters: int
    provenance: Provenance

    @property
    def stages(self) -> int:
        return len(self.provenance.stages)

    @classmethod
    def open(cls, path: Path) -> Member:
        """What a file says of itself. ParametersError for one that cannot be used."""
        with Parameters.open(path) as file:
            sha256, n = file.sha256(), file.hyper.n_parameters
            return cls(path.stem, path, sha256, path.stat().st_size, n, file.provenance)


def lineage(path: Path, among: Iterable[Path], say: Callable[[str], object] = print) -> list[Member]:
    """The files from the oldest that is found to `path`. `among`: where to look for the files that it was made from;
    reading all of them for their checksums takes about a second a gigabyte."""
    found = [Member.open(path)]
    known: dict[str, Path] | None = None
    while parent := found[0].provenance.parent:
        if known is None:
            known = {file_sha256(one): one for one in sorted(set(among)) if one.is_file()}
        if parent not in known or parent in {member.sha256 for member in found}:
            say(f"{found[0].name} was made from a file that is not here (sha256 {parent[:16]}...)")
            break
        try:
            found.insert(0, Member.open(known[parent]))
        except TwofileError as error:
            say(error.message)
            break
    return found
