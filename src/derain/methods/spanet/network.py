"""SPANet: spatial attentive network for single-image deraining (Wang et al., CVPR 2019).

A full-resolution residual network of 17 dilated blocks. Four times a spatial attentive module
(SAM) turns the features into a one-channel map of how rainy each pixel is; the next three blocks
may change the features only in proportion to it. The SAM sees along whole streaks by two
four-direction recurrent sweeps (`nn/irnn.py`).

Form, not value, differs from the paper's code in three places: pictures are RGB here and are
turned to the blue-green-red order of the published weights inside; large pictures are restored in
strips (`strips.py`); and the SAM is computed as `attention.py` says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from derain.methods.network import RainNetwork, Spec
from derain.methods.spanet import strips
from derain.methods.spanet.attention import SpatialAttention

BLOCKS = 17
# Pictures of more pixels are restored in strips of rows when no gradients are needed.
LARGE = 1 << 20


class SPANet(RainNetwork):
    """The network; state dict names and shapes are the published ones.

    Args:
        width: channels of the features, 32 as published.
    """

    spec = Spec(maps=("mask",))

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
        f = self.features(rainy)
        for group in self.groups:
            mask: Tensor | None = self.SAM1(f) if group in self.attentive else None
            f = self.blocks(f, group, mask)
            masks += [mask] if mask is not None else []
        return {"image": self.image(f), "mask": masks[0]}

    def fast(self, rainy: Tensor) -> dict[str, Tensor]:
        """The same; large pictures in strips, which need a tenth of the memory."""
        if rainy.shape[2] * rainy.shape[3] <= LARGE:
            return self.plain(rainy)
        image, mask = strips.restore(self, rainy)
        return {"image": image, "mask": mask}

    def features(self, rainy: Tensor) -> Tensor:
        """The first convolution: RGB (B, 3, H, W) -> (B, C, H, W)."""
        f: Tensor = self.conv_in(rainy.flip(1))
        return f

    def blocks(self, f: Tensor, group: range, mask: Tensor | None) -> Tensor:
        """A group of residual blocks; the mask (B, 1, H, W) scales what they add."""
        for number in group:
            branch = self.get_submodule(f"res_block{number}")(f)
            # In place where autograd does not need the old values.
            f = branch.add_(f) if mask is None else torch.addcmul(f, branch, mask)
            f.relu_()
        return f

    def image(self, f: Tensor) -> Tensor:
        """The last convolution: (B, C, H, W) -> RGB (B, 3, H, W)."""
        image: Tensor = self.conv_out(f)
        return image.flip(1)

    def activation_bytes(self, height: int, width: int) -> int:
        """A dozen feature maps; for large pictures one, and a dozen strips."""
        pixels, element = height * width, 4 * self.width
        if pixels <= LARGE:
            return 12 * element * pixels
        strip = max(last - first for first, last in strips.strips_of(height, width)) + 12
        return element * pixels + 16 * pixels + 14 * element * strip * width

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
        self.group1.add_module("relu1", nn.ReLU(inplace=True))
        self.group1.add_module("conv2", nn.Conv2d(width, width, 3, padding=2, dilation=2, bias=False))
        self.group1.add_module("relu2", nn.ReLU(inplace=True))
        self.group1.add_module("conv3", nn.Conv2d(width, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.group1(x)
        return branch
