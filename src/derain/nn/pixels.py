"""Feature maps as matrices of pixels by channels, and back; without a copy in channels-last memory."""

from __future__ import annotations

import torch
from torch import Tensor

from derain.nn.tracing import is_tracing


def as_pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(pixels: Tensor, like: Tensor) -> Tensor:
    """(B, H W, C) or (B H W, C) -> (B, C, H, W) with the B, H and W of the map `like`."""
    batch, _, height, width = like.shape
    return pixels.view(batch, height, width, -1).permute(0, 3, 1, 2)


def plus_product(onto: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
    """onto + x @ matrix, written into `onto` while no gradients are recorded.

    Args:
        onto: (B, P, D).
        x: (B, P, C).
        matrix: (C, D), or one for each picture, (B, C, D).
    """
    if torch.is_grad_enabled() or is_tracing():
        return onto + x @ matrix
    if matrix.dim() == 3:
        return onto.baddbmm_(x, matrix)
    return onto.flatten(0, 1).addmm_(x.flatten(0, 1), matrix).view_as(onto)
