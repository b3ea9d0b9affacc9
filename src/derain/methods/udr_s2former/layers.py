"""Small parts that several of the network's files share: gates, 1x1 convolutions, work in pieces.

Feature maps are (B, C, H, W) in channels-last memory here, so that a picture is a matrix of pixels
by channels without a copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.nn.pixels import as_map, as_pixels
from derain.nn.tracing import is_tracing


def named(name: str, module: nn.Module) -> nn.Sequential:
    """`module` as the only child, under the name that it has in the state dict."""
    return nn.Sequential(OrderedDict({name: module}))


class Squeeze(nn.Sequential):
    """The two 1x1 convolutions of a channel gate, C -> inner -> C, applied to means (B, C)."""

    def __init__(self, channels: int, inner: int, activation: nn.Module, bias: bool) -> None:
        first, last = nn.Conv2d(channels, inner, 1, bias=bias), nn.Conv2d(inner, channels, 1, bias=bias)
        super().__init__(first, activation, last)

    def forward(self, means: Tensor) -> Tensor:
        """The gate, (B, C) in (0, 1)."""
        first, activation, last = self
        assert isinstance(first, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        return torch.sigmoid(linear(activation(linear(means, first)), last))


def linear(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution applied along the last axis."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def spatial_means(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C)."""
    return x.mean((2, 3))


def gated_1x1(x: Tensor, gate: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
    """onto + (1x1 convolution of x * gate), where the gate scales the weights instead of the picture.

    Args:
        x: (B, C, H, W).
        gate: (B, C).
        weight: (D, C, 1, 1).
        onto: a bias (D,) or a picture (B, D, H, W).
    """
    if onto.dim() == 4:
        onto = as_pixels(onto)
    weights = gate.unsqueeze(2) * weight.flatten(1).t()
    return as_map(torch.baddbmm(onto, as_pixels(x), weights), x)


def pieces(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors cut along their first axis into pieces that stay in a CPU's cache; elsewhere whole."""
    if tensors[0].device.type != "cpu" or is_tracing():
        return iter([tensors])
    return zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


def by_pixels(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """A function of single pixels applied to x (B, H, W, C), in pieces.

    Args:
        function: (N, C) -> (N, C).
        x: contiguous.
        width: channels of the widest array inside `function`.
    """
    rows = x.flatten(0, 2)
    return torch.cat([function(piece) for (piece,) in pieces(max(1024, 2**18 // width), rows)]).view(x.shape)
