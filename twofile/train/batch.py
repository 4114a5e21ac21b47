"""What a stage gives the model at once: named tensors that move together."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

__all__ = ["Batch"]


class Batch(dict[str, Tensor]):
    """Tensors of one micro-batch by their names, which end in their shapes (tokens_BT)."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same on a device."""
        return type(self)({name: held.to(device, non_blocking=non_blocking) for name, held in self.items()})
