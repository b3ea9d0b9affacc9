"""The spatial attentive module (SAM) of SPANet: features to a map of how rainy each pixel is.

Horizontal sweeps run on the transposed picture, where the convolution after them is applied with
transposed kernels. The direction attention, whose result the published network discards, is kept
as parameters only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.nn.irnn import sweep

DIRECTIONS = ("left", "right", "up", "down")


class IRNN(nn.Module):
    """Weights and biases of the four sweeps, stored as 1x1 depthwise convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for direction in DIRECTIONS:
            conv = nn.Conv2d(width, width, 1, groups=width)
            nn.init.constant_(conv.weight, 0.2)
            assert conv.bias is not None
            nn.init.uniform_(conv.bias, -(width**-0.5), width**-0.5)  # the rule of the published release
            self.add_module(f"{direction}_weight", conv)

    def forward(
        self, x: Tensor, below: Tensor | None = None, above: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sweeps of (B, C, H, W): [up, down] as (B, 2C, H, W), [left, right] as (B, 2C, W, H).

        `below` and `above`, each (B, C, 1, W), are the up state of the row below x and the down
        state of the row above it, when x is a strip of a larger picture.
        """
        vertical = [self.sweep(x, "up", below), self.sweep(x, "down", above)]
        lying = x.transpose(2, 3)
        horizontal = [self.sweep(lying, "left"), self.sweep(lying, "right")]
        return torch.cat(vertical, 1), torch.cat(horizontal, 1)

    def sweep(self, x: Tensor, direction: str, before: Tensor | None = None) -> Tensor:
        """One sweep along the rows of x (B, C, H, W), same shape; left and right take x transposed."""
        conv = self.get_submodule(f"{direction}_weight")
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        state = None if before is None else _lines(before)[0]
        backward = direction in ("up", "left")
        h = sweep(_lines(x), conv.weight.flatten(), conv.bias, backward, state)
        return h.view(x.shape[2], x.shape[0], x.shape[3], -1).permute(1, 3, 0, 2).to(x.dtype)


def _lines(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (H, B W, C), what `nn.irnn.sweep` steps over."""
    return x.permute(2, 0, 3, 1).flatten(1, 2)


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
        b = conv_of_sweeps(self.irnn1(a), self.conv2.weight)
        c = conv_of_sweeps(self.irnn2(b), self.conv3.weight)
        return self.map_of(c)

    def map_of(self, c: Tensor) -> Tensor:
        """The last step: what the second sweeps gave, (B, C, H, W), to the map (B, 1, H, W)."""
        return torch.sigmoid(self.conv_out(F.relu(c)))


def conv_of_sweeps(sweeps: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """3x3 convolution of concat[up, right, down, left] without making that tensor.

    Args:
        sweeps: what `IRNN` gives, vertical and transposed horizontal.
        weight: (C, 4C, 3, 3).
    """
    vertical, horizontal = sweeps
    up, right, down, left = weight.chunk(4, 1)
    upright = F.conv2d(vertical, torch.cat([up, down], 1), padding=1)
    lying = F.conv2d(horizontal, torch.cat([left, right], 1).transpose(2, 3), padding=1)
    return upright + lying.transpose(2, 3)
