"""SPANet's training loss: L1, structural dissimilarity and supervision of the first rain map."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_MSE = 1e-5  # 50 dB: a picture that is as good as that asks for nothing more


def loss_terms(
    outputs: Mapping[str, Tensor],
    clean: Tensor,
    rainy: Tensor,
    dissimilarity: float = 1.0,
    mask: float = 1.0,
    log_mse: float = 0.0,
) -> dict[str, Tensor]:
    """The terms; the loss is their sum.

    Args:
        outputs: of the network; `image` (B, 3, H, W) and `mask` (B, 1, H, W).
        clean: (B, 3, H, W) in [0, 1].
        rainy: (B, 3, H, W) in [0, 1]; both are 8-bit pictures divided by 255.
        dissimilarity, mask: weights of these terms, 1 in the paper; that of the first is always 1.
        log_mse: weight of log10 of each picture's mean squared error, of which a mean PSNR is made;
            not in the paper.
    """
    terms = {
        "l1": F.l1_loss(outputs["image"], clean),
        "dissimilarity": dissimilarity * (1 - structural_similarity(outputs["image"], clean)),
        "mask": mask * F.mse_loss(outputs["mask"], rain_mask(rainy, clean)),
    }
    if log_mse:
        squared = (outputs["image"] - clean).square().mean((1, 2, 3))
        terms["log_mse"] = log_mse * torch.log10(squared + SMALLEST_MSE).mean()
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
