"""Where a stage after pretraining starts: a parameters file, ready to be trained further.

Weights are float32 from here on; those of a quantised file are what its blocks stand for, so a file in F32 or BF16 is
the better start. Cost: the parameters once in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import torch

from twofile.params.hyper import Hyperparameters
from twofile.params.parameters import Parameters
from twofile.params.provenance import Provenance
from twofile.params.vocabulary import Vocabulary
from twofile.train.model import Transformer

__all__ = ["Model", "Start"]

Model = TypeVar("Model", bound=Transformer)


@dataclass(frozen=True)
class Start:
    """A parameters file, as far as training needs it. `sha256` is of the whole file."""

    path: Path
    hyper: Hyperparameters
    vocabulary: Vocabulary
    provenance: Provenance
    sha256: str

    @classmethod
    def open(cls, path: Path) -> Start:
        """Read what a file says of itself. Raises ParametersError for one that is none."""
        with Parameters.open(path) as file:
            return cls(path, file.hyper, file.vocabulary, file.provenance, file.sha256())

    @overload
    def model(self) -> Transformer: ...

    @overload
    def model(self, kind: type[Model]) -> Model: ...

    def model(self, kind: type[Transformer] = Transformer) -> Transformer:
        """The model with the weights of the file. `kind`: a transformer with more parts, which stay as they begin."""
        with torch.random.fork_rng(devices=[]):  # making a model touches torch's generator
            model = kind(self.hyper)
        with Parameters.open(self.path) as file, torch.no_grad():
            for name, weight in model.named_parameters():
                if name in file.tensors:
                    weight.copy_(torch.from_numpy(file.read(name)))
        return model
