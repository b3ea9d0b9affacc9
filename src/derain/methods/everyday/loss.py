"""The training loss of this project's own network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.contract import Loss
from derain.nn.similarity import structural_similarity

# 42 dB. Above that the logarithm is so steep that the dry pictures of a batch, which are nearly perfect,
# would outweigh all others.
SMALLEST_MSE = 6e-5
# A pixel that is brighter than in the clean picture by this much is covered by rain; smaller differences are
# noise and JPEG artefacts, which both pictures of a pair have.
RAIN = 0.03
# Rain brighter than this stands out, and a network removes it anyway.
BRIGHT_RAIN = 0.25


@dataclass(frozen=True)
class EverydayLoss(Loss):
    """L1 with weight 1, and what follows.

    Attributes:
        log_mse: weight of log10 of each picture's mean squared error, which is what a mean PSNR averages.
        colour: weight of the L1 distance between the means of 16x16 pixels, which preserves brightness
            and colour.
        residual: extra weight, as a share, of errors where rain is faint and the result is brighter than the
            clean picture; the brighter the rain, the smaller it is. Without it, a network leaves whatever
            it is not sure is rain; if it applied to bright rain as well, the network would remove more than
            the rain and leave dark traces.
        dissimilarity: weight of 1 - SSIM of the means of the colour channels, which preserves fine texture.
    """

    log_mse: float = 0.05
    colour: float = 0.2
    residual: float = 0.3
    dissimilarity: float = 0.0

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        image = outputs["image"]
        error = image - clean
        rain = rainy - clean
        faint = (1 - (rain - RAIN) / (BRIGHT_RAIN - RAIN)).clamp(min=0)
        error = torch.where((error > 0) & (rain > RAIN), (1 + self.residual * faint) * error, error)
        terms = {
            "l1": error.abs().mean(),
            "log_mse": self.log_mse * torch.log10(error.square().mean((1, 2, 3)) + SMALLEST_MSE).mean(),
            "colour": self.colour * F.l1_loss(F.avg_pool2d(image, 16), F.avg_pool2d(clean, 16)),
        }
        if self.dissimilarity:
            similarity = structural_similarity(image.mean(1, keepdim=True), clean.mean(1, keepdim=True))
            terms["dissimilarity"] = self.dissimilarity * (1 - similarity)
        return terms
