"""The brightness planes of the protocols; pictures are (H, W, 3) RGB in grey levels 0 to 255.

The weights of BT.601 are kept as integers in thousandths (299, 587, 114), so that a weighted sum of
bytes is an integer and every rounding below is exact.
"""

from __future__ import annotations

import cv2
import numpy as np

from derain.evaluation.levels import Array


def studio_luma(rgb: Array) -> Array:
    """BT.601 studio luma, (H, W) float64 in [16, 235], not rounded: (65.481 R + ...)/255 + 16."""
    return _weighted(rgb, 299, 587, 114) * (219 / 255000) + 16


def studio_luma_bytes(rgb: Array) -> Array:
    """BT.601 studio luma of bytes, (H, W) uint8, 16 to 235, halves rounded up."""
    total = _weighted(rgb, 299, 587, 114)
    total *= 438
    total += 32 * 255000 + 255000
    total /= 510000
    return total.astype(np.uint8)


def studio_luma_exchanged(rgb: Array) -> Array:
    """`studio_luma` with the weights of red and blue exchanged, as a BGR function sees RGB."""
    return _weighted(rgb, 114, 587, 299) * (219 / 255000) + 16


def full_range_luma(rgb: Array) -> Array:
    """0.299 R + 0.587 G + 0.114 B of bytes, (H, W) float64 in [0, 255], not rounded."""
    return _weighted(rgb, 299, 587, 114) / 1000


def full_range_luma_bytes(rgb: Array) -> Array:
    """OpenCV's luma of bytes, (H, W) uint8, 0 to 255: (4899 R + 9617 G + 1868 B + 8192) >> 14."""
    return ((_weighted(rgb, 4899, 9617, 1868) + 8192) / 16384).astype(np.uint8)


def matlab_grey(rgb: Array) -> Array:
    """Matlab's `rgb2gray` of bytes, (H, W) float64 of whole numbers, halves rounded up."""
    red, green, blue = 0.298936021293775, 0.587043074451121, 0.114020904255103
    return np.floor(_weighted(rgb, red, green, blue) + 0.5)


def _weighted(rgb: Array, red: float, green: float, blue: float) -> Array:
    """red R + green G + blue B as (H, W) float64; exact for bytes and whole weights."""
    plane: Array = cv2.transform(rgb.astype(np.float64), np.array([[red, green, blue]]))
    return plane
