"""Blocks of the Restormer family of Transformers, computed window by window without gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from derain.nn.halo_windows import Sides, by_windows
from derain.nn.pixels import as_map, as_pixels


@dataclass(frozen=True)
class Block:
    """Attention finds a matrix for V; windows apply it, add the skip and go through the feed-forward part.

    Attributes:
        attention: (B, C, h, w) -> V of the same shape, and the matrix that it meets, (B, C, C).
        bias: of the projection after attention, (C,).
        feed_forward: a window with a halo -> its inside; the window may be overwritten.
        halo: pixels of a window that the feed-forward part looks at on each side.
        buffer_channels: that the feed-forward part holds at once.
    """

    attention: Callable[[Tensor], tuple[Tensor, Tensor]]
    bias: Tensor | None
    feed_forward: Callable[[Tensor, Sides], Tensor]
    halo: int
    buffer_channels: int

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        v, matrix = self.attention(x)

        def block(window: Tensor, sides: Sides, v: Tensor) -> Tensor:
            attended = torch.baddbmm(as_pixels(window), as_pixels(v), matrix)
            if self.bias is not None:
                attended += self.bias
            return self.feed_forward(as_map(attended, window), sides)

        return by_windows(block, x, self.halo, self.buffer_channels, others=[v])


@dataclass(frozen=True)
class Stage:
    """Blocks one after the other."""

    blocks: tuple[Block, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x
