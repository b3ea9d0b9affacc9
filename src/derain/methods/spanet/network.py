"""SPANet: spatial attentive network for single-image deraining (Wang et al., CVPR 2019).

A full-resolution residual network of 17 dilated blocks. Four times a spatial attentive module
(SAM) turns the features into a one-channel map of how rainy each pixel is; the next three blocks
may change the features only in proportion to it. The SAM sees along whole streaks by two
four-direction recurrent sweeps (`nn/irnn.py`).

Form, not value, differs from the paper's code in three places: pictures are RGB here and are
turned to the blue-green-red order of the published weights inside; horizontal sweeps run on the
transposed picture, where the convolution after them is applied with transposed kernels; and the
SAM's direction attention, whose result the published network discards, is kept as parameters only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.contract import Tile
from derain.nn.irnn import sweep

DIRECTIONS = ("left", "right", "up", "down")
BLOCKS = 17


class SPANet(nn.Module):
    """The network; state dict names and shapes are the published ones.

    Args:
        width: channels of the features, 32 as published.
    """

    size_multiple = 1
    reach = None
    tile: Tile | None = None
    refused_precisions: ClassVar[Mapping[str, str]] = {}

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.conv_in = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.ReLU())
        self.SAM1 = SpatialAttention(width)
        for number in range(1, BLOCKS + 1):
            self.add_module(f"res_block{number}", ResidualBlock(width))
        self.conv_out = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1, bias=False))

    def outputs(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, 3, H, W), not clamped; `mask` (B, 1, H, W) in (0, 1), the first rain map."""
        masks = []
        f = self.conv_in(rainy.flip(1))
        for number in range(1, BLOCKS + 1):
            branch = self.get_submodule(f"res_block{number}")(f)
            if 4 <= number <= 15:
                if number % 3 == 1:
                    masks.append(self.SAM1(f))
                branch = branch * masks[-1]
            f = F.relu(branch + f)
        return {"image": self.conv_out(f).flip(1), "mask": masks[0]}

    def forward(self, rainy: Tensor) -> Tensor:
        """The restored picture, (B, 3, H, W) RGB; values may leave [0, 1] slightly."""
        return self.outputs(rainy)["image"]

    def multiply_adds(self, height: int, width: int) -> int:
        """526,144 per pixel at width 32."""
        c = self.width
        blocks = BLOCKS * 11 * c * c
        attention = 4 * (9 * c * c + 2 * 9 * 4 * c * c + c)
        sweeps = 4 * 2 * 4 * c
        return (blocks + attention + sweeps + 2 * 9 * 3 * c) * height * width


class ResidualBlock(nn.Module):
    """The branch of one block: 1x1, dilated 3x3, 1x1; the caller adds it to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group1 = nn.Sequential()
        self.group1.add_module("conv1", nn.Conv2d(width, width, 1, bias=False))
        self.group1.add_module("relu1", nn.ReLU())
        self.group1.add_module("conv2", nn.Conv2d(width, width, 3, padding=2, dilation=2, bias=False))
        self.group1.add_module("relu2", nn.ReLU())
        self.group1.add_module("conv3", nn.Conv2d(width, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.group1(x)
        return branch


class IRNN(nn.Module):
    """Weights and biases of the four sweeps, stored as 1x1 depthwise convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for direction in DIRECTIONS:
            conv = nn.Conv2d(width, width, 1, groups=width)
            nn.init.constant_(conv.weight, 0.2)
            nn.init.uniform_(conv.bias, -(width**-0.5), width**-0.5)  # the rule of the published release
            self.add_module(f"{direction}_weight", conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H, W): the sweeps up, right, down, left, in this order."""
        vertical, horizontal = self.sweeps(x)
        (up, down), (left, right) = vertical.chunk(2, 1), horizontal.transpose(2, 3).chunk(2, 1)
        return torch.cat([up, right, down, left], 1)

    def sweeps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[up, down] as (B, 2C, H, W) and [left, right] as (B, 2C, W, H), transposed."""
        return self._pair(x, "up", "down"), self._pair(x.transpose(2, 3), "left", "right")

    def _pair(self, x: Tensor, backward: str, forward: str) -> Tensor:
        """Both sweeps along the rows of (B, C, H, W) -> (B, 2C, H, W)."""
        b, c, h, w = x.shape
        lines = x.permute(2, 0, 3, 1).reshape(h, b * w, c)
        both = [
            sweep(lines, *self._parameters_of(name), reverse=name == backward)
            for name in (backward, forward)
        ]
        return torch.cat(both, 2).reshape(h, b, w, 2 * c).permute(1, 3, 0, 2).to(x.dtype)

    def _parameters_of(self, direction: str) -> tuple[Tensor, Tensor]:
        conv = self.get_submodule(f"{direction}_weight")
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        return conv.weight.flatten(), conv.bias


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
        a = self.conv_in(f)
        b = _conv_of_sweeps(*self.irnn1.sweeps(a), self.conv2.weight)
        c = F.relu(_conv_of_sweeps(*self.irnn2.sweeps(b), self.conv3.weight))
        return torch.sigmoid(self.conv_out(c))


def _conv_of_sweeps(vertical: Tensor, horizontal: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution of concat[up, right, down, left] without making that tensor."""
    up, right, down, left = weight.chunk(4, 1)
    upright = F.conv2d(vertical, torch.cat([up, down], 1), padding=1)
    lying = F.conv2d(horizontal, torch.cat([left, right], 1).transpose(2, 3), padding=1)
    return upright + lying.transpose(2, 3)
