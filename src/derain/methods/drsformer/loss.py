"""DRSformer's training loss: the mean absolute error, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from derain.methods.contract import Loss


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The mean absolute error."""

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        return {"l1": F.l1_loss(outputs["image"], clean)}
