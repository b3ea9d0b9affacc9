"""Small parts that several of the network's files share."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


def named(name: str, module: nn.Module) -> nn.Sequential:
    """`module` as the only child, under the name that it has in the state dict."""
    return nn.Sequential(OrderedDict({name: module}))


class ChannelGate(nn.Module):
    """x times a factor in (0, 1) per channel, computed from the channels' means; (B, C, H, W).

    Args:
        channels: C.
        inner: channels between the two 1x1 convolutions.
        activation: between them.
        bias: whether they have one.
        name: of the layers in the state dict.
    """

    def __init__(
        self, channels: int, inner: int, activation: nn.Module, bias: bool, name: str = "conv_du"
    ) -> None:
        super().__init__()
        first, last = nn.Conv2d(channels, inner, 1, bias=bias), nn.Conv2d(inner, channels, 1, bias=bias)
        self.name = name
        self.add_module(name, nn.Sequential(first, activation, last, nn.Sigmoid()))

    def factors(self, means: Tensor) -> Tensor:
        """The gate (B, C, 1, 1) of means of the same shape."""
        gate: Tensor = self.get_submodule(self.name)(means)
        return gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors(x.mean((2, 3), keepdim=True))


class DeviationNorm(nn.Module):
    """Each pixel over the standard deviation of its channels; the mean is not removed. (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.var(1, keepdim=True, correction=0)
        return x / torch.sqrt(variance + 1e-5) * self.weight.view(-1, 1, 1)
