"""SPANet's training loss: L1, structural dissimilarity and supervision of the first rain map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.contract import Loss
from derain.nn.similarity import structural_similarity

SMALLEST_MSE = 1e-5  # 50 dB: a picture as good as that adds nothing to the loss


@dataclass(frozen=True)
class SPANetLoss(Loss):
    """L1 with weight 1, and what follows; pictures are 8-bit ones divided by 255.

    Attributes:
        dissimilarity: weight of 1 - SSIM, 1 in the paper.
        mask: weight of the error of the first rain map, 1 in the paper.
        log_mse: weight of log10 of each picture's mean squared error, which is what a mean PSNR averages;
            not in the paper.
    """

    dissimilarity: float = 1.0
    mask: float = 1.0
    log_mse: float = 0.0

    def __call__(self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        terms = {
            "l1": F.l1_loss(outputs["image"], clean),
            "dissimilarity": self.dissimilarity * (1 - structural_similarity(outputs["image"], clean)),
            "mask": self.mask * F.mse_loss(outputs["mask"], rain_mask(rainy, clean)),
        }
        if self.log_mse:
            squared = (outputs["image"] - clean).square().mean((1, 2, 3))
            terms["log_mse"] = self.log_mse * torch.log10(squared + SMALLEST_MSE).mean()
        return terms


def rain_mask(rainy: Tensor, clean: Tensor) -> Tensor:
    """1 where any channel of the two 8-bit pictures differs at all, else 0; (B, 1, H, W)."""
    differs = (rainy - clean).abs().amax(1, keepdim=True) > 0.5 / 255
    return differs.to(rainy.dtype)
