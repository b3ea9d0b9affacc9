"""Grouped convolutions that do not slow down training on a CPU.

PyTorch's own kernels are fast for 3x3 depthwise convolutions without dilation. For 1x1 depthwise ones, for
groups of several channels, and for gradients of larger or dilated kernels they take two to twenty times as
long as the combinations of products and 3x3 convolutions here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from derain.nn.tracing import is_tracing


class GroupedConv2d(nn.Conv2d):
    """`nn.Conv2d` of stride 1 with one output channel per group: (B, n C, H, W) -> (B, C, H, W).

    Kernels have odd sides, and padding keeps height and width. Parameters, results and gradients are those
    of `nn.Conv2d`, up to rounding; in mixed precision too they are taken in the type of the weights, as
    gradients in bfloat16 take three to four times as long. Without gradients, in graphs and on other devices
    than CPUs PyTorch's own operation runs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or is_tracing() or x.device.type != "cpu":
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self.forward(x.to(self.weight.dtype))
        kernels = self.weight.flatten(0, 1).unsqueeze(1)  # of each input channel
        products = depthwise(x, kernels, self.dilation[0])
        y, *others = every_nth(products, self.in_channels // self.groups)
        for other in others:
            y = y + other
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


def every_nth(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """(B, n C, H, W) -> n times (B, C, H, W): channels 0, n, 2 n ..., then 1, n + 1 ...

    Split pixel by pixel, so that the gradient comes in one piece and in channels-last memory; slices of
    channels would each fill their own gradient with zeros, in the other layout.
    """
    if count == 1:
        return (x,)
    pixels = x.permute(0, 2, 3, 1).unflatten(-1, (-1, count))
    return tuple(part.permute(0, 3, 1, 2) for part in pixels.unbind(-1))


def depthwise(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """(B, C, H, W) and (C, 1, k, k) -> (B, C, H, W)."""
    side = weight.shape[-1]
    if side == 1:
        return x * weight.view(-1, 1, 1)
    x = x.contiguous(memory_format=torch.channels_last)  # the kernels are slow on every nth channel
    if side == 3 and dilation == 1:
        return F.conv2d(x, weight, padding=1, groups=len(weight))
    y: Tensor = _Depthwise.apply(x, weight, dilation)
    return y


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradients are computed by fast convolutions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolved(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = _convolved(gradient, weight.flip(2, 3), ctx.dilation)
        return of_x, _weight_gradient(x, gradient, weight.shape[-1], ctx.dilation), None


def _convolved(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    return F.conv2d(x, weight, None, 1, dilation * (weight.shape[-1] // 2), dilation, len(weight))


def _weight_gradient(x: Tensor, gradient: Tensor, side: int, dilation: int) -> Tensor:
    """(C, 1, side, side), put together from 3x3 blocks, for which there is a fast kernel.

    A block is chosen by where the gradient lies among zeros, so that x is copied once. Dilation needs no
    kernel of its own: every nth pixel of every nth row is a picture without it.
    """
    x = _phases(F.pad(x, [dilation * (side // 2)] * 4), dilation)
    gradient = _phases(gradient, dilation)
    height, last = gradient.shape[2], side - 3
    starts = [*range(0, last, 3), last]
    weight = x.new_empty(x.shape[1], 1, side, side)
    for column in starts:
        placed = F.pad(gradient, (column, last - column, last, last))
        for row in starts:
            rows = placed[:, :, last - row : last - row + height + last]
            _, block, _ = torch.ops.aten.convolution_backward(
                *(rows, x, weight[:, :, :3, :3], None, [1, 1], [0, 0], [1, 1], False, [0, 0]),
                groups=len(weight),
                output_mask=[False, True, False],
            )
            weight[:, :, row : row + 3, column : column + 3] = block
    return weight


def _phases(x: Tensor, step: int) -> Tensor:
    """(B, C, H, W) -> (step^2 B, C, h, w), zeros at the end; a pixel's neighbours are those `step` away."""
    if step == 1:
        return x
    down, right = (-length % step for length in x.shape[2:])
    x = F.pad(x, (0, right, 0, down))
    return torch.cat([x[:, :, row::step, column::step] for row in range(step) for column in range(step)])
