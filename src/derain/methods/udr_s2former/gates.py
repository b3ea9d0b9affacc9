"""Channel gates, and 1x1 convolutions that take a gate into their weights.

Feature maps are (B, C, H, W) in channels-last memory here, so that a picture is a matrix of pixels
by channels without a copy.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


def named(name: str, module: nn.Module) -> nn.Sequential:
    """`module` as the only child, under the name that it has in the state dict."""
    return nn.Sequential(OrderedDict({name: module}))


def squeeze(name: str, channels: int, inner: int, activation: nn.Module, bias: bool) -> nn.Sequential:
    """The two 1x1 convolutions of a gate: C -> inner -> C."""
    layers = nn.Conv2d(channels, inner, 1, bias=bias), activation, nn.Conv2d(inner, channels, 1, bias=bias)
    return named(name, nn.Sequential(*layers))


def channel_gate(layers: nn.Module, x: Tensor) -> Tensor:
    """(B, C, 1, 1) in (0, 1), from the means of x (B, C, H, W)."""
    return torch.sigmoid(layers(x.mean((2, 3), keepdim=True)))


def gated_1x1(x: Tensor, gate: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
    """onto + (1x1 convolution of x * gate), where the gate scales the weights instead of the picture.

    Args:
        x: (B, C, H, W).
        gate: (B, C, 1, 1).
        weight: (D, C, 1, 1).
        onto: a bias (D,) or a picture (B, D, H, W).
    """
    b, _, h, w = x.shape
    if onto.dim() == 4:
        onto = pixels(onto)
    weights = gate.flatten(1).unsqueeze(2) * weight.flatten(1).t()
    return torch.baddbmm(onto, pixels(x), weights).view(b, h, w, -1).permute(0, 3, 1, 2)


def pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
