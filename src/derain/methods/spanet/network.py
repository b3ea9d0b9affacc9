"""SPANet: spatial attentive network for single-image deraining (Wang et al., CVPR 2019).

A full-resolution residual network of 17 dilated blocks. Four times a spatial attentive module
(SAM, `attention.py`) turns the features into a one-channel map of how rainy each pixel is; the next
three blocks may change the features only in proportion to it. The SAM sees along whole streaks by
two four-direction recurrent sweeps (`nn/irnn.py`).

One thing differs from the paper's code in form, not in value: pictures are RGB here and are converted
inside to the blue-green-red order of the published weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.network import RainNetwork, Spec
from derain.methods.spanet.attention import SpatialAttention
from derain.methods.spanet.fast import attention, over_strips, run_blocks, strips_of
from derain.nn.irnn import SWEEP_FUNCTION

BLOCKS = 17


class SPANet(RainNetwork):
    """The network; state dict names and shapes are the published ones.

    Args:
        width: channels of the features, 32 as published.
    """

    spec = Spec(maps=("mask",), onnx_functions=(SWEEP_FUNCTION,))

    # Residual blocks by number; before each attentive group the SAM makes a map for it.
    attentive = (range(4, 7), range(7, 10), range(10, 13), range(13, 16))
    groups = (range(1, 4), *attentive, range(16, 18))

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.conv_in = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.ReLU(inplace=True))
        self.SAM1 = SpatialAttention(width)
        for number in range(1, BLOCKS + 1):
            self.add_module(f"res_block{number}", ResidualBlock(width))
        self.conv_out = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1, bias=False))

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, 3, H, W), not clamped; `mask` (B, 1, H, W) in (0, 1), the first rain map."""
        masks: list[Tensor] = []
        f = self.conv_in(rainy.flip(1))
        for group in self.groups:
            if group in self.attentive:
                masks.append(self.SAM1(f))
            for block in self._blocks(group):
                branch = block(f)
                f = F.relu(f + (branch * masks[-1] if group in self.attentive else branch))
        return {"image": self.conv_out(f).flip(1), "mask": masks[0]}

    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """The same; large pictures strip by strip, in a tenth of the memory."""
        strips = strips_of(*rainy.shape[2:])
        masks: list[Tensor] = []
        f = over_strips(lambda x: self.conv_in(x.flip(1)), rainy, strips)
        for group in self.groups:
            if group in self.attentive:
                masks.append(attention(self.SAM1, f, strips))
            scale = masks[-1] if group in self.attentive else None
            f = run_blocks(self._blocks(group), f, scale, strips)
        return {"image": over_strips(self.conv_out, f, strips).flip(1), "mask": masks[0]}

    def _blocks(self, group: range) -> Sequence[nn.Module]:
        return [self.get_submodule(f"res_block{number}") for number in group]

    def activation_bytes(self, height: int, width: int) -> int:
        """A dozen feature maps; for large pictures one, and a dozen strips."""
        pixels, element = height * width, 4 * self.width
        strips = strips_of(height, width)
        if len(strips) == 1:
            return 12 * element * pixels
        strip = max(last - first for first, last in strips) + 12
        return element * pixels + 16 * pixels + 14 * element * strip * width

    def multiply_adds(self, height: int, width: int) -> int:
        """526,144 per pixel at width 32, those of the sweeps included, which no counter sees."""
        c = self.width
        blocks = BLOCKS * 11 * c * c
        attention = 4 * (9 * c * c + 2 * 9 * 4 * c * c + c)
        sweeps = 4 * 2 * 4 * c
        return (blocks + attention + sweeps + 2 * 9 * 3 * c) * height * width


class ResidualBlock(nn.Module):
    """The branch of one block: 1x1, dilated 3x3, 1x1, (B, C, H, W) -> the same; the caller adds it to its
    input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group1 = nn.Sequential()
        self.group1.add_module("conv1", nn.Conv2d(width, width, 1, bias=False))
        self.group1.add_module("relu1", nn.ReLU(inplace=True))
        self.group1.add_module("conv2", nn.Conv2d(width, width, 3, padding=2, dilation=2, bias=False))
        self.group1.add_module("relu2", nn.ReLU(inplace=True))
        self.group1.add_module("conv3", nn.Conv2d(width, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.group1(x)
        return branch
