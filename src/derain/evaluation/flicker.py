"""How much a clip flickers: changes from one frame to the next that should not be there.

Each function takes a restored frame and the one before it, and returns the mean absolute change of luma
(0.299 R + 0.587 G + 0.114 B of bytes), in levels of 8 bits. Falling rain flickers by itself, so compare
the figures with those of the unchanged input.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from derain.errors import DerainError
from derain.evaluation.levels import AnyPicture, Array, Quantise, as_rgb, byte_pair, single
from derain.evaluation.luma import full_range_luma, full_range_luma_bytes

ASTRAY = 1.0  # pixels by which the flow there and back may miss its start and still be trusted
SMALLEST = 32  # pixels: least side of a frame in which movement can be measured


def flicker_truth(
    restored: AnyPicture,
    previous: AnyPicture,
    clean: AnyPicture,
    previous_clean: AnyPicture,
    quantise: Quantise = "round",
) -> float:
    """Change of the error against the clean frame from one frame to the next; any camera.

    Mean |(O_t - T_t) - (O_t-1 - T_t-1)|, so that changes in the clean frames themselves, movement included,
    cancel out.
    """
    now, before = (
        np.subtract(*(full_range_luma(as_rgb(x)) for x in byte_pair(a, b, 1, quantise)))
        for a, b in ((restored, clean), (previous, previous_clean))
    )
    return float(np.abs(now - _like(before, now)).mean())


def flicker_static(restored: AnyPicture, previous: AnyPicture, quantise: Quantise = "round") -> float:
    """Change from one frame to the next; for a static camera."""
    now, before = (full_range_luma(as_rgb(single(x, 1, quantise))) for x in (restored, previous))
    return float(np.abs(now - _like(before, now)).mean())


def flicker_warped(
    restored: AnyPicture,
    previous: AnyPicture,
    rainy: AnyPicture,
    previous_rainy: AnyPicture,
    quantise: Quantise = "round",
) -> float:
    """Change from one frame to the next along the movement of the rainy frames; for a moving camera.

    The movement is estimated by dense inverse search in both directions; pixels where the two disagree by
    more than one pixel, or whose origin lies outside, are left out. It is the same for all networks.

    Raises:
        DerainError: also where a side is under 32 pixels, or the movement cannot be followed anywhere.
    """
    now, rain = byte_pair(restored, rainy, SMALLEST, quantise, "rainy")
    before, rain_before = byte_pair(previous, previous_rainy, SMALLEST, quantise, "rainy")
    _like(rain_before, rain)
    flow, is_known = movement(*(full_range_luma_bytes(as_rgb(x)) for x in (rain, rain_before)))
    if not is_known.any():
        raise DerainError("the movement between the frames cannot be followed anywhere.")
    moved = warped(full_range_luma(as_rgb(before)), flow)
    return float(np.abs(full_range_luma(as_rgb(now)) - moved)[is_known].mean())


def movement(now: Array, before: Array) -> tuple[Array, Array]:
    """Where the pixels of a frame were in the one before.

    Args:
        now, before: (H, W) uint8.

    Returns:
        The flow (H, W, 2) float32, (right, down) in pixels, to be added to each position; and (H, W) bool,
        where to trust it.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow: Any = None  # no initial flow
    there, back = search.calc(now, before, flow), search.calc(before, now, flow)
    height, width = now.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    u, v = x + there[..., 0], y + there[..., 1]
    is_inside = (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
    miss = np.hypot(*((there[..., i] + warped(back[..., i].astype(np.float64), there)) for i in range(2)))
    return there, is_inside & (miss <= ASTRAY)


def warped(plane: Array, flow: Array) -> Array:
    """plane(x + flow(x)) by linear interpolation, edges repeated; (H, W) float64."""
    height, width = plane.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    u = np.clip(x + flow[..., 0].astype(np.float64), 0, width - 1)
    v = np.clip(y + flow[..., 1].astype(np.float64), 0, height - 1)
    left, top = (np.minimum(np.floor(a), n - 2).astype(int) for a, n in ((u, width), (v, height)))
    right, down = u - left, v - top
    upper = plane[top, left] * (1 - right) + plane[top, left + 1] * right
    lower = plane[top + 1, left] * (1 - right) + plane[top + 1, left + 1] * right
    mixed: Array = upper * (1 - down) + lower * down
    return mixed


def _like(before: Array, now: Array) -> Array:
    if before.shape != now.shape:
        sizes = (f"{x.shape[1]}x{x.shape[0]}" for x in (now, before))
        raise DerainError("the frame is {} and the one before it {}; they must be equal.".format(*sizes))
    return before
