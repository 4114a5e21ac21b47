"""Train a recipe with all processes that torchrun started; the same call goes on with a run that was stopped."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from twofile.params.mixture import FILE_TYPES
from twofile.params.names import target
from twofile.train.parallel import join
from twofile.train.pretrain.begin import plainly, settle
from twofile.train.pretrain.export import export
from twofile.train.pretrain.stage import pretrain


def main() -> None:
    """What the module says."""
    parser = argparse.ArgumentParser(prog="python -m twofile.train.pretrain", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the recipe's files")
    parser.add_argument("--into", type=Path, required=True, help="the folder for logs and checkpoints")
    parser.add_argument("--out", type=target, help="what to make: a local name, or a path that ends in .gguf")
    parser.add_argument("--type", type=str.upper, choices=FILE_TYPES, default="Q8_0", help="of the matrices in OUT")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    with plainly():
        given = parser.parse_args()
        length = {"minutes": given.minutes, "steps": given.steps}
        with join() as world:
            recipe = settle(given.recipe, given.data, given.into, given.out, **length)
            result = pretrain(recipe, given.data, given.into)[2]
        if world.rank == 0:
            print(result)
        if world.rank == 0 and given.out is not None:
            command = shlex.join(["python", "-m", "twofile.train.pretrain", *sys.argv[1:]])
            export(recipe, given.into, given.out, type=given.type, command=command)
            print(given.out)


if __name__ == "__main__":
    main()
