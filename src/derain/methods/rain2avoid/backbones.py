"""The networks of Rain2Avoid (Peng and Li, ICASSP 2023; Peng, Li and Chen, IEEE TMM 2025).

Three ordinary backbones that learn on one rainy picture: a U-Net (the default), a ResNet-18 with
a decoder, and DnCNN. All map a picture to the picture without rain, not to a residual.

All three hold BatchNorm. In training mode it uses the statistics of the current picture and moves
its running averages; in eval mode it uses those averages. The journal version restores a single
picture in eval mode, the first version and the training on many pictures stay in training mode;
`fitting.py` sets the averages to those of the training pictures first, which makes both agree.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.contract import StateDict
from derain.methods.keys import has_kernels
from derain.methods.network import RainNetwork, Spec

UNET_KERNELS = (7, 5, 5, 3)  # sides of the encoder's kernels from the picture down; all have stride 2


class UNet(RainNetwork):
    """Encoder of strided convolutions, decoder of nearest upsampling and 3x3 convolutions.

    Args:
        levels: halvings in use, 1 to 4. The others keep unused parameters, as published.
        width: channels of the first level, doubled per level.
        channels: channels of the picture.

    Raises:
        DerainError: `levels` is outside 1 to 4.
    """

    def __init__(self, levels: int = 4, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        if not 1 <= levels <= len(UNET_KERNELS):
            raise DerainError(f"levels is {levels}; it must be 1 to {len(UNET_KERNELS)}.")
        self.levels, self.width = levels, width
        self.spec = Spec(multiple_of=2**levels, receptive_field=_unet_receptive_field(levels))
        widths = [channels] + [width * 2**level for level in range(len(UNET_KERNELS))]
        for level, kernel in enumerate(UNET_KERNELS, 1):
            encoder = Encoder(widths[level - 1], widths[level], kernel, norm=level > 1)
            self.add_module(f"enc_{level}", encoder)
        for level in range(len(UNET_KERNELS), 0, -1):
            out = widths[max(level - 1, 1)] if level > 1 else channels
            decoder = Decoder(widths[level] + widths[level - 1], out, last=level == 1)
            self.add_module(f"dec_{level}", decoder)

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, C, H, W), not clamped."""
        features = [rainy]
        for level in range(1, self.levels + 1):
            features.append(self.get_submodule(f"enc_{level}")(features[-1]))
        z = features.pop()
        for level in range(self.levels, 0, -1):
            z = self.get_submodule(f"dec_{level}")(z, features.pop())
        return {"image": z}

    def activation_bytes(self, height: int, width: int) -> int:
        """The last concatenation, with what is joined there."""
        return round(4 * (2.25 * self.width + 6) * height * width)


class Encoder(nn.Module):
    """Convolution with stride 2, BatchNorm (not in the first level), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.relu(x if self.bn is None else self.bn(x))


class Decoder(nn.Module):
    """Upsampling by 2, concatenation, 3x3 convolution; then BatchNorm and LeakyReLU but in the last."""

    def __init__(self, inputs: int, outputs: int, last: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=last)
        self.bn = None if last else nn.BatchNorm2d(outputs)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        x: Tensor = self.conv(torch.cat([F.interpolate(deep, scale_factor=2), skip], 1))
        return x if self.bn is None else F.leaky_relu(self.bn(x), 0.2)


def _unet_receptive_field(levels: int) -> int:
    """The largest distance between an output pixel and an input pixel that it depends on."""
    furthest = 0
    for pixel in range(2**levels):
        low = high = pixel
        for _ in range(levels):
            low, high = (low - 1) // 2, (high + 1) // 2
        for kernel in reversed(UNET_KERNELS[:levels]):
            low, high = 2 * low - kernel // 2, 2 * high + kernel // 2
        furthest = max(furthest, pixel - low, high - pixel)
    return furthest


class ResNet(RainNetwork):
    """ResNet-18 as encoder and five transposed convolutions with skip sums as decoder.

    The published state dict holds the encoder three times (as `resnet18.*`, by position as
    `resnet.*`, and by level as `down1` to `down5`), because the same modules are registered three
    times; if a file holds different values, the last, `down*`, win. `resnet18.fc` is never used.

    Args:
        width: channels of the first level, 64 as published.
    """

    # The receptive field is hundreds of pixels; in practice every pixel of a small picture.
    spec = Spec(multiple_of=32)

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.resnet18 = body = ResNet18(width)
        stem = (body.conv1, body.bn1, nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.resnet = nn.Sequential(*stem, body.layer1, body.layer2, body.layer3, body.layer4)
        self.down1 = nn.Sequential(*stem[:3])  # 1/2
        self.down2 = nn.Sequential(stem[3], body.layer1)  # 1/4
        self.down3 = body.layer2
        self.down4 = body.layer3
        self.down5 = nn.Sequential(body.layer4)  # 1/32
        self.up1 = Up(8 * width, 4 * width)
        self.up2 = Up(4 * width, 2 * width)
        self.up3 = Up(2 * width, width)
        self.up4 = Up(width, width)
        self.up5 = Up(width, 3, last=True)

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, 3, H, W), not clamped."""
        x1 = self.down1(rainy)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x4 = self.down4(x3)
        z = x4 + self.up1(self.down5(x4))
        z = x3 + self.up2(z)
        z = x2 + self.up3(z)
        z = x1 + self.up4(z)
        return {"image": self.up5(z)}

    def activation_bytes(self, height: int, width: int) -> int:
        """Half-size features of both halves where they are added, and the first of the quarter size."""
        return round(4 * (1.2 * self.width + 3) * height * width)


class ResNet18(nn.Module):
    """The modules of a ResNet-18 (He et al., 2016) under their customary names; never called itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(BasicBlock(4 * width, 8 * width, 2), BasicBlock(8 * width, 8 * width, 1))
        self.fc = nn.Linear(8 * width, 1000)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is 1x1 where size or channels change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(branch + (x if self.downsample is None else self.downsample(x)))


class Up(nn.Module):
    """Transposed 4x4 convolution that doubles the size, then ReLU unless it is the last."""

    def __init__(self, inputs: int, outputs: int, last: bool = False) -> None:
        super().__init__()
        conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        self.main = nn.Sequential(conv) if last else nn.Sequential(conv, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.main(x)
        return result


class DnCNN(RainNetwork):
    """A plain chain of 3x3 convolutions (Zhang et al., 2017) that returns the picture itself.

    Args:
        depth: number of convolutions, 17 as published; at least 2.
        width: channels between them.
    """

    def __init__(self, depth: int = 17, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.spec = Spec(receptive_field=depth)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.ReLU()]
        for _ in range(depth - 2):
            conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(width, 3, 3, padding=1, bias=False))
        self.dncnn = nn.Sequential(*layers)

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, 3, H, W), not clamped."""
        return {"image": self.dncnn(rainy)}

    def activation_bytes(self, height: int, width: int) -> int:
        """Features before and after a layer."""
        return 4 * (2 * self.width + 3) * height * width


def recognise_unet(state: StateDict) -> dict[str, Any] | None:
    """Width and channels; the levels in use leave no trace, so the published 4 are assumed."""
    if not has_kernels(state, "enc_1.conv.weight", "dec_1.conv.weight"):
        return None
    width, channels = state["enc_1.conv.weight"].shape[:2]
    return {"levels": 4, "width": width, "channels": channels}


def recognise_resnet(state: StateDict) -> dict[str, Any] | None:
    """Width of the first level."""
    if not has_kernels(state, "resnet18.conv1.weight", "up5.main.0.weight"):
        return None
    return {"width": state["resnet18.conv1.weight"].shape[0]}


def recognise_dncnn(state: StateDict) -> dict[str, Any] | None:
    """Depth from the number of convolutions."""
    if not has_kernels(state, "dncnn.0.weight"):
        return None
    depth = sum(tensor.dim() == 4 for tensor in state.values())
    return {"depth": depth, "width": state["dncnn.0.weight"].shape[0]}
