"""Rain2Avoid's training loss: the mean squared error alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from derain.methods.contract import Loss


@dataclass(frozen=True)
class SquaredError(Loss):
    """The mean squared error from the clean picture, or from a reference made of the rainy one."""

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        return {"mse": F.mse_loss(outputs["image"], clean)}
