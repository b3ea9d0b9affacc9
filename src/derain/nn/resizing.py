"""What stands between the levels of the Restormer family of Transformers (Zamir et al., CVPR 2022).

Results are channels-last in memory, which the blocks between them want.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.nn.pixels import as_map, as_pixels, plus_product
from derain.nn.tracing import constant


class PatchEmbedding(nn.Module):
    """(B, inputs, H, W) -> (B, channels, H, W)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, 2C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.body(x), 2).contiguous(memory_format=torch.channels_last)


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C/2, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.body(x), 2).contiguous(memory_format=torch.channels_last)

    def joined(self, x: Tensor, skip: Tensor, reduction: nn.Conv2d) -> Tensor:
        """reduction([self(x); skip]), a 1x1 convolution, without the two tensors in between.

        Of the reduction, what meets self(x) is merged into the kernel here, and what meets skip is
        one matrix product that adds to the result.

        Args:
            x: (B, C, H, W).
            skip: (B, S, 2H, 2W).
            reduction: weight (O, C/2 + S, 1, 1).

        Returns:
            (B, O, 2H, 2W).
        """
        kernel = self.body[0].weight
        assert isinstance(kernel, Tensor)
        batch, inputs, height, width = x.shape
        outputs = len(reduction.weight)
        of_up, of_skip = reduction.weight.flatten(1).tensor_split([inputs // 2], 1)
        # Output channels in the order row, column, channel: then whole runs of numbers move.
        merged = torch.einsum("ou,usikl->soikl", of_up, kernel.view(inputs // 2, 4, inputs, 3, 3))
        y = F.conv2d(x, constant(merged.flatten(0, 1)), padding=1).permute(0, 2, 3, 1)
        y = y.reshape(batch, height, width, 2, 2 * outputs).transpose(2, 3).reshape(batch, -1, outputs)
        y = plus_product(y, as_pixels(skip), constant(of_skip.t()))
        return as_map(y if reduction.bias is None else y + reduction.bias, skip)
