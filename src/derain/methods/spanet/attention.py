"""The spatial attentive module (SAM) of SPANet: features to a map of how rainy each pixel is.

The direction attention, whose result the published network discards, is kept as parameters only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.nn.irnn import sweep


class Sweep(nn.Module):
    """The recurrence along every line of the picture in one direction; (B, C, H, W) -> the same.

    Its numbers have the shapes of a 1x1 depthwise convolution, as published.
    """

    def __init__(self, width: int, direction: str) -> None:
        super().__init__()
        self.vertical = direction in ("up", "down")
        self.reverse = direction in ("up", "left")
        self.weight = nn.Parameter(torch.full((width, 1, 1, 1), 0.2))
        self.bias = nn.Parameter(torch.empty(width))
        nn.init.uniform_(self.bias, -(width**-0.5), width**-0.5)  # the rule of the published release

    def forward(self, x: Tensor) -> Tensor:
        along = x.permute(0, 2, 3, 1) if self.vertical else x.permute(0, 3, 2, 1)
        h = sweep(along, self.weight.flatten(), self.bias, self.reverse).to(x.dtype)
        return h.permute(0, 3, 1, 2) if self.vertical else h.permute(0, 3, 2, 1)


class IRNN(nn.Module):
    """All four sweeps: (B, C, H, W) -> concat[up, right, down, left], (B, 4C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left_weight = Sweep(width, "left")
        self.right_weight = Sweep(width, "right")
        self.up_weight = Sweep(width, "up")
        self.down_weight = Sweep(width, "down")

    def forward(self, x: Tensor) -> Tensor:
        sweeps = (self.up_weight, self.right_weight, self.down_weight, self.left_weight)
        return torch.cat([one(x) for one in sweeps], 1)


class SpatialAttention(nn.Module):
    """SAM: features (B, C, H, W) -> map (B, 1, H, W) in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.irnn1 = IRNN(width)
        self.irnn2 = IRNN(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4 * width, width, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(4 * width, width, 3, padding=1, bias=False)
        # The published network computes this attention and discards it. Parameters only.
        self.attention_layer = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(width, width // 2, 3),
                "conv2": nn.Conv2d(width // 2, width // 2, 3),
                "conv3": nn.Conv2d(width // 2, 4, 1),
            }
        )
        self.conv_out = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, f: Tensor) -> Tensor:
        b = self.conv2(self.irnn1(self.conv_in(f)))
        c = self.conv3(self.irnn2(b))
        return torch.sigmoid(self.conv_out(F.relu(c)))
