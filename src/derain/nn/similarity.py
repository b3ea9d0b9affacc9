"""Structural similarity as a term of training losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of two batches (B, C, H, W) in [0, 1]: 11x11 Gaussian of sigma 1.5, zero padding.

    Differs from the measured SSIM (`derain.evaluation.similarity`) at the borders, and because gradients flow
    through it (Wang et al., "Image quality assessment", 2004).
    """
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
