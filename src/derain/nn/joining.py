"""Changes of size between the levels of the Restormer family, without gradients (see `nn/resizing.py`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.nn.convolution import Convolution
from derain.nn.pixels import as_map
from derain.nn.resizing import Upsample


def halved(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 4 C, h/2, w/2)."""
    return F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)


def doubled(x: Tensor) -> Tensor:
    """(B, 4 C, h, w) -> (B, C, 2h, 2w)."""
    return F.pixel_shuffle(x, 2).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Joining:
    """reduction([upsample(x); skip]), a 1x1 convolution, without the two tensors in between.

    The part of the reduction applied to upsample(x) is merged into its kernel, and the result of the part
    applied to skip is added. Both stay exact: their inputs and outputs are not standardised, so most of their
    digits are common to all pixels.
    """

    enlarging: Convolution  # to four pixels' channels, in the order row, column, channel
    of_skip: Convolution  # with the bias

    @classmethod
    def of(cls, upsample: Upsample, reduction: nn.Conv2d) -> Joining:
        """Made from the two layers that it replaces."""
        kernel = upsample.body[0].weight
        assert isinstance(kernel, Tensor)
        quadruple, inputs = kernel.shape[:2]
        of_up, of_skip = reduction.weight.tensor_split([quadruple // 4], 1)
        merged = torch.einsum("ou,usikl->soikl", of_up.flatten(1), kernel.view(-1, 4, inputs, 3, 3))
        enlarging = Convolution.of(merged.flatten(0, 1), exact=True)
        return cls(enlarging, Convolution.of(of_skip, reduction.bias, exact=True))

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h, w) and (B, S, 2h, 2w) -> (B, O, 2h, 2w)."""
        batch, _, height, width = x.shape
        pixels = self.enlarging(x).permute(0, 2, 3, 1).reshape(batch, height, width, 2, -1)
        pixels = pixels.transpose(2, 3).reshape(batch * 4 * height * width, -1)
        return self.of_skip.add_to(as_map(pixels, skip), skip)
