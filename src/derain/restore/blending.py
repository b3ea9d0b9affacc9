"""How much of a change is applied to a picture: its strength, and the parts left unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from derain.pictures import Picture, to_tensor
from derain.pictures.picture import to_pixels
from derain.restore.protecting import protected

ROWS = 256  # rows of a picture that are blended at once


def blended(rainy: Tensor, image: Tensor, strength: float, keep: Tensor | None) -> Tensor:
    """`image` with the change from `rainy` scaled by `strength`, and the pixels of `rainy` where `keep` is 1.

    Args:
        rainy, image: (B, 3, H, W) in [0, 1], before and after.
        strength: how much of the change to apply; see `derain.restore.Settings`.
        keep: how much of each pixel stays unchanged, (1, 1, H, W); see
            `derain.restore.protecting.keep_map`. None changes all of them.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    if strength != 1:
        image = torch.lerp(rainy.to(image), image, strength).clamp_(0, 1)
    return image if keep is None else protected(rainy.to(image), image, keep)


def blended_picture(rainy: Picture, restored: Picture, strength: float, keep: Tensor | None) -> Picture:
    """As `blended`, for a picture of integers, in bands of rows."""
    if strength == 1 and keep is None:
        return restored
    height, _ = rainy.size
    pixels = np.empty_like(rainy.pixels)
    for top in range(0, height, ROWS):
        rows = top, min(top + ROWS, height)
        before, after = to_tensor(rainy, *rows), to_tensor(restored, *rows)
        part = None if keep is None else keep[:, :, slice(*rows)]
        pixels[slice(*rows)] = to_pixels(rainy, blended(before, after, strength, part))
    return replace(restored, pixels=pixels)
