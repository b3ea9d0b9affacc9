"""The training loss of this project's own network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.contract import Loss

# 42 dB. Above that the logarithm is so steep that the dry pictures of a batch, which are nearly right,
# would outweigh all the others.
SMALLEST_MSE = 6e-5
# A pixel brighter than the truth by this much is covered by rain; smaller differences are noise and JPEG,
# which both pictures of a pair have.
RAIN = 0.03
# Rain brighter than this stands out, and a network removes it anyway.
BRIGHT_RAIN = 0.25


@dataclass(frozen=True)
class EverydayLoss(Loss):
    """L1 with weight 1, and what follows.

    Attributes:
        log_mse: weight of log10 of each picture's mean squared error, of which a mean PSNR is made.
        colour: weight of the L1 distance between the means of 16x16 pixels, which preserves brightness
            and colour.
        residual: extra weight, as a share, of errors where it rains faintly and the result is brighter than
            the truth; the brighter the rain, the smaller. Without it, a network leaves what it is not sure
            to be rain; with it on bright rain, too, it takes more than the rain and leaves dark traces.
    """

    log_mse: float = 0.05
    colour: float = 0.2
    residual: float = 0.3

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        image = outputs["image"]
        error = image - clean
        rain = rainy - clean
        faint = (1 - (rain - RAIN) / (BRIGHT_RAIN - RAIN)).clamp(min=0)
        error = torch.where((error > 0) & (rain > RAIN), (1 + self.residual * faint) * error, error)
        return {
            "l1": error.abs().mean(),
            "log_mse": self.log_mse * torch.log10(error.square().mean((1, 2, 3)) + SMALLEST_MSE).mean(),
            "colour": self.colour * F.l1_loss(F.avg_pool2d(image, 16), F.avg_pool2d(clean, 16)),
        }
