"""Scores of real pictures without a clean one, where a mask marks the rain.

Luma is 0.299 R + 0.587 G + 0.114 B of bytes. The mask dilated by a 5 x 5 square is *near* rain, the rest
is *dry*. The background of a picture is the mean of its dry pixels in a 25 x 25 window, known where at
least 15 % of the window is dry. `removed` alone rewards blurring and `harm` alone doing nothing: read
them together.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from derain.errors import DerainError
from derain.evaluation.levels import AnyPicture, Array, Quantise, as_rgb, byte_pair, mask_of
from derain.evaluation.luma import full_range_luma

NEAR = 5  # pixels: side of the square by which the mask is dilated
WINDOW = 25  # pixels: side of the window of the background
KNOWN = 0.15  # least share of dry pixels with which the background counts as known


class RealRain(NamedTuple):
    """What happened to the rain of a real picture, and to the rest.

    Attributes:
        removed: share of the rain's contrast that is gone: 0 if unchanged, 1 if rain no longer stands out,
            above 1 if marks are left that are darker than their surroundings.
        harm: mean absolute change of luma at dry pixels, in levels of 8 bits.
        detail: mean gradient of luma between dry pixels, relative to the rainy picture; below 1 if smoother.
        brightness: mean change of luma at dry pixels, in levels of 8 bits.
    """

    removed: float
    harm: float
    detail: float
    brightness: float


def real_rain(
    restored: AnyPicture, rainy: AnyPicture, mask: AnyPicture, quantise: Quantise = "round"
) -> RealRain:
    """Rain contrast removed inside a mask, and change outside it; for real rain without truth.

    Rain is where the mask is in the upper half of its range (from 128 for bytes, from 0.5 for floats).

    Raises:
        DerainError: the sizes differ, the mask is a photograph, it marks no rain whose background is known,
            or it leaves no dry pixels, or the rainy picture has no contrast there.
    """
    o, i = (full_range_luma(as_rgb(x)) for x in byte_pair(restored, rainy, 1, quantise, "rainy"))
    wet = mask_of(mask)
    if wet.shape != i.shape:
        sizes = (f"{shape[1]}x{shape[0]}" for shape in (wet.shape, i.shape))
        raise DerainError("the mask is {} and the picture {}; they must be equal.".format(*sizes))
    dry = cv2.dilate(wet.astype(np.uint8), np.ones((NEAR, NEAR), np.uint8)) == 0
    count = _window_sum(dry.astype(np.float64))
    rain = wet & (count >= KNOWN * WINDOW**2)
    if not rain.any():
        raise DerainError("the mask marks no rain beside dry pixels (rain is 128 and above).")

    def contrast(luma: Array) -> float:
        background = _window_sum(luma * dry)[rain] / count[rain]
        return float((luma[rain] - background).mean())

    before, texture = contrast(i), _gradient(i, dry)
    if not before or not texture:
        raise DerainError("the rainy picture is flat inside or outside the mask, so nothing can be said.")
    change = (o - i)[dry]
    return RealRain(
        removed=1 - contrast(o) / before,
        harm=float(np.abs(change).mean()),
        detail=_gradient(o, dry) / texture,
        brightness=float(change.mean()),
    )


def _window_sum(plane: Array) -> Array:
    """Sum over a window around each pixel; beyond the edges, OpenCV's reflection without the edge pixels."""
    total: Array = cv2.boxFilter(plane, cv2.CV_64F, (WINDOW, WINDOW), normalize=False)
    return total


def _gradient(luma: Array, dry: Array) -> float:
    """Mean length of (dx, dy), the differences from the next pixels, where all three pixels are dry."""
    here = luma[:-1, :-1]
    length = np.hypot(luma[:-1, 1:] - here, luma[1:, :-1] - here)
    inside = dry[:-1, :-1] & dry[:-1, 1:] & dry[1:, :-1]
    return float(length[inside].mean()) if inside.any() else 0.0
