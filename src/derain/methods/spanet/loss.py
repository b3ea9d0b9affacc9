"""SPANet's training loss: L1, structural dissimilarity and supervision of the first rain map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.methods.contract import Loss

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


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM with an 11x11 Gaussian (sigma 1.5), zero padding and range 1, as trained with."""
    axis = torch.arange(11, dtype=torch.float32, device=a.device) - 5
    g = torch.exp(-(axis**2) / (2 * 1.5**2))
    g = (g / g.sum()).to(a.dtype)
    channels = a.shape[1]
    rows = g.view(1, 1, 11, 1).expand(channels, 1, 11, 1)

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, rows, padding=(5, 0), groups=channels)
        return F.conv2d(x, rows.transpose(2, 3), padding=(0, 5), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return (
        (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    ).mean()
