"""Large pictures: rain is found in a reduced copy, and the change is enlarged and applied to the original.

The more pixels a camera has, the more of them a streak covers, until a network no longer recognises it as
rain. In a reduced copy, it looks as it did in training. The picture keeps its detail, as only the change is
enlarged, and the time taken hardly grows with the number of pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.methods.network import Rows

# A picture only slightly larger than the working size is restored at its own size: reducing it would blur
# thin streaks and gain little.
WORTHWHILE = 1.25
WHOLE = 1 << 22  # pixels; pictures up to this size are reduced and enlarged in one piece
ROWS = 256  # rows of larger pictures that are read or enlarged at once
SHARPNESS = -0.75  # of cubic interpolation, as in OpenCV


def reduced_size(height: int, width: int, side: int | None) -> tuple[int, int] | None:
    """Height and width of the reduced copy; None for a picture that is restored at its own size.

    Args:
        height, width: of the picture.
        side: the shorter side of the copy; None for a network that restores every picture at its own size.

    Examples:
        >>> reduced_size(3000, 4000, 720)
        (720, 960)
        >>> reduced_size(768, 1024, 720) is None
        True
    """
    shorter = min(height, width)
    if side is None or shorter <= WORTHWHILE * side:
        return None
    return round(height * side / shorter), round(width * side / shorter)


def rows_at_once(height: int, width: int) -> int:
    """How many rows of a large picture are read or enlarged at once."""
    return height if height * width <= WHOLE else min(ROWS, height)


def reduced(rows: Rows, height: int, size: tuple[int, int]) -> Tensor:
    """A picture reduced by averaging over areas.

    Args:
        rows: returns rows of the picture, (B, C, h, width) float32.
        height: of the picture.
        size: height and width of the copy, both smaller.

    Returns:
        (B, C, *size).
    """
    if rows_at_once(height, rows(0, 1).shape[3]) == height:
        return _resized(rows(0, height), size, cv2.INTER_AREA)
    narrow = None
    for top in range(0, height, ROWS):
        band = _resized(rows(top, min(top + ROWS, height)), (-1, size[1]), cv2.INTER_AREA)
        if narrow is None:  # rows contiguous in memory, as they are resized
            batch, channels, _, width = band.shape
            narrow = band.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)
        narrow[:, :, top : top + ROWS] = band
    assert narrow is not None
    return _resized(narrow, size, cv2.INTER_AREA)


def enlarged_rows(small: Tensor, height: int, width: int, top: int, bottom: int) -> Tensor:
    """Rows `top` up to `bottom` of `small` (B, C, h, w) enlarged to `height` and `width`, by cubic
    interpolation; (B, C, bottom - top, width)."""
    if bottom - top == height:
        return _resized(small, (height, width), cv2.INTER_CUBIC)
    weights, first = _weights(small.shape[2], height, top, bottom)
    seen = small[:, :, first : first + weights.shape[1]].permute(0, 2, 3, 1)
    # (B, rows, w, C) in memory: the layout that `_resized` needs, so it copies nothing.
    high = (weights @ seen.flatten(2)).unflatten(2, seen.shape[2:]).permute(0, 3, 1, 2)
    return _resized(high, (-1, width), cv2.INTER_CUBIC)


def _weights(small: int, large: int, top: int, bottom: int) -> tuple[Tensor, int]:
    """How much k small rows add to each large row, (bottom - top, k), and the index of the first of them."""
    centre = (np.arange(top, bottom) + 0.5) * small / large - 0.5
    nearest = np.floor(centre).astype(np.int64)[:, None] + np.arange(-1, 3)
    distance, a = np.abs(centre[:, None] - nearest), SHARPNESS
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    taken = nearest.clip(0, small - 1)
    first = int(taken.min())
    weights = np.zeros((bottom - top, int(taken.max()) + 1 - first), np.float32)
    np.add.at(weights, (np.arange(bottom - top)[:, None], taken - first), np.where(distance <= 1, near, far))
    return torch.from_numpy(weights), first


def _resized(pictures: Tensor, size: tuple[int, int], interpolation: int) -> Tensor:
    """(B, C, h, w) resized; a height of -1 keeps the number of rows."""
    batch, channels, rows, _ = pictures.shape
    height, width = rows if size[0] < 0 else size[0], size[1]
    result = np.empty((batch, height, width, channels), np.float32)
    for picture, into in zip(pictures.permute(0, 2, 3, 1), result, strict=True):
        pixels: NDArray[np.float32] = np.ascontiguousarray(picture.cpu().numpy())
        cv2.resize(pixels, (width, height), into, interpolation=interpolation)
    return torch.from_numpy(result).permute(0, 3, 1, 2)
