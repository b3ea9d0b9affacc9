"""Everyday: a plain U-Net that removes rain from photographs quickly on ordinary machines.

Made for this project. Everything is a dense 3x3 convolution or a 2x2 one with stride 2, because those
are what processors and graphics cards do fastest: no norms, no attention, no depthwise layers.
The network works on the picture cut into its four half-size phases, predicts what the rain added
and subtracts it, except for what is too faint to be certain. It starts as the identity: the last
convolution of every block and of the network is zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.network import RainNetwork, Spec

# Photographs in training are 320 to 640 pixels high; their rain was enlarged up to 2.6 times.
WORKING_SIDE = 720
SHOWN = 4  # factor that makes faint rain visible in the map
# Below about two levels of 8 bits, what the network takes for rain is mostly noise and texture of the scene.
# A power of two, so that `certain` is exactly 0 there in half precision, too.
FAINTEST = 2**-7


class Block(nn.Module):
    """x + conv(relu(conv(x))); (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        start_small(self.second)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.second(self.relu(self.first(x)))
        return x + residual


class Everyday(RainNetwork):
    """The network.

    Args:
        widths: channels of each level, from the finest (half the picture's size) to the coarsest.
        encoder: residual blocks of each level on the way down.
        decoder: residual blocks of each level but the coarsest on the way up.

    Raises:
        DerainError: the three do not fit together.
    """

    def __init__(self, widths: Sequence[int], encoder: Sequence[int], decoder: Sequence[int]) -> None:
        super().__init__()
        if len(encoder) != len(widths) or len(decoder) != len(widths) - 1:
            raise DerainError(
                f"{len(widths)} widths need as many numbers of encoder blocks and one fewer of decoder "
                f"blocks, not {len(encoder)} and {len(decoder)}."
            )
        self.widths = tuple(widths)
        self.spec = Spec(
            multiple_of=2 ** len(widths),
            receptive_field=_receptive_field(encoder, decoder),
            working_side=WORKING_SIDE,
            safe_in_bfloat16=True,
            maps=("mask",),
        )
        neighbours = list(itertools.pairwise(widths))
        self.stem = nn.Conv2d(4 * 3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(map(_blocks, widths, encoder))
        self.down = nn.ModuleList(nn.Conv2d(finer, coarser, 2, stride=2) for finer, coarser in neighbours)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarser, finer, 2, stride=2) for finer, coarser in neighbours
        )
        self.decoder = nn.ModuleList(map(_blocks, widths[:-1], decoder))
        self.head = nn.Conv2d(widths[0], 4 * 3, 3, padding=1)
        start_small(self.head)

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, 3, H, W), not clamped; `mask` (B, 1, H, W) in [0, 1], `SHOWN` times the mean
        change of the three colours."""
        x = self.stem(F.pixel_unshuffle(rainy, 2))
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=False):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = blocks(up(x) + skips.pop())
        rain = F.pixel_shuffle(self.head(x), 2)
        if not self.training:
            rain = certain(rain)
        mask = (SHOWN * rain.abs().mean(1, keepdim=True)).clamp(max=1)
        return {"image": rainy - rain, "mask": mask}

    def activation_bytes(self, height: int, width: int) -> int:
        """Four maps of the finest level, one of every other, and the picture three times."""
        maps = [4.0, *(1.0 for _ in self.widths[1:])]
        numbers = sum(
            m * w / 4 ** (level + 1) for level, (m, w) in enumerate(zip(maps, self.widths, strict=True))
        )
        return int(4 * (numbers + 9)) * height * width


def certain(rain: Tensor) -> Tensor:
    """What is subtracted of predicted rain of any shape: nothing up to `FAINTEST`, and almost all far above.

    The non-negative garrote, as used to denoise wavelets (Gao, "Wavelet Shrinkage Denoising Using the
    Non-Negative Garrote", 1998). Rain never darkens a pixel, so negative values become 0, too. Not for
    training: where the result is 0, so are its gradients.
    """
    kept = rain.clamp(min=FAINTEST)
    return kept - FAINTEST**2 / kept


def start_small(convolution: nn.Conv2d) -> None:
    """Sets weights so small that a residual branch starts close to zero; the bias is 0."""
    nn.init.normal_(convolution.weight, std=1e-3)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[Block(channels) for _ in range(count)])


def _receptive_field(encoder: Sequence[int], decoder: Sequence[int]) -> int:
    """Pixels on each side: a 3x3 convolution sees one pixel of its own level further, and so does each
    change of level."""
    convolutions = [2 * (down + up) for down, up in zip(encoder, (*decoder, 0), strict=True)]
    return 4 + sum((2 << level) * (count + 1) for level, count in enumerate(convolutions))
