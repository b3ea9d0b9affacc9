"""Per-pixel normalisation over the channels, as in the Restormer family of Transformers.

Both forms divide by sqrt(v + 1e-5), v being the biased variance of one pixel's channels about
their mean m (Zamir et al., "Restormer", CVPR 2022, and its published code):

    with bias    (x - m) / sqrt(v + 1e-5) * weight + bias
    bias free     x      / sqrt(v + 1e-5) * weight

On channels-last memory the first is the library's fused layer norm over contiguous numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5


class ChannelNorm(nn.Module):
    """(B, C, H, W) -> (B, C, H, W) in channels-last memory; each pixel by itself.

    The state dict has `body.weight` (C) and, with bias, `body.bias` (C).

    Args:
        channels: C.
        bias_free: the second form above.
    """

    def __init__(self, channels: int, bias_free: bool = False) -> None:
        super().__init__()
        self.body = _Scale(channels, bias_free)

    def forward(self, x: Tensor) -> Tensor:
        return channel_norm(x.permute(0, 2, 3, 1), self.body.weight, self.body.bias).permute(0, 3, 1, 2)


class _Scale(nn.Module):
    """The trained numbers of a norm, below the published name `body`."""

    def __init__(self, channels: int, bias_free: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = None if bias_free else nn.Parameter(torch.zeros(channels))


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The norm over the last axis: with a bias the first form, without one the second.

    Args:
        x: (..., C).
        weight: (C,).
        bias: (C,), or None for the bias-free form.
    """
    if bias is not None:
        return F.layer_norm(x, weight.shape, weight, bias, EPSILON)
    return x * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + EPSILON) * weight
