"""Feature maps as matrices of pixels by channels, and back; without a copy in channels-last memory."""

from __future__ import annotations

import torch
from torch import Tensor


def as_pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_rows(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, C), one row per pixel of the batch."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def as_map(pixels: Tensor, like: Tensor) -> Tensor:
    """(B, H W, C) or (B H W, C) -> (B, C, H, W) with the B, H and W of the map `like`."""
    batch, _, height, width = like.shape
    return pixels.view(batch, height, width, -1).permute(0, 3, 1, 2)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2C, H, W) -> twice (B, C, H, W): the first channels and the last, channels-last in memory.

    Each has its own memory, as elementwise functions such as GELU take twice as long on views.
    """
    first, last = x.chunk(2, 1)
    layout = torch.channels_last
    return first.contiguous(memory_format=layout), last.contiguous(memory_format=layout)
